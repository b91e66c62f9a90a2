-- What GET /admin/status shows of failures: the last ones. Partial, because failures are few.
create index tasks_failed on tasks (settled_at) where status = 'failed';
