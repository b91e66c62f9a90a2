-- `GET /tasks?status=..`: the tasks of one status by id, so that every page is one walk along the index.
create index tasks_by_status on tasks (status, id);

-- `GET /tasks?q=..`: the pairs of neighbouring characters in a text, in lower case. A title can only contain a text
-- if it has all of the text's pairs. (pg_trgm does this with three characters; not every Postgres brings it along.)
create function bigrams(text) returns text[]
    language sql immutable strict parallel safe
    return (
        select coalesce(array_agg(distinct substr(lower($1), n, 2)), '{}')
        from generate_series(1, char_length(lower($1)) - 1) as n
    );

create index tasks_title_bigrams on tasks using gin (bigrams(title));
