-- A task that is to run later. Here it is only known, for the reasons in 0018_cancelled.sql.
alter type task_status add value 'scheduled';
