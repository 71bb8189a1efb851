-- The cluster's own tables: the outbox that the change feed reads, the epoch, the heartbeat. See src/change-feed/SPEC.md.

-- Written by triggers in the transaction of the write itself. No key of its own: it is only ever read by transaction id.
create table stoa.change (
  xid xid8 not null default pg_current_xact_id(),
  collection text not null,
  key text,
  operation text not null check (operation in ('insert', 'update', 'delete', 'flush')),
  before jsonb,
  after jsonb,
  at timestamptz(3) not null default clock_timestamp(),
  check ((key is null) = (operation = 'flush'))
);
create index change_xid on stoa.change (xid);
create index change_at on stoa.change using brin (at);

-- The epoch's counter survives a crash; its name in `life` does not: an unlogged table is emptied by crash recovery and by a
-- promotion, which are the two events after which transaction ids may be given out a second time.
create table stoa.epoch (
  one boolean primary key default true check (one),
  number bigint not null default 0,
  epoch text,
  kept_from xid8 not null default '0'
);
insert into stoa.epoch default values;
create unlogged table stoa.life (
  one boolean primary key default true check (one),
  epoch text not null
);

create table stoa.heartbeat (
  one boolean primary key default true check (one),
  counter bigint not null default 0
) with (fillfactor = 10);
insert into stoa.heartbeat default values;

-- What a query sees: the epoch and its own snapshot, `7301….1.4 745:747:746`. Ask in the same statement as the data. The epoch
-- is empty while nobody has named it. Stable, so that it uses the snapshot of the statement that calls it.
create function stoa.as_of() returns text language plpgsql stable as $$
begin
  return coalesce((select epoch from stoa.life), '') || ' ' || pg_current_snapshot()::text;
end $$;

-- What a write returns, asked for within its transaction. Null while nobody has named the epoch.
create function stoa.token() returns text language plpgsql volatile as $$
begin
  return (select epoch from stoa.life) || '-' || pg_current_xact_id()::text;
end $$;

-- Names the epoch if it has none, or if the name is that of another server: a dump was restored, or a copy promoted.
create function stoa.begin_epoch() returns text language plpgsql volatile as $$
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
    update stoa.epoch e set number = e.number + 1, epoch = prefix || (e.number + 1) returning e.epoch into named;
    insert into stoa.life (epoch) values (named) on conflict (one) do update set epoch = excluded.epoch;
  end if;
  return named;
end $$;

-- Ends the epoch by hand: after a restore with triggers off, or whatever else wrote past them.
create function stoa.end_epoch() returns text language plpgsql volatile as $$
begin
  perform pg_advisory_xact_lock(73746, 1);
  delete from stoa.life;
  return stoa.begin_epoch();
end $$;

-- Forgets changes older than `keep`, and says so to cursors that still need them. Never those of a transaction at or above the
-- oldest one that is still running.
create function stoa.trim_changes(keep interval) returns bigint language plpgsql volatile as $$
declare
  horizon xid8;
  trimmed bigint;
begin
  if not pg_try_advisory_xact_lock(73746, 2) then
    return 0;
  end if;
  select least(pg_snapshot_xmin(pg_current_snapshot()), min(c.xid)) into horizon from stoa.change c where c.at > clock_timestamp() - keep;
  delete from stoa.change where xid < horizon;
  get diagnostics trimmed = row_count;
  if trimmed > 0 then
    update stoa.epoch set kept_from = horizon where kept_from < horizon;
  end if;
  return trimmed;
end $$;

-- Which tables tell their changes, and how.
create table stoa.attachment (
  target oid primary key,
  definition text not null
);

-- Makes a table tell its changes, whoever writes to it: generated triggers, per statement, that also fire for replicated rows.
-- `key_columns` name the row (more than one are joined by '/'), `filter_columns` are what predicates may ask for, and the keys
-- of the jsonb column `filter_object` join them. Attaching again in the same way does nothing, in another way replaces what was there.
create function stoa.attach(target regclass, collection text, key_columns text[], filter_columns text[] default '{}', filter_object text default null)
returns void language plpgsql volatile as $$
declare
  name text := 'change_of_' || target::oid;
  key_of text := (select string_agg(format('%%1$s.%I::text', c), ' || ''/'' || ' order by n) from unnest(key_columns) with ordinality k (c, n));
  row_of text := 'jsonb_build_object(' || coalesce((select string_agg(format('%L, %%1$s.%I', c, c), ', ' order by n) from unnest(filter_columns) with ordinality f (c, n)), '') || ')';
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

create function stoa.detach(target regclass) returns void language plpgsql volatile as $$
declare
  operation text;
begin
  delete from stoa.attachment a where a.target = detach.target::oid;
  foreach operation in array array['insert', 'update', 'delete', 'truncate'] loop
    execute format('drop trigger if exists %I on %s', 'stoa_change_' || operation, target);
    execute format('drop function if exists stoa.%I()', 'change_of_' || target::oid || '_' || operation);
  end loop;
end $$;
