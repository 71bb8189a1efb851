-- The change feed: the outbox that triggers write, the epoch and the heartbeat. See src/change-
-- feed/SPEC.md.

create table stoa.change (
  xid xid8 not null default pg_current_xact_id(),
  collection text not null,
  key text,
  operation text not null,
  at timestamptz(3) not null default clock_timestamp(),
  fields text,
  row_values text[]
);
create index change_xid on stoa.change (xid);
comment on table stoa.change is
  'The outbox of the change feed: one row per changed row, written by triggers in the transaction '
  'of the write itself. It has no key and no checks, because it is only written by generated '
  'functions and only read by transaction id.';
comment on column stoa.change.xid is
  'The transaction that wrote. Readers follow snapshots, not a sequence: see '
  'src/change-feed/SPEC.md.';
comment on column stoa.change.key is
  'The key of the row, several columns joined by "/". Null for a flush, which stands for every '
  'row of the collection.';
comment on column stoa.change.operation is 'insert, update, delete or flush.';
comment on column stoa.change.fields is
  'A JSON array that names the values in `row_values`, each after a letter for its kind: `s` is a '
  'string, `v` the text of a JSON value, `t` seconds since 1970. A last `o` alone stands for an '
  'object whose keys join the row. Null if the rows were not recorded.';
comment on column stoa.change.row_values is
  'The values before the change and then those after it, as far as there are such rows. Names and '
  'values stand apart because joining them to JSON took a third of the cost of recording a '
  'change.';
do $$
begin
  if exists (
    select from pg_settings
    where name = 'default_toast_compression' and 'lz4' = any (enumvals)
  ) then
    alter table stoa.change alter row_values set compression lz4;
  end if;
end $$;

create table stoa.change_mark (
  at timestamptz(3) not null default clock_timestamp(),
  xid xid8 not null
);
comment on table stoa.change_mark is
  'At the time `at`, every transaction below `xid` had ended. So old changes are trimmed by '
  'transaction id, without an index by time.';

create table stoa.epoch (
  one boolean primary key default true check (one),
  identity uuid not null default gen_random_uuid(),
  number bigint not null default 0,
  epoch text,
  kept_from xid8 not null default '0'
);
insert into stoa.epoch default values;
comment on table stoa.epoch is
  'A single row: how many epochs there have been, and the first transaction whose changes are '
  'still kept. An epoch is one unbroken life of the primary.';
comment on column stoa.epoch.identity is
  'Random, so that two databases with equal server and object ids still have different epochs. It '
  'also signs what `stoa/cluster` keeps in a second level of the cache when no secret is given.';

create unlogged table stoa.life (
  one boolean primary key default true check (one),
  epoch text not null
);
comment on table stoa.life is
  'A single row that names the current epoch. Unlogged on purpose: crash recovery and promotion '
  'empty it, and these are the two events after which transaction ids may be given out a second '
  'time.';

create table stoa.heartbeat (
  one boolean primary key default true check (one),
  counter bigint not null default 0
) with (fillfactor = 10);
insert into stoa.heartbeat default values;
comment on table stoa.heartbeat is
  'A single row whose counter advances by synchronous commits: a node trusts its cache only while '
  'it sees the counter advance.';

create table stoa.attachment (
  target oid primary key,
  definition text not null
);
comment on table stoa.attachment is
  'The tables whose changes are recorded, and how they were attached.';

create function stoa.as_of() returns text language plpgsql stable as $$
begin
  return coalesce((select epoch from stoa.life), '') || ' ' || pg_current_snapshot()::text;
end $$;
comment on function stoa.as_of is
  'What a query sees: the epoch and the snapshot of the calling statement, such as `3f0c….1.4 '
  '745:747:746`. The epoch is empty until a node has named it.';

create function stoa.token() returns text language plpgsql volatile as $$
begin
  return (select epoch from stoa.life) || '-' || pg_current_xact_id()::text;
