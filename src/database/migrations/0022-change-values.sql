-- Rows travel as their values, beside one list of the names. To join names and values to the text of a JSON object, twice for
-- each update, was a third of what it cost the writer to tell a change of a row with ten fields.

-- `fields` is a JSON array that names the values, each after a letter for its kind: `s` is a string, `v` the text of a JSON value,
-- `t` seconds since 1970; a last `o` alone is the object whose keys join the row. `told` has the values before and then those
-- after, as far as there are such rows. `before` and `after` stay null: programs from before this take that for "not told".
alter table stoa.change add column fields text, add column told text[];
do $$
begin
  if exists (select 1 from pg_settings where name = 'default_toast_compression' and 'lz4' = any (enumvals)) then
    alter table stoa.change alter told set compression lz4;
  end if;
end $$;

-- Makes a table tell its changes, whoever writes to it: generated triggers, per row, that also fire for replicated rows.
-- `key_columns` name the row (more than one are joined by '/'), `filter_columns` are what predicates may ask for, and the keys
-- of the jsonb column `filter_object` join them. Times become milliseconds since 1970, and bytes in keys hexadecimal
-- digits, whatever the settings of the session that wrote. Attaching again in the same way does nothing, in another way replaces what was there.
create or replace function stoa.attach(target regclass, collection text, key_columns text[], filter_columns text[] default '{}', filter_object text default null)
returns void language plpgsql volatile as $$
declare
  name text := 'change_of_' || target::oid;
  key_of text := (
    select string_agg(format(case when a.atttypid = 'bytea'::regtype then 'encode(%%1$s.%I, ''hex'')' else '%%1$s.%I::text' end, c), ' || ''/'' || ' order by n)
    from unnest(key_columns) with ordinality k (c, n)
    left join pg_attribute a on a.attrelid = target and a.attname = c);
  same_key text := (select string_agg(format('old.%1$I is not distinct from new.%1$I', c), ' and ' order by n) from unnest(key_columns) with ordinality k (c, n));
  -- The values of a row, and their names.
  row_of text;
  names text;
  tell constant text := format('insert into stoa.change (collection, key, operation, fields, told) values (%L, ', collection);
  wanted constant text := concat_ws(' ', 'values', collection, key_columns, filter_columns, filter_object);
begin
  perform pg_advisory_xact_lock(73746, 3);
  if exists (select 1 from stoa.attachment a where a.target = attach.target::oid and a.definition = wanted)
    and (select count(*) = 4 from pg_trigger t where t.tgrelid = attach.target and t.tgname like 'stoa\_change\_%' and t.tgenabled = 'A') then
    return;
  end if;
  if key_columns = '{}' then
    raise exception 'a table needs at least one key column to be attached' using errcode = 'invalid_parameter_value';
  end if;
  select
    string_agg(format(case kind
      when 't' then 'extract(epoch from %%1$s.%I)::text'
      when 'j' then 'to_json(%%1$s.%I)::text'
      else '%%1$s.%I::text' end, c), ', ' order by n),
    coalesce(json_agg(case kind when 'o' then 'o' when 'j' then 'v' || c else kind || c end order by n), '[]')::text
  into row_of, names
  from (
    select c, n, case
      when a.atttypid in ('text'::regtype, 'varchar'::regtype, 'uuid'::regtype) then 's'
      when a.atttypid in ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'bool'::regtype) then 'v'
      when a.atttypid = 'timestamptz'::regtype then 't'
      else 'j' end as kind
    from unnest(filter_columns) with ordinality f (c, n)
    left join pg_attribute a on a.attrelid = target and a.attname = c
    union all
    select filter_object, cardinality(filter_columns) + 1, 'o' where filter_object is not null) f;
  perform stoa.detach(target);
  execute format('create function stoa.%I() returns trigger language plpgsql as $body$ begin %s; return null; end $body$', name || '_insert',
    tell || format('%s, ''insert'', %L, array[%s]::text[])', replace(key_of, '%1$s', 'new'), names, replace(row_of, '%1$s', 'new')));
  execute format('create function stoa.%I() returns trigger language plpgsql as $body$ begin %s; return null; end $body$', name || '_delete',
    tell || format('%s, ''delete'', %L, array[%s]::text[])', replace(key_of, '%1$s', 'old'), names, replace(row_of, '%1$s', 'old')));
  -- A row whose key changed is one that left and one that came.
  execute format('create function stoa.%I() returns trigger language plpgsql as $body$ begin if %s then %s; else %s; %s; end if; return null; end $body$', name || '_update',
    same_key,
    tell || format('%s, ''update'', %L, array[%s]::text[])', replace(key_of, '%1$s', 'new'), names, concat_ws(', ', replace(row_of, '%1$s', 'old'), replace(row_of, '%1$s', 'new'))),
    tell || format('%s, ''delete'', %L, array[%s]::text[])', replace(key_of, '%1$s', 'old'), names, replace(row_of, '%1$s', 'old')),
    tell || format('%s, ''insert'', %L, array[%s]::text[])', replace(key_of, '%1$s', 'new'), names, replace(row_of, '%1$s', 'new')));
  execute format('create function stoa.%I() returns trigger language plpgsql as $body$ begin %s; return null; end $body$', name || '_truncate',
    format('insert into stoa.change (collection, operation) values (%L, ''flush'')', collection));
  execute format('create trigger stoa_change_insert after insert on %s for each row execute function stoa.%I()', target, name || '_insert');
  execute format('create trigger stoa_change_update after update on %s for each row execute function stoa.%I()', target, name || '_update');
  execute format('create trigger stoa_change_delete after delete on %s for each row execute function stoa.%I()', target, name || '_delete');
  execute format('create trigger stoa_change_truncate after truncate on %s for each statement execute function stoa.%I()', target, name || '_truncate');
  execute format('alter table %s enable always trigger stoa_change_insert, enable always trigger stoa_change_update, enable always trigger stoa_change_delete, enable always trigger stoa_change_truncate', target);
  insert into stoa.attachment (target, definition) values (target::oid, wanted);
  -- What was cached before the triggers were there was never told of a change.
  insert into stoa.change (collection, operation) values (collection, 'flush');
end $$;

-- What is attached is attached anew; where its definition cannot be read, the next time it is asked for.
do $$
declare
  known record;
  part text[];
begin
  for known in select a.target, a.definition from stoa.attachment a join pg_class c on c.oid = a.target loop
    part := regexp_match(known.definition, '^text (.+) (\{[^{}]+\}) (\{[^{}]*\})(?: (.+))?$');
    if part is not null then
      perform stoa.attach(known.target::regclass, part[1], part[2]::text[], part[3]::text[], part[4]);
    end if;
  end loop;
end $$;
