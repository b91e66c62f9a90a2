-- An action about all tasks that match a filter is carried out in steps, newest tasks first. Null for other actions.
alter table operator_actions
    -- The tasks with lower ids remain to be examined.
    add column below bigint,
    -- When none remained.
    add column ended_at timestamptz;

-- The reason of a failure without what differs between tasks: a word with a digit (an id, a number, a time, an address)
-- becomes `#`. Of the first 200 characters, because a step compares thousands.
create function error_group(text) returns text
    language sql immutable strict parallel safe
    return regexp_replace(left($1, 200), '[[:alnum:]_-]*[0-9]([[:alnum:]_.:-]*[[:alnum:]_-])?', '#', 'g');