end $$;
comment on function stoa.token is
  'The token of the current transaction, for readers that must see it. Null until a node has '
  'named the epoch.';

create function stoa.begin_epoch() returns text language plpgsql volatile as $$
declare
  -- A dump that was restored elsewhere, or in place, has another database or another table.
  place text := concat_ws(' ',
    (select system_identifier from pg_control_system()),
    (select oid from pg_database where datname = current_database()),
    'stoa.life'::regclass::oid,
    (select identity from stoa.epoch));
  prefix text := left(md5(place), 16) || '.'
    || ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint || '.';
  named text;
begin
  select l.epoch into named from stoa.life l where starts_with(l.epoch, prefix);
  if named is null then
    perform pg_advisory_xact_lock(73746, 1);
    select l.epoch into named from stoa.life l where starts_with(l.epoch, prefix);
  end if;
  if named is null then
    update stoa.epoch e set number = e.number + 1, epoch = prefix || (e.number + 1),
      kept_from = least(e.kept_from, pg_current_xact_id())
    returning e.epoch into named;
    insert into stoa.life (epoch) values (named)
    on conflict (one) do update set epoch = excluded.epoch;
    delete from stoa.change where xid > pg_current_xact_id();
    delete from stoa.change_mark where xid > pg_current_xact_id();
  end if;
  return named;
end $$;
comment on function stoa.begin_epoch is
  'Names the epoch if it has no name, or if its name is that of another database or server, '
  'because a dump was restored or a copy promoted. An epoch is a hash of the place (server, '
  'database, table, random identity), the timeline and a counter, so no two databases ever share '
  'one. Changes that a dump brought from a server with higher transaction ids would seem to lie '
  'in the future here, and are deleted.';

create function stoa.end_epoch() returns text language plpgsql volatile as $$
begin
  perform pg_advisory_xact_lock(73746, 1);
  delete from stoa.life;
  return stoa.begin_epoch();
end $$;
comment on function stoa.end_epoch is
  'Ends the epoch by hand: after a restore with triggers off, or after anything else that wrote '
  'past the triggers.';

create function stoa.trim_changes(keep interval) returns bigint language plpgsql volatile as $$
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
comment on function stoa.trim_changes is
  'Deletes changes older than `keep`, but never those of a transaction at or above the oldest one '
  'that still runs, and moves `stoa.epoch.kept_from`, so that a reader whose cursor is older '
  'knows that it has missed some.';

create function stoa.detach(target regclass) returns void language plpgsql volatile as $$
declare
  operation text;
begin
  delete from stoa.attachment a where a.target = detach.target::oid;
  foreach operation in array array['insert', 'update', 'delete', 'truncate'] loop
    execute format('drop trigger if exists %I on %s', 'stoa_change_' || operation, target);
    execute format('drop function if exists stoa.%I()',
      'change_of_' || target::oid || '_' || operation);
  end loop;
end $$;
comment on function stoa.detach is 'Removes what `stoa.attach` made.';

create function stoa.attach(
  target regclass,
  collection text,
  key_columns text[],
  filter_columns text[] default '{}',
  filter_object text default null
) returns void language plpgsql volatile as $$
declare
  name text := 'change_of_' || target::oid;
  key_of text := (
    select string_agg(format(case
      when a.atttypid = 'bytea'::regtype then 'encode(%%1$s.%I, ''hex'')'
      else '%%1$s.%I::text' end, c), ' || ''/'' || ' order by n)
    from unnest(key_columns) with ordinality k (c, n)
    left join pg_attribute a on a.attrelid = target and a.attname = c);
  same_key text := (
    select string_agg(format('old.%1$I is not distinct from new.%1$I', c), ' and ' order by n)
    from unnest(key_columns) with ordinality k (c, n));
  -- The SQL of the values of a row, and the JSON array of their names.
  row_of text;
  names text;
  record constant text := format(
    'insert into stoa.change (collection, key, operation, fields, row_values) values (%L, ',
    collection);
  wanted constant text :=
    concat_ws(' ', 'values', collection, key_columns, filter_columns, filter_object);
  operation text;
  -- The body of the trigger function of each operation.
  bodies jsonb;
