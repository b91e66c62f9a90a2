-- Since version 17 Postgres runs `analyze`, `vacuum` and `reindex`, and autovacuum with them, on a search path without
-- `public` (PostgreSQL 17, "Release Notes": maintenance operations). What an index computes then finds `folded` only by its
-- whole name; without it, `analyze` of the titles fails. The parts are the same, so the index stays as it is.
create or replace function title_parts(text) returns text[]
    language plpgsql immutable strict parallel safe cost 1000
as $$
declare
    characters text[] := string_to_array(public.folded($1), null);
    parts text[] := characters;
    total int := cardinality(characters);
begin
    for n in 1 .. total - 1 loop
        parts[total + n] := characters[n] || characters[n + 1];
    end loop;
    return parts;
end
$$;
