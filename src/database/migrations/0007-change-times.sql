-- Changes tell times as numbers. As text they had the zone of whoever wrote, and no order.

-- Makes a table tell its changes, whoever writes to it: generated triggers, per statement, that also fire for replicated rows.
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
  row_of text := 'jsonb_build_object(' || coalesce((
    select string_agg(format(
      case when a.atttypid = 'timestamptz'::regtype then '%1$L, case when isfinite(%%1$s.%2$I) then round(date_part(''epoch'', %%1$s.%2$I) * 1000) end' else '%1$L, %%1$s.%2$I' end, c, c), ', ' order by n)
    from unnest(filter_columns) with ordinality f (c, n)
    left join pg_attribute a on a.attrelid = target and a.attname = c), '') || ')';
  into_change constant text := 'insert into stoa.change (collection, key, operation, before, after) ';
  wanted constant text := concat_ws(' ', collection, key_columns, filter_columns, filter_object);
begin
  perform pg_advisory_xact_lock(73746, 3);
  if exists (select 1 from stoa.attachment a where a.target = attach.target::oid and a.definition = wanted)
    and (select count(*) = 4 from pg_trigger t where t.tgrelid = attach.target and t.tgname like 'stoa\_change\_%' and t.tgenabled = 'A') then
    return;
  end if;
  if key_columns = '{}' then
    raise exception 'a table needs at least one key column to be attached' using errcode = 'invalid_parameter_value';
  end if;
  if filter_object is not null then
    row_of := row_of || format(' || coalesce(%%1$s.%I, ''{}''::jsonb)', filter_object);
  end if;
  perform stoa.detach(target);
  execute format('create function stoa.%I() returns trigger language plpgsql as $body$ begin %s; return null; end $body$', name || '_insert',
    into_change || format('select %L, %s, ''insert'', null, %s from new_rows n', collection, format(key_of, 'n'), format(row_of, 'n')));
  execute format('create function stoa.%I() returns trigger language plpgsql as $body$ begin %s; return null; end $body$', name || '_delete',
    into_change || format('select %L, %s, ''delete'', %s, null from old_rows o', collection, format(key_of, 'o'), format(row_of, 'o')));
  -- A row whose key changed is one that left and one that came.
  execute format('create function stoa.%I() returns trigger language plpgsql as $body$ begin %s; return null; end $body$', name || '_update',
    into_change || format(
      'select %1$L, coalesce(n.change_key, o.change_key), case when o.change_key is null then ''insert'' when n.change_key is null then ''delete'' else ''update'' end, o.change_row, n.change_row '
      || 'from (select %2$s as change_key, %3$s as change_row from old_rows o) o full join (select %4$s as change_key, %5$s as change_row from new_rows n) n on n.change_key = o.change_key',
      collection, format(key_of, 'o'), format(row_of, 'o'), format(key_of, 'n'), format(row_of, 'n')));
  execute format('create function stoa.%I() returns trigger language plpgsql as $body$ begin %s; return null; end $body$', name || '_truncate',
    format('insert into stoa.change (collection, operation) values (%L, ''flush'')', collection));
  execute format('create trigger stoa_change_insert after insert on %s referencing new table as new_rows for each statement execute function stoa.%I()', target, name || '_insert');
  execute format('create trigger stoa_change_update after update on %s referencing old table as old_rows new table as new_rows for each statement execute function stoa.%I()', target, name || '_update');
  execute format('create trigger stoa_change_delete after delete on %s referencing old table as old_rows for each statement execute function stoa.%I()', target, name || '_delete');
  execute format('create trigger stoa_change_truncate after truncate on %s for each statement execute function stoa.%I()', target, name || '_truncate');
  execute format('alter table %s enable always trigger stoa_change_insert, enable always trigger stoa_change_update, enable always trigger stoa_change_delete, enable always trigger stoa_change_truncate', target);
  insert into stoa.attachment (target, definition) values (target::oid, wanted);
  -- What was cached before the triggers were there was never told of a change.
  insert into stoa.change (collection, operation) values (collection, 'flush');
end $$;

-- Whatever is attached already is attached anew the next time it is asked for.
update stoa.attachment set definition = '';