begin
  perform pg_advisory_xact_lock(73746, 3);
  if exists (
    select from stoa.attachment a
    where a.target = attach.target::oid and a.definition = wanted
  ) and (
    select count(*) = 4 from pg_trigger t
    where t.tgrelid = attach.target and t.tgname like 'stoa\_change\_%' and t.tgenabled = 'A'
  ) then
    return;
  end if;
  if key_columns = '{}' then
    raise exception 'a table needs at least one key column to be attached'
      using errcode = 'invalid_parameter_value';
  end if;
  select
    string_agg(format(case kind
      when 't' then 'extract(epoch from %%1$s.%I)::text'
      when 'j' then 'to_json(%%1$s.%I)::text'
      else '%%1$s.%I::text' end, c), ', ' order by n),
    coalesce(json_agg(case kind
      when 'o' then 'o' when 'j' then 'v' || c else kind || c end order by n), '[]')::text
  into row_of, names
  from (
    select c, n, case
      when a.atttypid in ('text'::regtype, 'varchar'::regtype, 'uuid'::regtype) then 's'
      when a.atttypid = any ('{int2,int4,int8,bool}'::regtype[]) then 'v'
      when a.atttypid = 'timestamptz'::regtype then 't'
      else 'j' end as kind
    from unnest(filter_columns) with ordinality f (c, n)
    left join pg_attribute a on a.attrelid = target and a.attname = c
    union all
    select filter_object, cardinality(filter_columns) + 1, 'o' where filter_object is not null) f;
  perform stoa.detach(target);
  select jsonb_object_agg(o, record || format('%s, %L, %L, array[%s]::text[])',
    replace(key_of, '%1$s', image), o, names, replace(row_of, '%1$s', image)))
  into bodies from (values ('insert', 'new'), ('delete', 'old')) as parts (o, image);
  -- A changed key is recorded as the deletion of one row and the insertion of another.
  bodies := bodies || jsonb_build_object(
    'update', format('if %s then %s; else %s; %s; end if',
      same_key,
      record || format('%s, ''update'', %L, array[%s]::text[])', replace(key_of, '%1$s', 'new'),
        names, concat_ws(', ', replace(row_of, '%1$s', 'old'), replace(row_of, '%1$s', 'new'))),
      bodies ->> 'delete',
      bodies ->> 'insert'),
    'truncate',
    format('insert into stoa.change (collection, operation) values (%L, ''flush'')', collection));
  foreach operation in array array['insert', 'update', 'delete', 'truncate'] loop
    execute format('create function stoa.%I() returns trigger language plpgsql as '
      '$body$ begin %s; return null; end $body$',
      name || '_' || operation, bodies ->> operation);
    execute format('create trigger %I after %s on %s for each %s execute function stoa.%I()',
      'stoa_change_' || operation, operation, target,
      case operation when 'truncate' then 'statement' else 'row' end, name || '_' || operation);
    execute format('alter table %s enable always trigger %I',
      target, 'stoa_change_' || operation);
  end loop;
  insert into stoa.attachment (target, definition) values (target::oid, wanted);
  -- Values that were cached before the triggers existed were never invalidated.
  insert into stoa.change (collection, operation) values (collection, 'flush');
end $$;
comment on function stoa.attach is
  'Records the changes of a table, whichever program writes to it, by generated triggers per row '
  'that also fire for replicated rows. `key_columns` name the row, `filter_columns` are what '
  'predicates may ask for, and the keys of the jsonb column `filter_object` join them. Times are '
  'recorded as numbers and bytes in keys as hexadecimal digits, whatever the settings of the '
  'writing session. Attaching again in the same way does nothing; in another way it replaces the '
  'triggers. The triggers of a partitioned table apply to its partitions, except that TRUNCATE of '
  'a single partition needs a trigger of its own.';
