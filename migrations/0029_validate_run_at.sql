-- Apart from the migration that added it, like 0020_validate_settled.sql.
alter table tasks validate constraint tasks_run_at;
