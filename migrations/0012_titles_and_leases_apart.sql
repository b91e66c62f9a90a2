-- What status changes write: a task is updated three times (enqueued, claimed, settled), and every update that is not HOT
-- writes to all indexes of the row, of which that of the titles cost as much as all others together.

-- A task is processing while it has a lease: what the status `processing` said, the lease says too. A claim no longer
-- stores that status, so it changes no column of any index, and is a HOT update. The previous version still stores it, and
-- both are shown the same.
create function shown_status(status task_status, lease_expires_at timestamptz) returns text
    language sql stable parallel safe
    return case when $2 is null then $1::text else 'processing' end;

create or replace function task_document(task tasks) returns jsonb
    language sql stable
    return jsonb_build_object(
        'id', task.id,
        'title', task.title,
        'description', task.description,
        'status', shown_status(task.status, task.lease_expires_at),
        'result', task.result,
        'attempts', task.attempts,
        'created_at', rfc3339(task.created_at),
        'updated_at', rfc3339(task.updated_at)
    );

-- Half of each page stays empty for the version that a claim writes: a HOT update needs room on the row's page.
alter table tasks
    drop constraint tasks_lease_while_processing,
    add constraint tasks_lease check (
        case status when 'pending' then true when 'processing' then lease_expires_at is not null else lease_expires_at is null end
    ) not valid,
    set (fillfactor = 50);

-- While two versions run: the previous one takes every pending task for one without a lease. Its claim skips a task whose
-- lease is valid, and retries the message. For the next deployment to drop.
create function keep_lease() returns trigger
    language plpgsql
as $$
begin
    return null;
end
$$;

create trigger tasks_keep_lease
    before update of status on tasks
    for each row
    when (old.status = 'pending' and new.status = 'processing' and old.lease_expires_at > now()
          and new.fencing_token > old.fencing_token)
    execute function keep_lease();

-- The titles, apart from the rows that status changes touch. No foreign key: it would lock the task of every new title.
create table task_titles (
    task_id bigint primary key,
    title text not null
);

-- The parts of a title that a search looks up: its characters and the pairs of neighboring ones, folded. The index compares
-- them by bytes, which takes a fraction of the time of a locale's rules.
create function title_parts(text) returns text[]
    language plpgsql immutable strict parallel safe cost 1000
as $$
declare
    characters text[] := string_to_array(folded($1), null);
    parts text[] := characters;
    total int := cardinality(characters);
begin
    for n in 1 .. total - 1 loop
        parts[total + n] := characters[n] || characters[n + 1];
    end loop;
    return parts;
end
$$;

-- The parts that a title has if it contains a text.
create function search_parts(text) returns text[]
    language sql immutable strict parallel safe
    return case when char_length(folded($1)) = 1 then array[folded($1)] else bigrams($1) end;

create index task_titles_parts on task_titles using gin (title_parts(title) collate "C");

-- As triggers, for every writer, of the previous version too.
create function keep_title() returns trigger
    language plpgsql
as $$
begin
    if tg_op = 'DELETE' then
        delete from task_titles where task_id = old.id;
    else
        insert into task_titles values (new.id, new.title) on conflict (task_id) do update set title = excluded.title;
    end if;
    return null;
end
$$;

create trigger tasks_title_inserted
    after insert on tasks
    for each row
    execute function keep_title();

create trigger tasks_title_updated
    after update of title on tasks
    for each row
    when (old.title <> new.title)
    execute function keep_title();

create trigger tasks_title_deleted
    after delete on tasks
    for each row
    execute function keep_title();
