-- The titles of the tasks that were there before the triggers, but for those that a trigger has copied since, which may be
-- newer. Idempotent: of a table that is too large for the migrator's timeout, most can be copied before, in ranges of ids,
-- with the same statement. A title whose task is deleted meanwhile stays, and is never found: searches join the tasks.
insert into task_titles
select id, title from tasks order by id
on conflict do nothing;

alter table tasks validate constraint tasks_lease;
