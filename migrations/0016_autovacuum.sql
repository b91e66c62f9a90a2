-- By default a table is vacuumed when a fifth of its rows are dead, and analyzed when a tenth have changed: with 20 million
-- tasks after 4 and 2 million changes. Until then the index entries of the tasks that were pending lie in front of those
-- that are (a sweep reads them again and again), and the statistics describe a past backlog. With a hundredth it is a
-- twentieth of that. A vacuum that finds dead rows on few pages does not scan the indexes, so it remains cheap.
alter table tasks set (
    autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_insert_scale_factor = 0.01,
    autovacuum_analyze_scale_factor = 0.01
);
alter table idempotency_keys set (
    autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_insert_scale_factor = 0.01,
    autovacuum_analyze_scale_factor = 0.01
);
