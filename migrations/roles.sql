-- Who the functions are to Postgres, and what each may do. Not a migration: the migrator runs this file as a whole after
-- the migrations, every time, so it says how things are to be and is harmless when they are so already.

-- One at a time, until the end of this transaction: Postgres does not wait when two change the same grants.
select pg_advisory_xact_lock(hashtext('roles.sql'));

do $$
declare
    role text;
begin
    foreach role in array array['reader', 'writer', 'processor'] loop
        -- Roles belong to the server, so another database's migrator may be faster.
        if not exists (select from pg_roles where rolname = role) then
            begin
                execute format('create role %I login', role);
            exception when duplicate_object or unique_violation then
                null;
            end;
        end if;
        -- On RDS: this role logs in with IAM tokens (and with nothing else).
        if exists (select from pg_roles where rolname = 'rds_iam') and not pg_has_role(role, 'rds_iam', 'member') then
            execute format('grant rds_iam to %I', role);
        end if;
        -- The settings of every session (SESSION in shared/core/src/store/connection.rs).
        execute format('alter role %I in database %I set jit = %L', role, current_database(), 'off');
        execute format('alter role %I in database %I set enable_seqscan = %L', role, current_database(), 'off');
        execute format('alter role %I in database %I set enable_sort = %L', role, current_database(), 'off');
        execute format('alter role %I in database %I set statement_timeout = %L', role, current_database(), '1800ms');
        execute format('alter role %I in database %I set lock_timeout = %L', role, current_database(), '1s');
        execute format(
            'alter role %I in database %I set idle_in_transaction_session_timeout = %L', role, current_database(), '5s'
        );
    end loop;

    -- By default everybody may create temporary tables. Who may connect is for IAM to decide; RDS has users of its own.
    execute format('revoke temporary on database %I from public', current_database());
end
$$;

revoke create on schema public from public;
grant usage on schema public to reader, writer, processor;

-- What is not granted below was granted once and is no longer needed.
revoke all on all tables in schema public from reader, writer, processor;

-- reader: the functions that only show.
grant select on all tables in schema public to reader;

-- writer: the functions that clients change tasks with, and the task-reconciler.
grant select, insert, update, delete on all tables in schema public to writer;
-- The log of operators' actions only grows; an action of many steps notes its progress.
revoke update, delete on operator_actions from writer;
grant update (count, below, ended_at) on operator_actions to writer;

-- Tables to come, for the moment between their migration and this file.
alter default privileges in schema public grant select on tables to reader;
alter default privileges in schema public grant select, insert, update, delete on tables to writer;

-- processor: claims tasks and settles them. What the client wrote it cannot change, nor create or delete a task.
grant select on tasks to processor;
grant update (
    status, result, attempts, fencing_token, lease_expires_at, requested_at, started_at, settled_at, version, updated_at,
    earlier_attempts
) on tasks to processor;

-- The migrator's own records.
revoke all on _sqlx_migrations from reader, writer;
