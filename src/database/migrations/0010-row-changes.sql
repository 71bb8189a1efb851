-- Telling a change costs less: triggers per row instead of per statement with transition tables, and no index by time.

-- The generated functions are the only writers.
alter table stoa.change drop constraint change_operation_check, drop constraint change_check;
drop index stoa.change_at;

-- Every transaction below `xid` had ended by then: so changes are trimmed by transaction id alone.
create table stoa.change_mark (
  at timestamptz(3) not null default clock_timestamp(),
  xid xid8 not null
);

-- Forgets changes older than `keep`, and says so to cursors that still need them. Never those of a transaction at or above the
-- oldest one that is still running.
create or replace function stoa.trim_changes(keep interval) returns bigint language plpgsql volatile as $$
declare
  horizon xid8;
  trimmed bigint;
begin
  if not pg_try_advisory_xact_lock(73746, 2) then
    return 0;
  end if;
  insert into stoa.change_mark (xid) select pg_snapshot_xmin(pg_current_snapshot())
    where not exists (select 1 from stoa.change_mark m where m.at > clock_timestamp() - keep / 10);
  select max(m.xid) into horizon from stoa.change_mark m where m.at <= clock_timestamp() - keep;
  delete from stoa.change_mark where xid < horizon;
  delete from stoa.change where xid < horizon;
  get diagnostics trimmed = row_count;
  if trimmed > 0 then
    update stoa.epoch set kept_from = horizon where kept_from < horizon;
  end if;
  return trimmed;
end $$;

-- Names the epoch if it has none, or if the name is that of another server: a dump was restored, or a copy promoted. What a dump brought
-- from a server with higher transaction ids would look like the future here.
create or replace function stoa.begin_epoch() returns text language plpgsql volatile as $$
declare
  prefix text := (select system_identifier from pg_control_system())::text || '.'
    || ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint || '.';
  named text;
begin
  select l.epoch into named from stoa.life l where starts_with(l.epoch, prefix);
  if named is null then
    perform pg_advisory_xact_lock(73746, 1);
    select l.epoch into named from stoa.life l where starts_with(l.epoch, prefix);
  end if;
  if named is null then
    update stoa.epoch e set number = e.number + 1, epoch = prefix || (e.number + 1), kept_from = least(e.kept_from, pg_current_xact_id()) returning e.epoch into named;
    insert into stoa.life (epoch) values (named) on conflict (one) do update set epoch = excluded.epoch;
    delete from stoa.change where xid > pg_current_xact_id();
    delete from stoa.change_mark where xid > pg_current_xact_id();
  end if;
  return named;
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
  row_of text := coalesce('jsonb_build_object(' || (
    select string_agg(format(
      case when a.atttypid = 'timestamptz'::regtype then '%1$L, case when isfinite(%%1$s.%2$I) then round(date_part(''epoch'', %%1$s.%2$I) * 1000) end' else '%1$L, %%1$s.%2$I' end, c, c), ', ' order by n)
    from unnest(filter_columns) with ordinality f (c, n)
    left join pg_attribute a on a.attrelid = target and a.attname = c) || ')', '''{}''::jsonb');
  tell constant text := format('insert into stoa.change (collection, key, operation, before, after) values (%L, ', collection);
  wanted constant text := concat_ws(' ', 'row', collection, key_columns, filter_columns, filter_object);
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
    part := regexp_match(known.definition, '^(.+) (\{[^{}]+\}) (\{[^{}]*\})(?: (.+))?$');
    if part is not null then
      perform stoa.attach(known.target::regclass, part[1], part[2]::text[], part[3]::text[], part[4]);
    end if;
  end loop;
end $$;
