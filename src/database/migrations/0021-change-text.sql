-- Rows travel as the text of a JSON object. To make jsonb of them took most of what telling a change cost, and nobody here asks into them.

alter table stoa.change alter column before type text, alter column after type text;

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
  -- `"name": value` for each, without the braces. Numbers, truth and UUIDs need no escaping, and are joined as they are.
  fields text := (
    select string_agg(format(case
        when a.atttypid = 'timestamptz'::regtype then '%1$L || coalesce(case when isfinite(%%1$s.%2$I) then round(date_part(''epoch'', %%1$s.%2$I) * 1000) end::text, ''null'')'
        when a.atttypid in ('int2'::regtype, 'int4'::regtype, 'int8'::regtype) then '%1$L || coalesce(%%1$s.%2$I::text, ''null'')'
        when a.atttypid = 'bool'::regtype then '%1$L || case when %%1$s.%2$I then ''true'' when not %%1$s.%2$I then ''false'' else ''null'' end'
        when a.atttypid = 'uuid'::regtype then '%1$L || coalesce(''"'' || %%1$s.%2$I || ''"'', ''null'')'
        else '%1$L || coalesce(to_json(%%1$s.%2$I)::text, ''null'')' end,
      case when n > 1 then ',' else '' end || to_json(c)::text || ':', c), ' || ' order by n)
    from unnest(filter_columns) with ordinality f (c, n)
    left join pg_attribute a on a.attrelid = target and a.attname = c);
  row_of text := concat_ws(' || ',
    '''{''', fields,
    case when filter_object is not null then format('case when %%1$s.%1$I is null or %%1$s.%1$I = ''{}'' then '''' else %2$L || substr(left(%%1$s.%1$I::text, -1), 2) end', filter_object, case when fields is null then '' else ', ' end) end,
    '''}''');
  tell constant text := format('insert into stoa.change (collection, key, operation, before, after) values (%L, ', collection);
  wanted constant text := concat_ws(' ', 'text', collection, key_columns, filter_columns, filter_object);
begin
  perform pg_advisory_xact_lock(73746, 3);
  if exists (select 1 from stoa.attachment a where a.target = attach.target::oid and a.definition = wanted)
    and (select count(*) = 4 from pg_trigger t where t.tgrelid = attach.target and t.tgname like 'stoa\_change\_%' and t.tgenabled = 'A') then
    return;
  end if;
  if key_columns = '{}' then
    raise exception 'a table needs at least one key column to be attached' using errcode = 'invalid_parameter_value';
  end if;
  perform stoa.detach(target);
  execute format('create function stoa.%I() returns trigger language plpgsql as $body$ begin %s; return null; end $body$', name || '_insert',
    tell || format('%s, ''insert'', null, %s)', format(key_of, 'new'), format(row_of, 'new')));
  execute format('create function stoa.%I() returns trigger language plpgsql as $body$ begin %s; return null; end $body$', name || '_delete',
    tell || format('%s, ''delete'', %s, null)', format(key_of, 'old'), format(row_of, 'old')));
  -- A row whose key changed is one that left and one that came.
  execute format('create function stoa.%I() returns trigger language plpgsql as $body$ begin if %s then %s; else %s; %s; end if; return null; end $body$', name || '_update',
    same_key,
    tell || format('%s, ''update'', %s, %s)', format(key_of, 'new'), format(row_of, 'old'), format(row_of, 'new')),
    tell || format('%s, ''delete'', %s, null)', format(key_of, 'old'), format(row_of, 'old')),
    tell || format('%s, ''insert'', null, %s)', format(key_of, 'new'), format(row_of, 'new')));
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
    part := regexp_match(known.definition, '^row (.+) (\{[^{}]+\}) (\{[^{}]*\})(?: (.+))?$');
    if part is not null then
      perform stoa.attach(known.target::regclass, part[1], part[2]::text[], part[3]::text[], part[4]);
    end if;
  end loop;
end $$;
