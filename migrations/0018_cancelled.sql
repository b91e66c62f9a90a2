-- A task that a client has cancelled. Here it is only known: a value of an enum cannot be used in the transaction that adds
-- it, and the version that stores it is deployed after one that knows it (README.md, "Expand, then contract").
alter type task_status add value 'cancelled';
