-- What the search needs of a database, and cannot be changed in one that exists.
do $$
begin
    if current_setting('server_encoding') <> 'UTF8' or lower('Ö') <> 'ö' then
        raise exception 'the database has the encoding % and the locale %, in which Postgres knows only the letters of '
            'ASCII: create it with encoding UTF8 and a locale like C.UTF-8 or en_US.UTF-8 (create database … template '
            'template0 encoding ''UTF8'' locale ''C.UTF-8'')',
            current_setting('server_encoding'), (select datctype from pg_database where datname = current_database());
    end if;
end
$$;

-- A text as the search compares it: in lower case, and composed (NFC), because an `ö` may also be an `o` and a combining
-- mark (NFD), as in file names on macOS. Titles stay stored as sent. Not `strict`, so that Postgres inlines it. ASCII is
-- always composed, and the normalization takes several times as long as the rest.
create function folded(text) returns text
    language sql immutable parallel safe
    return case when octet_length($1) = char_length($1) then lower($1) else lower(normalize($1, nfc)) end;

-- As before, of the folded text. The pairs differ only for titles that are not composed.
create or replace function bigrams(text) returns text[]
    language plpgsql immutable strict parallel safe
as $$
declare
    characters text[] := string_to_array(folded($1), null);
    pairs text[] := '{}';
begin
    for n in 1 .. cardinality(characters) - 1 loop
        pairs[n] := characters[n] || characters[n + 1];
    end loop;
    return pairs;
end
$$;

-- Those titles are indexed anew. They are few, and `reindex` would block every request. Twice, because an update that
-- leaves the title as it is does not touch the index.
do $$
declare
    task record;
begin
    for task in
        select id, title
        from tasks
        where octet_length(title) <> char_length(title) and title is not nfc normalized
    loop
        update tasks set title = '-' where id = task.id;
        update tasks set title = task.title where id = task.id;
    end loop;
end
$$;
