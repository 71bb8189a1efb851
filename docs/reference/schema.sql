-- The schema as the migrations make it, read from a database's catalogue.
-- Made by: node test/dump-schema.ts
-- Do not edit: a test compares this page with a freshly migrated database. Read it, and change the
-- schema in src/database/migrations.

create schema stoa;

create sequence stoa.model_revision;

create sequence stoa.role_revision_sequence;

CREATE OR REPLACE FUNCTION stoa.add_scheduled_job()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  insert into stoa.job (kind, payload, due_at, attempts_max)
  values ('scheduled-action', json_build_object('schedule', new.id), new.due_at, 1000);
  return null;
end $function$
;

CREATE OR REPLACE FUNCTION stoa.add_version_table(type text)
 RETURNS void
 LANGUAGE plpgsql
AS $function$
declare
  name constant text := stoa.version_table(type);
begin
  if to_regclass(format('stoa.%I', name)) is not null then
    return;
  end if;
  -- The table is made apart and then attached: that takes no lock that a reader or writer of
  -- content would wait for.
  execute format('create table stoa.%I (like stoa.version including defaults including compression,
    constraint %I primary key (entry_id, locale, number))', name, name || ':key');
  execute format('create unique index %I on stoa.%I (entry_id, locale) where is_latest',
    name || ':latest', name);
  execute format('create unique index %I on stoa.%I (entry_id, locale) where is_published',
    name || ':published', name);
  execute format('create index %I on stoa.%I (locale, saved_at desc, entry_id desc) '
    'where is_latest', name || ':latest-list', name);
  execute format('create index %I on stoa.%I (locale, published_at desc, entry_id desc) '
    'where is_published', name || ':published-list', name);
  execute format('create index %I on stoa.%I (created_by_id, locale) '
    'where is_latest and created_by_id is not null', name || ':creator', name);
  execute format('alter table stoa.version attach partition stoa.%I for values in (%L)',
    name, type);
  execute format('create trigger stoa_change_truncate after truncate on stoa.%I '
    'for each statement execute function stoa.version_truncated()', name);
  execute format('alter table stoa.%I enable always trigger stoa_change_truncate', name);
end $function$
;

comment on function stoa.add_version_table is 'Makes the partition of `stoa.version` for a type, unless it exists. Its unique indexes hold that an entry has at most one latest and one published version in a locale. Lists need the other indexes, and the program adds one for each filterable field of the type.';

CREATE OR REPLACE FUNCTION stoa.as_of()
 RETURNS text
 LANGUAGE plpgsql
 STABLE
AS $function$
begin
  return coalesce((select epoch from stoa.life), '') || ' ' || pg_current_snapshot()::text;
end $function$
;

comment on function stoa.as_of is 'What a query sees: the epoch and the snapshot of the calling statement, such as `3f0c….1.4 745:747:746`. The epoch is empty until a node has named it.';

CREATE OR REPLACE FUNCTION stoa.attach(target regclass, collection text, key_columns text[], filter_columns text[] DEFAULT '{}'::text[], filter_object text DEFAULT NULL::text)
 RETURNS void
 LANGUAGE plpgsql
AS $function$
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
end $function$
;

comment on function stoa.attach is 'Records the changes of a table, whichever program writes to it, by generated triggers per row that also fire for replicated rows. `key_columns` name the row, `filter_columns` are what predicates may ask for, and the keys of the jsonb column `filter_object` join them. Times are recorded as numbers and bytes in keys as hexadecimal digits, whatever the settings of the writing session. Attaching again in the same way does nothing; in another way it replaces the triggers. The triggers of a partitioned table apply to its partitions, except that TRUNCATE of a single partition needs a trigger of its own.';

CREATE OR REPLACE FUNCTION stoa.audit_append_only()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  if tg_op = 'DELETE' and current_setting('stoa.audit_prune', true) = 'on' then
    return old;
  end if;
  raise exception 'the audit log is append-only' using errcode = 'restrict_violation';
end
$function$
;

comment on function stoa.audit_append_only is 'Refuses every change of the audit log, so that a mistake of this program cannot alter it either. Only pruning by age may delete, which sets `stoa.audit_prune` in its transaction.';

CREATE OR REPLACE FUNCTION stoa.begin_epoch()
 RETURNS text
 LANGUAGE plpgsql
AS $function$
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
end $function$
;

comment on function stoa.begin_epoch is 'Names the epoch if it has no name, or if its name is that of another database or server, because a dump was restored or a copy promoted. An epoch is a hash of the place (server, database, table, random identity), the timeline and a counter, so no two databases ever share one. Changes that a dump brought from a server with higher transaction ids would seem to lie in the future here, and are deleted.';

CREATE OR REPLACE FUNCTION stoa.detach(target regclass)
 RETURNS void
 LANGUAGE plpgsql
AS $function$
declare
  operation text;
begin
  delete from stoa.attachment a where a.target = detach.target::oid;
  foreach operation in array array['insert', 'update', 'delete', 'truncate'] loop
    execute format('drop trigger if exists %I on %s', 'stoa_change_' || operation, target);
    execute format('drop function if exists stoa.%I()',
      'change_of_' || target::oid || '_' || operation);
  end loop;
end $function$
;

comment on function stoa.detach is 'Removes what `stoa.attach` made.';

CREATE OR REPLACE FUNCTION stoa.end_epoch()
 RETURNS text
 LANGUAGE plpgsql
AS $function$
begin
  perform pg_advisory_xact_lock(73746, 1);
  delete from stoa.life;
  return stoa.begin_epoch();
end $function$
;

comment on function stoa.end_epoch is 'Ends the epoch by hand: after a restore with triggers off, or after anything else that wrote past the triggers.';

CREATE OR REPLACE FUNCTION stoa.forget_versions()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
declare
  deleted_type text;
begin
  if tg_op = 'TRUNCATE' then
    truncate stoa.version, stoa.version_history;
    return null;
  end if;
  for deleted_type in select distinct g.type from gone g loop
    execute format('delete from stoa.%I v using gone where v.entry_id = gone.id',
      stoa.version_table(deleted_type));
  end loop;
  delete from stoa.version_history h using gone where h.entry_id = gone.id;
  return null;
end $function$
;

comment on function stoa.forget_versions is 'Deletes the versions of deleted entries.';

CREATE OR REPLACE FUNCTION stoa.keep_version()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  if new.is_latest or new.is_published then
    insert into stoa.version_history (entry_id, locale, number, type, data, filter,
      type_revision, filter_revision, created_at, created_by_id, saved_at, saved_by,
      published_at, published_by, first_published_at)
    values (old.entry_id, old.locale, old.number, old.type, old.data, old.filter,
      old.type_revision, old.filter_revision, old.created_at, old.created_by_id, old.saved_at,
      old.saved_by, old.published_at, old.published_by, old.first_published_at);
  else
    insert into stoa.version_history (entry_id, locale, number, type, data, filter,
      type_revision, filter_revision, created_at, created_by_id, saved_at, saved_by,
      published_at, published_by, first_published_at)
    values (new.entry_id, new.locale, new.number, new.type, new.data, new.filter,
      new.type_revision, new.filter_revision, new.created_at, new.created_by_id, new.saved_at,
      new.saved_by, new.published_at, new.published_by, new.first_published_at);
    -- The partition that fired the trigger is the only table with this row.
    execute format('delete from %s where entry_id = $1 and locale = $2 and number = $3',
      tg_relid::regclass)
      using new.entry_id, new.locale, new.number;
  end if;
  return null;
end $function$
;

comment on function stoa.keep_version is 'Keeps what an UPDATE of `stoa.version` would lose: a row that gets another number is another version from then on, so the former goes into the history, and a row that is neither latest nor published moves there.';

CREATE OR REPLACE FUNCTION stoa.model_changed()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  update stoa.model set revision = nextval('stoa.model_revision');
  return null;
end
$function$
;

CREATE OR REPLACE FUNCTION stoa.release_blob()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  insert into stoa.blob_release (blob, released_at) values (old.blob, clock_timestamp())
  on conflict (blob) do update set released_at = excluded.released_at;
  return null;
end
$function$
;

CREATE OR REPLACE FUNCTION stoa.role_changed()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  update stoa.role_revision set revision = nextval('stoa.role_revision_sequence');
  return null;
end
$function$
;

CREATE OR REPLACE FUNCTION stoa.search_config(locale text)
 RETURNS regconfig
 LANGUAGE sql
 IMMUTABLE PARALLEL SAFE STRICT
AS $function$
  select case split_part(lower(locale), '-', 1)
    when 'ar' then 'pg_catalog.arabic'::regconfig
    when 'ca' then 'pg_catalog.catalan'::regconfig
    when 'da' then 'pg_catalog.danish'::regconfig
    when 'de' then 'pg_catalog.german'::regconfig
    when 'el' then 'pg_catalog.greek'::regconfig
    when 'en' then 'pg_catalog.english'::regconfig
    when 'es' then 'pg_catalog.spanish'::regconfig
    when 'eu' then 'pg_catalog.basque'::regconfig
    when 'fi' then 'pg_catalog.finnish'::regconfig
    when 'fr' then 'pg_catalog.french'::regconfig
    when 'ga' then 'pg_catalog.irish'::regconfig
    when 'hi' then 'pg_catalog.hindi'::regconfig
    when 'hu' then 'pg_catalog.hungarian'::regconfig
    when 'hy' then 'pg_catalog.armenian'::regconfig
    when 'id' then 'pg_catalog.indonesian'::regconfig
    when 'it' then 'pg_catalog.italian'::regconfig
    when 'lt' then 'pg_catalog.lithuanian'::regconfig
    when 'nb' then 'pg_catalog.norwegian'::regconfig
    when 'ne' then 'pg_catalog.nepali'::regconfig
    when 'nl' then 'pg_catalog.dutch'::regconfig
    when 'nn' then 'pg_catalog.norwegian'::regconfig
    when 'no' then 'pg_catalog.norwegian'::regconfig
    when 'pt' then 'pg_catalog.portuguese'::regconfig
    when 'ro' then 'pg_catalog.romanian'::regconfig
    when 'ru' then 'pg_catalog.russian'::regconfig
    when 'sr' then 'pg_catalog.serbian'::regconfig
    when 'sv' then 'pg_catalog.swedish'::regconfig
    when 'ta' then 'pg_catalog.tamil'::regconfig
    when 'tr' then 'pg_catalog.turkish'::regconfig
    when 'yi' then 'pg_catalog.yiddish'::regconfig
    else 'pg_catalog.simple'::regconfig
  end
$function$
;

comment on function stoa.search_config is 'The text search configuration of a locale: stemmer and stop words of its language, or neither.';

CREATE OR REPLACE FUNCTION stoa.search_vector(locale text, texts json)
 RETURNS tsvector
 LANGUAGE sql
 IMMUTABLE PARALLEL SAFE STRICT
AS $function$
  select setweight(to_tsvector(config, texts ->> 0), 'A')
    || setweight(to_tsvector(config, texts ->> 1), 'B')
    || setweight(to_tsvector(config, texts ->> 2), 'C')
    || setweight(to_tsvector(config, texts ->> 3), 'D')
  from stoa.search_config(locale) as config
$function$
;

comment on function stoa.search_vector is 'What `stoa.version.search` holds: `texts` are the words of the four groups of fields.';

CREATE OR REPLACE FUNCTION stoa.token()
 RETURNS text
 LANGUAGE plpgsql
AS $function$
begin
  return (select epoch from stoa.life) || '-' || pg_current_xact_id()::text;
end $function$
;

comment on function stoa.token is 'The token of the current transaction, for readers that must see it. Null until a node has named the epoch.';

CREATE OR REPLACE FUNCTION stoa.trim_changes(keep interval)
 RETURNS bigint
 LANGUAGE plpgsql
AS $function$
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
end $function$
;

comment on function stoa.trim_changes is 'Deletes changes older than `keep`, but never those of a transaction at or above the oldest one that still runs, and moves `stoa.epoch.kept_from`, so that a reader whose cursor is older knows that it has missed some.';

CREATE OR REPLACE FUNCTION stoa.type_added()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  perform stoa.add_version_table(new.name);
  return null;
end $function$
;

comment on function stoa.type_added is 'Gives every new type its partition. The partition of a deleted type is empty; background work drops it when it is not in use.';

CREATE OR REPLACE FUNCTION stoa.version_has_entry()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  perform 1 from stoa.entry e where e.id = new.entry_id and e.type = new.type for key share;
  if not found then
    raise exception 'there is no entry % of the type "%"', new.entry_id, new.type
      using errcode = 'foreign_key_violation', constraint = 'version_entry_id_fkey',
        table = 'version', schema = 'stoa';
  end if;
  return null;
end $function$
;

comment on function stoa.version_has_entry is 'The foreign key of a version to its entry, which also holds that all versions of an entry are of its type. It is a trigger because a real foreign key would make the deletion of one entry search the partitions of all types, and adding a type would have to lock `stoa.entry` against writers. `stoa.forget_versions` is the other half.';

CREATE OR REPLACE FUNCTION stoa.version_table(type text)
 RETURNS text
 LANGUAGE sql
 IMMUTABLE STRICT
AS $function$
  select 'version:' ||
    case when length(type) < 40 then type else left(type, 31) || '-' || left(md5(type), 8) end
$function$
;

comment on function stoa.version_table is 'The name, in the schema `stoa`, of the partition of `stoa.version` for a type. src/content/version-table.ts computes the same.';

CREATE OR REPLACE FUNCTION stoa.version_truncated()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  insert into stoa.change (collection, operation) values ('version', 'flush');
  return null;
end $function$
;

comment on function stoa.version_truncated is 'Reports the truncation of a single partition to the change feed: triggers per statement do not pass from a table to its partitions.';

create table stoa.api_token (
  id uuid not null,
  name text not null,
  token_hash bytea not null,
  hint text not null,
  created_at timestamp(3) with time zone not null,
  created_by uuid,
  created_by_token uuid,
  expires_at timestamp(3) with time zone
);

comment on table stoa.api_token is 'API tokens. Only the SHA-256 is kept; `hint` shows the first characters.';

comment on column stoa.api_token.created_by_token is 'The token that made it, and with which it is deleted.';

create table stoa.api_token_role (
  token_id uuid not null,
  role text not null
);

create table stoa.api_token_use (
  token_id uuid not null,
  last_used_at timestamp(3) with time zone not null
);

comment on table stoa.api_token_use is 'When API tokens were last used, as `session_use`.';

create table stoa.asset (
  id uuid not null,
  name text not null,
  content_type text not null,
  bytes bigint not null,
  blob text not null,
  width integer,
  height integer,
  frames integer,
  alt json not null,
  focal_x double precision,
  focal_y double precision,
  search text not null,
  created_at timestamp(3) with time zone not null,
  created_by json not null,
  revision integer default 1 not null
);

comment on table stoa.asset is 'Uploaded files as editors know them: a blob with a name, alternative texts and a focal point.';

comment on column stoa.asset.search is 'The name and the alternative texts in lower case, for searching the list.';

create table stoa.attachment (
  target oid not null,
  definition text not null
);

comment on table stoa.attachment is 'The tables whose changes are recorded, and how they were attached.';

create table stoa.audit (
  id uuid not null,
  at timestamp(3) with time zone not null,
  actor json not null,
  action text not null,
  subject text not null,
  facts json not null,
  address text,
  request_id text
);

comment on table stoa.audit is 'Who changed what, append-only.';

create table stoa.blob_release (
  blob text not null,
  released_at timestamp(3) with time zone not null
);

comment on table stoa.blob_release is 'When a blob lost its last asset. It stays for the grace period after that, because a backup of the database that is restored needs the files of its time.';

create table stoa.change (
  xid xid8 default pg_current_xact_id() not null,
  collection text not null,
  key text,
  operation text not null,
  at timestamp(3) with time zone default clock_timestamp() not null,
  fields text,
  row_values text[]
);

comment on table stoa.change is 'The outbox of the change feed: one row per changed row, written by triggers in the transaction of the write itself. It has no key and no checks, because it is only written by generated functions and only read by transaction id.';

comment on column stoa.change.xid is 'The transaction that wrote. Readers follow snapshots, not a sequence: see src/change-feed/SPEC.md.';

comment on column stoa.change.key is 'The key of the row, several columns joined by "/". Null for a flush, which stands for every row of the collection.';

comment on column stoa.change.operation is 'insert, update, delete or flush.';

comment on column stoa.change.fields is 'A JSON array that names the values in `row_values`, each after a letter for its kind: `s` is a string, `v` the text of a JSON value, `t` seconds since 1970. A last `o` alone stands for an object whose keys join the row. Null if the rows were not recorded.';

comment on column stoa.change.row_values is 'The values before the change and then those after it, as far as there are such rows. Names and values stand apart because joining them to JSON took a third of the cost of recording a change.';

create table stoa.change_mark (
  at timestamp(3) with time zone default clock_timestamp() not null,
  xid xid8 not null
);

comment on table stoa.change_mark is 'At the time `at`, every transaction below `xid` had ended. So old changes are trimmed by transaction id, without an index by time.';

create table stoa.content_type (
  name text not null,
  definition json not null,
  revision integer default 1 not null,
  shape_revision integer default 1 not null,
  filter_revision integer default 1 not null,
  settled_revision integer default 0 not null,
  removed_fields jsonb default '{}'::jsonb not null,
  created_at timestamp(3) with time zone default now() not null,
  updated_at timestamp(3) with time zone default now() not null,
  narrowed_fields jsonb default '[]'::jsonb not null,
  search_revision integer default 0 not null
);

comment on table stoa.content_type is 'The content types. Each type has a table of its own for its versions, a partition of `stoa.version`, which a trigger makes together with the type.';

comment on column stoa.content_type.shape_revision is 'The revision that last removed a field or changed which values it takes. Data saved before that revision is narrowed when it is read.';

comment on column stoa.content_type.filter_revision is 'The revision that last changed the filterable fields. Versions with an older `filter_revision` wait to be upgraded.';

comment on column stoa.content_type.settled_revision is 'The revision up to which every `filter` is upgraded and every index exists.';

comment on column stoa.content_type.removed_fields is 'The revision that last removed each field, by path. Values that were saved before it do not come back when a field of that name is added.';

comment on column stoa.content_type.narrowed_fields is 'Fields as they were made by a change after which not every value of before was one of the field, each with the revision, in order. Older versions are read through all of them, so that a value which a change lost does not come back when the field is changed again.';

comment on column stoa.content_type.search_revision is 'The revision that last changed what is searched; 0: nothing ever was. Versions with an older `search_revision` are not found, and wait to be upgraded.';

create table stoa.entry (
  id uuid not null,
  type text not null,
  created_at timestamp(3) with time zone default now() not null,
  created_by json not null,
  archived_at timestamp(3) with time zone,
  locale_count integer default 1 not null
);

comment on table stoa.entry is 'The entries. An entry keeps its type for good. Lock order: a save that only replaces one version locks that version; every other writer takes the entry FOR NO KEY UPDATE, a new reference takes its target FOR KEY SHARE, and a deletion takes FOR UPDATE. Several entries are locked in the order of their ids.';

comment on column stoa.entry.locale_count is 'How many locales the entry has, so that a save learns from this row whether it must carry shared fields to other locales.';

create table stoa.epoch (
  one boolean default true not null,
  identity uuid default gen_random_uuid() not null,
  number bigint default 0 not null,
  epoch text,
  kept_from xid8 default '0'::xid8 not null
);

comment on table stoa.epoch is 'A single row: how many epochs there have been, and the first transaction whose changes are still kept. An epoch is one unbroken life of the primary.';

comment on column stoa.epoch.identity is 'Random, so that two databases with equal server and object ids still have different epochs. It also signs what `stoa/cluster` keeps in a second level of the cache when no secret is given.';

create table stoa.file_store (
  only_one boolean default true not null,
  identity text not null,
  revision integer default 1 not null,
  url text,
  target text,
  target_url text,
  previous text
);

comment on table stoa.file_store is 'A single row: the identity that is written in the file store of this site, and where a move leads. A node that sees another place does not start.';

comment on column stoa.file_store.revision is 'Grows with each beginning and end of a move. A transaction that names a blob reads it under a lock, so no reference is made by a rule of before.';

comment on column stoa.file_store.url is 'The place of the identity, sealed with the secret of the cluster, once a move has begun; null: as the nodes are configured.';

comment on column stoa.file_store.target is 'While a move is under way: the identity of the place to which it leads. New blobs go there.';

comment on column stoa.file_store.previous is 'The identity of the place before the last move: a node that is still configured for it uses the new one.';

create table stoa.first_administrator (
  secret_hash bytea not null,
  expires_at timestamp(3) with time zone not null,
  only_one boolean default true not null
);

comment on table stoa.first_administrator is 'A single row while the site has no administrator: the hash of the secret in the link that makes the first one.';

create table stoa.heartbeat (
  one boolean default true not null,
  counter bigint default 0 not null
);

comment on table stoa.heartbeat is 'A single row whose counter advances by synchronous commits: a node trusts its cache only while it sees the counter advance.';

create table stoa.http_cache (
  one boolean default true not null,
  epoch text not null,
  "position" text not null
);

comment on table stoa.http_cache is 'A single row: the snapshot up to which the changes have become purges. Whatever it sees was purged, or waits in `stoa.http_cache_purge`.';

create table stoa.http_cache_edge (
  id text not null,
  calls double precision not null,
  calls_at timestamp(3) with time zone default clock_timestamp() not null,
  failing_since timestamp(3) with time zone,
  problem text
);

comment on table stoa.http_cache_edge is 'The edges that were purged once: the calls that each still accepts, and since when it has failed.';

create table stoa.http_cache_purge (
  id bigint generated always as identity not null,
  edge text not null,
  epoch text not null,
  after_position text not null,
  up_to_position text not null,
  xids text[],
  fine text[] not null,
  wide text[] not null,
  coarse text[] not null,
  hard boolean not null,
  round integer default 0 not null,
  due_at timestamp(3) with time zone default clock_timestamp() not null,
  purged_at timestamp(3) with time zone
);

comment on table stoa.http_cache_purge is 'Purges that an edge has not had yet, or not for the last time: a row for each edge and each reading of changes.';

comment on column stoa.http_cache_purge.after_position is 'The changes that `up_to_position` sees and this snapshot does not are purged by this row.';

comment on column stoa.http_cache_purge.xids is 'The transactions that made them. Null: they are too many to name.';

comment on column stoa.http_cache_purge.hard is 'What is purged must not be served again, not even while no node responds.';

comment on column stoa.http_cache_purge.round is 'How often the edge has had it. A row is deleted after its last round.';

create table stoa.idempotency (
  key text not null,
  principal text not null,
  rights text not null,
  request_hash text not null,
  status integer,
  headers json,
  body text,
  created_at timestamp(3) with time zone default now() not null
);

comment on table stoa.idempotency is 'Responses to requests with an `Idempotency-Key`, so that a repeated request takes effect once. A row without a status belongs to a request that is being processed.';

comment on column stoa.idempotency.rights is 'A hash of what the caller was allowed: a response is repeated only while that is the same.';

create table stoa.job (
  id bigint generated always as identity not null,
  kind text not null,
  state text default 'waiting'::text not null,
  priority smallint default 1 not null,
  due_at timestamp with time zone default clock_timestamp() not null,
  key text,
  order_key text,
  payload json not null,
  attempt integer default 0 not null,
  failures integer default 0 not null,
  attempts_max integer default 10 not null,
  idempotency_key uuid default gen_random_uuid() not null,
  node text,
  progress json,
  failure json,
  created_at timestamp(3) with time zone default clock_timestamp() not null,
  started_at timestamp(3) with time zone,
  ended_at timestamp(3) with time zone,
  kept_until timestamp(3) with time zone
);

comment on table stoa.job is 'Durable work that is done once in effect. A plain insert in the transaction of a write adds a job; a node claims it by raising `attempt`, and commits its effect only in a transaction that finds `attempt` and `node` unchanged.';

comment on column stoa.job.state is '`waiting` for `due_at` and a free node; `blocked` behind an earlier job of its order key; `running` on `node`; `done`; `parked` after its last attempt; `cancelled`.';

comment on column stoa.job.priority is '0 is claimed first, 2 last, within the kind.';

comment on column stoa.job.due_at is 'No attempt starts earlier, by the clock of this database.';

comment on column stoa.job.key is 'At most one job of a kind waits with it; a later one replaces the payload of the earlier.';

comment on column stoa.job.order_key is 'Jobs of a kind with the same order key run one at a time, in the order of `id`.';

comment on column stoa.job.attempt is 'Claims so far. It only grows: the fence of the effects.';

comment on column stoa.job.failures is 'Failed attempts since the job was added or retried; at `attempts_max` it is parked.';

comment on column stoa.job.idempotency_key is 'The same at each attempt, for effects outside the database.';

comment on column stoa.job.node is 'The node that runs it: its id in `stoa.node`.';

comment on column stoa.job.failure is 'Why the last attempt failed.';

comment on column stoa.job.kept_until is 'Of a job that has ended: when it may be deleted.';

create table stoa.leadership (
  duty text not null,
  holder text not null,
  fence bigint not null,
  renewal bigint default 0 not null
);

comment on table stoa.leadership is 'Which node does each kind of work for the whole cluster. The fence grows with every new holder, so that the writes of a former holder are refused.';

create unlogged table stoa.life (
  one boolean default true not null,
  epoch text not null
);

comment on table stoa.life is 'A single row that names the current epoch. Unlogged on purpose: crash recovery and promotion empty it, and these are the two events after which transaction ids may be given out a second time.';

create table stoa.locale (
  code text not null,
  fallback text,
  is_default boolean default false not null
);

comment on table stoa.locale is 'The languages of the site. Exactly one is the default.';

comment on column stoa.locale.fallback is 'The locale that is shown where an entry has no version in this one.';

create unlogged table stoa.login_throttle (
  key text not null,
  failures integer not null,
  last_at timestamp(3) with time zone not null,
  blocked_until timestamp(3) with time zone not null
);

comment on table stoa.login_throttle is 'Failed sign-ins, by `device:NONCE`, `network:NETWORK`, `pair:NETWORK:ACCOUNT` or `account:HASH`. Unlogged: every failed sign-in writes here, and the rows are worth nothing after a crash.';

create table stoa.migration (
  name text not null,
  checksum text not null,
  compatible boolean not null,
  applied_at timestamp(3) with time zone default now() not null
);

create table stoa.model (
  revision bigint not null,
  only_one boolean default true not null
);

comment on table stoa.model is 'A single row: the revision of all types and locales together. It comes from a sequence, so that a number never stands for two models, not even after a rollback. A node that keeps the model in memory compares this number in the very statement that does the work.';

create table stoa.node (
  id text not null,
  counter bigint default 0 not null,
  draining boolean default false not null,
  drain_asked boolean default false not null,
  info json not null,
  started_at timestamp(3) with time zone default now() not null,
  seen_at timestamp(3) with time zone default now() not null
);

comment on table stoa.node is 'The nodes of the cluster. A node counts as alive while its counter advances, as measured by the clock of each reader; the times are only for people.';

comment on column stoa.node.drain_asked is 'Set by `stoa drain`. It stands in the row of the node, so that it arrives without Cluster Link.';

create unlogged table stoa.node_call (
  call text not null,
  target text not null,
  caller text not null,
  method text not null,
  payload text not null,
  expires_at timestamp(3) with time zone not null,
  reply text,
  failure text
);

comment on table stoa.node_call is 'Calls between nodes, one row per called node, deleted by the caller. Unlogged: a call need not outlive a crash of the database, and its commit need not wait for the disk or a standby. It has no sequence, because the sequence of an unlogged table is unlogged too and can be unreadable on a promoted standby.';

comment on column stoa.node_call.reply is 'Null, like `failure`, until the called node has replied.';

create table stoa.reference (
  entry_id uuid not null,
  locale text not null,
  perspective text not null,
  path text not null,
  target_kind text not null,
  target_id uuid not null
);

comment on table stoa.reference is 'What held versions point to: one row per target of the latest version (perspective draft) and of the published one. A save that changes no reference writes nothing here. What happens when a target is deleted is not kept here: the type says it for each path.';

comment on column stoa.reference.path is 'The names of the fields that lead to the reference, without positions: `author`, `gallery.image`.';

create table stoa.release (
  id uuid not null,
  name text not null,
  state text default 'open'::text not null,
  created_at timestamp(3) with time zone default now() not null,
  created_by json not null,
  published_at timestamp(3) with time zone,
  published_by json
);

comment on table stoa.release is 'Releases: sets of versions that are published in one transaction, and undone in one.';

create table stoa.release_item (
  release_id uuid not null,
  entry_id uuid not null,
  locale text not null,
  action text not null,
  number integer,
  number_before integer,
  published_before timestamp(3) with time zone
);

comment on table stoa.release_item is 'What a release does: publish version `number` of an entry in a locale, or unpublish the entry there.';

comment on column stoa.release_item.number_before is 'What undoing the release publishes again: the version that was published before, null if none was.';

comment on column stoa.release_item.published_before is 'Since when that version was published.';

create table stoa.rendition (
  asset_id uuid not null,
  key text not null,
  blob text not null,
  content_type text not null,
  bytes bigint not null,
  used_at timestamp(3) with time zone not null
);

comment on table stoa.rendition is 'Images made from an asset.';

comment on column stoa.rendition.key is 'Everything that decides the bytes: size, crop, format, quality.';

comment on column stoa.rendition.used_at is 'The last use, as exactly as nodes record it. The least recently used of an asset make room.';

create table stoa.role (
  name text not null,
  label text not null,
  content json not null,
  system text[] not null,
  built_in boolean default false not null,
  updated_at timestamp(3) with time zone default now() not null
);

comment on table stoa.role is 'Roles: what their holders may do, by content type (`content`) and in the system (`system`).';

create table stoa.role_revision (
  revision bigint not null,
  only_one boolean default true not null
);

comment on table stoa.role_revision is 'A single row: the revision of all roles together, from a sequence, so that a number never stands for two sets of roles. Nodes that keep compiled roles in memory compare it in the statement that finds the session or token.';

create table stoa.schedule (
  id uuid not null,
  entry_id uuid not null,
  locale text not null,
  action text not null,
  number integer,
  due_at timestamp(3) with time zone not null,
  created_at timestamp(3) with time zone default now() not null,
  created_by json not null,
  state text default 'waiting'::text not null,
  finished_at timestamp(3) with time zone,
  failure json
);

comment on table stoa.schedule is 'Publishing and unpublishing at a given time.';

create table stoa.secret (
  one boolean default true not null,
  value text not null,
  created_at timestamp(3) with time zone default now() not null
);

comment on table stoa.secret is 'A single row: the key for what nodes sign, where STOA_SECRET does not set one. Every node of the cluster uses the same.';

create table stoa.session (
  id_hash bytea not null,
  user_id uuid not null,
  created_at timestamp(3) with time zone not null,
  expires_at timestamp(3) with time zone not null,
  address text not null,
  agent text not null
);

comment on table stoa.session is 'Signed-in browsers. Only the SHA-256 of the cookie is kept.';

create table stoa.session_use (
  id_hash bytea not null,
  last_used_at timestamp(3) with time zone not null
);

comment on table stoa.session_use is 'When sessions were last used. A table of its own, which the change feed does not announce: a use changes nothing that nodes have in memory.';

create table stoa.unique_draft_value (
  type text not null,
  field text not null,
  locale text not null,
  value text not null,
  entry_id uuid not null
);

comment on table stoa.unique_draft_value is 'The values of unique fields, each claimed by the entry whose latest version has it. So a draft may take what only a published version of another entry has, and the two are published in one release.';

comment on column stoa.unique_draft_value.locale is '`*` for a field that all locales share.';

create table stoa.unique_value (
  type text not null,
  field text not null,
  locale text not null,
  value text not null,
  entry_id uuid not null
);

comment on table stoa.unique_value is 'The values of unique fields, each claimed by the entry whose published version has it.';

comment on column stoa.unique_value.locale is '`*` for a field that all locales share.';

create table stoa.upload (
  id uuid not null,
  owner text not null,
  actor json not null,
  name text not null,
  alt json not null,
  bytes bigint not null,
  received bigint default 0 not null,
  created_at timestamp(3) with time zone not null,
  expires_at timestamp(3) with time zone not null,
  asset_id uuid
);

comment on table stoa.upload is 'Resumable uploads. The bytes received so far are blobs too, so that any node can continue the upload.';

create table stoa.upload_part (
  upload_id uuid not null,
  start bigint not null,
  bytes bigint not null,
  blob text not null,
  written_at timestamp(3) with time zone not null
);

create table stoa."user" (
  id uuid not null,
  email text not null,
  name text not null,
  password_hash text not null,
  state text default 'active'::text not null,
  created_at timestamp(3) with time zone not null,
  last_login_at timestamp(3) with time zone
);

comment on table stoa."user" is 'People who can sign in. The password is kept as an argon2id hash.';

create table stoa.user_role (
  user_id uuid not null,
  role text not null
);

create table stoa.version (
  entry_id uuid not null,
  locale text not null,
  number integer not null,
  type text not null,
  data json not null,
  filter jsonb not null,
  type_revision integer default 1 not null,
  filter_revision integer default 1 not null,
  is_latest boolean not null,
  is_published boolean not null,
  is_archived boolean default false not null,
  created_at timestamp(3) with time zone not null,
  created_by_id text,
  saved_at timestamp(3) with time zone default now() not null,
  saved_by json not null,
  published_at timestamp(3) with time zone,
  published_by json,
  first_published_at timestamp(3) with time zone,
  search tsvector,
  search_number integer,
  search_revision integer default 0 not null
) partition by LIST (type);

comment on table stoa.version is 'The held versions: of each entry and locale the latest version, which editors see, and the published one, which readers see; often one row is both. Each type has a partition of its own with its own indexes (see `stoa.version_table`), and every frequent statement names the partition, so that planning and writing cost the same however many other types there are. Earlier versions are in `stoa.version_history`.';

comment on column stoa.version.locale is 'There is no foreign key, because it would lock the one row of a locale in every save. Deleting a locale checks the versions under a lock instead.';

comment on column stoa.version.number is 'Counts from 1 in each entry and locale, without gaps.';

comment on column stoa.version.filter is 'The filterable fields in normal form, small enough to stay out of TOAST, so that a filter never reads `data`.';

comment on column stoa.version.type_revision is 'The revision of the type that `data` was valid for.';

comment on column stoa.version.filter_revision is 'The revision of the type that `filter` was made with.';

comment on column stoa.version.created_by_id is 'The id in the `created_by` of the entry, repeated so that "only my own entries" is a filter like any other.';

comment on column stoa.version.published_at is 'On the latest and the published version: since when the locale is published, null if it is not. On earlier versions: when they were published.';

comment on column stoa.version.published_by is 'Who published this version itself, and when (`at`), the last time. It stays when the version is unpublished.';

comment on column stoa.version.search is 'The words of the searchable fields, stemmed for the locale; null where the type has none. The weights A to D are groups of fields: see src/content/search/searched-fields.ts.';

comment on column stoa.version.search_number is 'The version that `search` was made from. A search takes a row only where it equals `number`, so that a write which does not know of `search` never leaves words of an earlier version to be found.';

comment on column stoa.version.search_revision is 'The revision of the type that `search` was made with.';

create table stoa.version_history (
  entry_id uuid not null,
  locale text not null,
  number integer not null,
  type text not null,
  data json not null,
  filter jsonb not null,
  type_revision integer not null,
  filter_revision integer not null,
  created_at timestamp(3) with time zone not null,
  created_by_id text,
  saved_at timestamp(3) with time zone not null,
  saved_by json not null,
  published_at timestamp(3) with time zone,
  published_by json,
  first_published_at timestamp(3) with time zone
);

comment on table stoa.version_history is 'The versions that are neither the latest nor published any more. Rows are only added, by a trigger on `stoa.version`, except that a version which is published again moves back. There is no foreign key, which would look up the entry in every save: a trigger deletes the versions of deleted entries.';

alter table stoa.api_token add constraint api_token_pkey PRIMARY KEY (id);

alter table stoa.api_token add constraint api_token_token_hash_key UNIQUE (token_hash);

alter table stoa.api_token_role add constraint api_token_role_pkey PRIMARY KEY (token_id, role);

alter table stoa.api_token_use add constraint api_token_use_pkey PRIMARY KEY (token_id);

alter table stoa.asset add constraint asset_blob_check CHECK ((blob ~ '^[0-9a-f]{64}$'::text));

alter table stoa.asset add constraint asset_bytes_check CHECK ((bytes > 0));

alter table stoa.asset add constraint asset_check CHECK (((width IS NULL) = (height IS NULL)));

alter table stoa.asset add constraint asset_check1 CHECK (((focal_x IS NULL) = (focal_y IS NULL)));

alter table stoa.asset add constraint asset_focal_x_check CHECK (((focal_x >= (0)::double precision) AND (focal_x <= (1)::double precision)));

alter table stoa.asset add constraint asset_focal_y_check CHECK (((focal_y >= (0)::double precision) AND (focal_y <= (1)::double precision)));

alter table stoa.asset add constraint asset_frames_check CHECK ((frames > 0));

alter table stoa.asset add constraint asset_height_check CHECK ((height > 0));

alter table stoa.asset add constraint asset_pkey PRIMARY KEY (id);

alter table stoa.asset add constraint asset_width_check CHECK ((width > 0));

alter table stoa.attachment add constraint attachment_pkey PRIMARY KEY (target);

alter table stoa.audit add constraint audit_pkey PRIMARY KEY (id);

alter table stoa.blob_release add constraint blob_release_pkey PRIMARY KEY (blob);

alter table stoa.content_type add constraint content_type_pkey PRIMARY KEY (name);

alter table stoa.entry add constraint entry_pkey PRIMARY KEY (id);

alter table stoa.epoch add constraint epoch_one_check CHECK (one);

alter table stoa.epoch add constraint epoch_pkey PRIMARY KEY (one);

alter table stoa.file_store add constraint file_store_check CHECK (((target IS NULL) = (target_url IS NULL)));

alter table stoa.file_store add constraint file_store_only_one_check CHECK (only_one);

alter table stoa.file_store add constraint file_store_pkey PRIMARY KEY (only_one);

alter table stoa.first_administrator add constraint first_administrator_only_one_check CHECK (only_one);

alter table stoa.first_administrator add constraint first_administrator_pkey PRIMARY KEY (only_one);

alter table stoa.heartbeat add constraint heartbeat_one_check CHECK (one);

alter table stoa.heartbeat add constraint heartbeat_pkey PRIMARY KEY (one);

alter table stoa.http_cache add constraint http_cache_one_check CHECK (one);

alter table stoa.http_cache add constraint http_cache_pkey PRIMARY KEY (one);

alter table stoa.http_cache_edge add constraint http_cache_edge_pkey PRIMARY KEY (id);

alter table stoa.http_cache_purge add constraint http_cache_purge_pkey PRIMARY KEY (id);

alter table stoa.idempotency add constraint idempotency_pkey PRIMARY KEY (principal, key);

alter table stoa.job add constraint job_pkey PRIMARY KEY (id);

alter table stoa.job add constraint job_priority_check CHECK (((priority >= 0) AND (priority <= 2)));

alter table stoa.job add constraint job_state_check CHECK ((state = ANY (ARRAY['waiting'::text, 'blocked'::text, 'running'::text, 'done'::text, 'parked'::text, 'cancelled'::text])));

alter table stoa.leadership add constraint leadership_pkey PRIMARY KEY (duty);

alter table stoa.life add constraint life_one_check CHECK (one);

alter table stoa.life add constraint life_pkey PRIMARY KEY (one);

alter table stoa.locale add constraint locale_code_check CHECK ((code ~ '^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$'::text));

alter table stoa.locale add constraint locale_pkey PRIMARY KEY (code);

alter table stoa.login_throttle add constraint login_throttle_pkey PRIMARY KEY (key);

alter table stoa.migration add constraint migration_pkey PRIMARY KEY (name);

alter table stoa.model add constraint model_only_one_check CHECK (only_one);

alter table stoa.model add constraint model_pkey PRIMARY KEY (only_one);

alter table stoa.node add constraint node_pkey PRIMARY KEY (id);

alter table stoa.node_call add constraint node_call_pkey PRIMARY KEY (call, target);

alter table stoa.reference add constraint reference_perspective_check CHECK ((perspective = ANY (ARRAY['draft'::text, 'published'::text])));

alter table stoa.reference add constraint reference_pkey PRIMARY KEY (entry_id, locale, perspective, path, target_id);

alter table stoa.reference add constraint reference_target_kind_check CHECK ((target_kind = ANY (ARRAY['entry'::text, 'asset'::text])));

alter table stoa.release add constraint release_pkey PRIMARY KEY (id);

alter table stoa.release add constraint release_state_check CHECK ((state = ANY (ARRAY['open'::text, 'published'::text, 'undone'::text])));

alter table stoa.release_item add constraint release_item_action_check CHECK ((action = ANY (ARRAY['publish'::text, 'unpublish'::text])));

alter table stoa.release_item add constraint release_item_pkey PRIMARY KEY (release_id, entry_id, locale);

alter table stoa.rendition add constraint rendition_blob_check CHECK ((blob ~ '^[0-9a-f]{64}$'::text));

alter table stoa.rendition add constraint rendition_bytes_check CHECK ((bytes > 0));

alter table stoa.rendition add constraint rendition_pkey PRIMARY KEY (asset_id, key);

alter table stoa.role add constraint role_name_check CHECK ((name ~ '^[a-z][a-z0-9-]{0,62}$'::text));

alter table stoa.role add constraint role_pkey PRIMARY KEY (name);

alter table stoa.role_revision add constraint role_revision_only_one_check CHECK (only_one);

alter table stoa.role_revision add constraint role_revision_pkey PRIMARY KEY (only_one);

alter table stoa.schedule add constraint schedule_action_check CHECK ((action = ANY (ARRAY['publish'::text, 'unpublish'::text])));

alter table stoa.schedule add constraint schedule_pkey PRIMARY KEY (id);

alter table stoa.schedule add constraint schedule_state_check CHECK ((state = ANY (ARRAY['waiting'::text, 'done'::text, 'cancelled'::text, 'failed'::text])));

alter table stoa.secret add constraint secret_one_check CHECK (one);

alter table stoa.secret add constraint secret_pkey PRIMARY KEY (one);

alter table stoa.session add constraint session_pkey PRIMARY KEY (id_hash);

alter table stoa.session_use add constraint session_use_pkey PRIMARY KEY (id_hash);

alter table stoa.unique_draft_value add constraint unique_draft_value_pkey PRIMARY KEY (type, field, locale, value);

alter table stoa.unique_value add constraint unique_value_pkey PRIMARY KEY (type, field, locale, value);

alter table stoa.upload add constraint upload_bytes_check CHECK ((bytes > 0));

alter table stoa.upload add constraint upload_check CHECK (((received >= 0) AND (received <= bytes)));

alter table stoa.upload add constraint upload_pkey PRIMARY KEY (id);

alter table stoa.upload_part add constraint upload_part_blob_check CHECK ((blob ~ '^[0-9a-f]{64}$'::text));

alter table stoa.upload_part add constraint upload_part_bytes_check CHECK ((bytes > 0));

alter table stoa.upload_part add constraint upload_part_pkey PRIMARY KEY (upload_id, start);

alter table stoa.upload_part add constraint upload_part_start_check CHECK ((start >= 0));

alter table stoa."user" add constraint user_email UNIQUE (email);

alter table stoa."user" add constraint user_pkey PRIMARY KEY (id);

alter table stoa."user" add constraint user_state_check CHECK ((state = ANY (ARRAY['active'::text, 'disabled'::text])));

alter table stoa.user_role add constraint user_role_pkey PRIMARY KEY (user_id, role);

alter table stoa.version_history add constraint version_history_pkey PRIMARY KEY (entry_id, locale, number);

alter table stoa.api_token add constraint api_token_created_by_fkey FOREIGN KEY (created_by) REFERENCES stoa."user"(id) ON DELETE SET NULL;

alter table stoa.api_token add constraint api_token_created_by_token_fkey FOREIGN KEY (created_by_token) REFERENCES stoa.api_token(id) ON DELETE CASCADE;

alter table stoa.api_token_role add constraint api_token_role_role FOREIGN KEY (role) REFERENCES stoa.role(name);

alter table stoa.api_token_role add constraint api_token_role_token_id_fkey FOREIGN KEY (token_id) REFERENCES stoa.api_token(id) ON DELETE CASCADE;

alter table stoa.api_token_use add constraint api_token_use_token_id_fkey FOREIGN KEY (token_id) REFERENCES stoa.api_token(id) ON DELETE CASCADE;

alter table stoa.entry add constraint entry_type_fkey FOREIGN KEY (type) REFERENCES stoa.content_type(name);

alter table stoa.locale add constraint locale_fallback_fkey FOREIGN KEY (fallback) REFERENCES stoa.locale(code);

alter table stoa.reference add constraint reference_entry_id_fkey FOREIGN KEY (entry_id) REFERENCES stoa.entry(id) ON DELETE CASCADE;

alter table stoa.release_item add constraint release_item_entry_id_fkey FOREIGN KEY (entry_id) REFERENCES stoa.entry(id);

alter table stoa.release_item add constraint release_item_release_id_fkey FOREIGN KEY (release_id) REFERENCES stoa.release(id) ON DELETE CASCADE;

alter table stoa.rendition add constraint rendition_asset_id_fkey FOREIGN KEY (asset_id) REFERENCES stoa.asset(id) ON DELETE CASCADE;

alter table stoa.schedule add constraint schedule_entry_id_fkey FOREIGN KEY (entry_id) REFERENCES stoa.entry(id) ON DELETE CASCADE;

alter table stoa.session add constraint session_user_id_fkey FOREIGN KEY (user_id) REFERENCES stoa."user"(id) ON DELETE CASCADE;

alter table stoa.session_use add constraint session_use_id_hash_fkey FOREIGN KEY (id_hash) REFERENCES stoa.session(id_hash) ON DELETE CASCADE;

alter table stoa.unique_draft_value add constraint unique_draft_value_entry_id_fkey FOREIGN KEY (entry_id) REFERENCES stoa.entry(id) ON DELETE CASCADE;

alter table stoa.unique_value add constraint unique_value_entry_id_fkey FOREIGN KEY (entry_id) REFERENCES stoa.entry(id) ON DELETE CASCADE;

alter table stoa.upload add constraint upload_asset_id_fkey FOREIGN KEY (asset_id) REFERENCES stoa.asset(id) ON DELETE SET NULL;

alter table stoa.upload_part add constraint upload_part_upload_id_fkey FOREIGN KEY (upload_id) REFERENCES stoa.upload(id) ON DELETE CASCADE;

alter table stoa.user_role add constraint user_role_role FOREIGN KEY (role) REFERENCES stoa.role(name);

alter table stoa.user_role add constraint user_role_user_id_fkey FOREIGN KEY (user_id) REFERENCES stoa."user"(id) ON DELETE CASCADE;

CREATE INDEX api_token_creator ON stoa.api_token USING btree (created_by);

CREATE INDEX api_token_maker ON stoa.api_token USING btree (created_by_token);

CREATE INDEX api_token_role_role ON stoa.api_token_role USING btree (role);

CREATE INDEX asset_blob ON stoa.asset USING btree (blob);

CREATE INDEX audit_at ON stoa.audit USING btree (at);

CREATE INDEX change_xid ON stoa.change USING btree (xid);

CREATE INDEX entry_type ON stoa.entry USING btree (type, id);

CREATE INDEX http_cache_purge_due ON stoa.http_cache_purge USING btree (edge, due_at);

CREATE INDEX idempotency_created ON stoa.idempotency USING btree (created_at);

CREATE INDEX job_due ON stoa.job USING btree (kind, priority, due_at, id) WHERE (state = 'waiting'::text);

CREATE INDEX job_kept ON stoa.job USING btree (kept_until) WHERE (kept_until IS NOT NULL);

CREATE UNIQUE INDEX job_key ON stoa.job USING btree (kind, key) WHERE ((key IS NOT NULL) AND (state = ANY (ARRAY['waiting'::text, 'blocked'::text])));

CREATE INDEX job_order ON stoa.job USING btree (kind, order_key, id) WHERE ((order_key IS NOT NULL) AND (state = ANY (ARRAY['waiting'::text, 'blocked'::text, 'running'::text])));

CREATE UNIQUE INDEX job_order_running ON stoa.job USING btree (kind, order_key) WHERE ((order_key IS NOT NULL) AND (state = 'running'::text));

CREATE INDEX job_parked ON stoa.job USING btree (kind) WHERE (state = 'parked'::text);

CREATE INDEX job_running ON stoa.job USING btree (node) WHERE (state = 'running'::text);

CREATE UNIQUE INDEX locale_default ON stoa.locale USING btree (is_default) WHERE is_default;

CREATE INDEX login_throttle_last ON stoa.login_throttle USING btree (last_at);

CREATE INDEX node_call_expiry ON stoa.node_call USING btree (expires_at);

CREATE INDEX node_call_waiting ON stoa.node_call USING btree (target) WHERE ((reply IS NULL) AND (failure IS NULL));

CREATE INDEX reference_target ON stoa.reference USING btree (target_id);

CREATE INDEX release_item_entry ON stoa.release_item USING btree (entry_id);

CREATE INDEX rendition_blob ON stoa.rendition USING btree (blob);

CREATE INDEX schedule_due ON stoa.schedule USING btree (due_at) WHERE (state = 'waiting'::text);

CREATE INDEX schedule_entry ON stoa.schedule USING btree (entry_id, due_at);

CREATE INDEX session_expires ON stoa.session USING btree (expires_at);

CREATE INDEX session_of_user ON stoa.session USING btree (user_id, created_at);

CREATE INDEX unique_draft_value_entry ON stoa.unique_draft_value USING btree (entry_id);

CREATE INDEX unique_value_entry ON stoa.unique_value USING btree (entry_id);

CREATE INDEX upload_asset ON stoa.upload USING btree (asset_id);

CREATE INDEX upload_expires ON stoa.upload USING btree (expires_at);

CREATE INDEX upload_owner ON stoa.upload USING btree (owner);

CREATE INDEX upload_part_blob ON stoa.upload_part USING btree (blob);

CREATE INDEX user_role_role ON stoa.user_role USING btree (role);

create view stoa.any_version as
 SELECT version.entry_id,
    version.locale,
    version.number,
    version.type,
    version.data,
    version.filter,
    version.type_revision,
    version.filter_revision,
    version.is_latest,
    version.is_published,
    version.is_archived,
    version.created_at,
    version.created_by_id,
    version.saved_at,
    version.saved_by,
    version.published_at,
    version.published_by,
    version.first_published_at
   FROM stoa.version
UNION ALL
 SELECT version_history.entry_id,
    version_history.locale,
    version_history.number,
    version_history.type,
    version_history.data,
    version_history.filter,
    version_history.type_revision,
    version_history.filter_revision,
    false AS is_latest,
    false AS is_published,
    false AS is_archived,
    version_history.created_at,
    version_history.created_by_id,
    version_history.saved_at,
    version_history.saved_by,
    version_history.published_at,
    version_history.published_by,
    version_history.first_published_at
   FROM stoa.version_history;

comment on view stoa.any_version is 'Every version, held or not, of every type. For people and for rare work: a statement of the program names the partition of its type instead.';

CREATE TRIGGER asset_release AFTER DELETE ON stoa.asset FOR EACH ROW EXECUTE FUNCTION stoa.release_blob();

CREATE TRIGGER audit_append_only BEFORE DELETE OR UPDATE ON stoa.audit FOR EACH ROW EXECUTE FUNCTION stoa.audit_append_only();

CREATE TRIGGER audit_no_truncate BEFORE TRUNCATE ON stoa.audit FOR EACH STATEMENT EXECUTE FUNCTION stoa.audit_append_only();

CREATE TRIGGER model_changed AFTER INSERT OR DELETE OR UPDATE OF name, definition, revision OR TRUNCATE ON stoa.content_type FOR EACH STATEMENT EXECUTE FUNCTION stoa.model_changed();

CREATE TRIGGER type_added AFTER INSERT OR UPDATE OF name ON stoa.content_type FOR EACH ROW EXECUTE FUNCTION stoa.type_added();

CREATE TRIGGER versions_forgotten AFTER DELETE ON stoa.entry REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION stoa.forget_versions();

CREATE TRIGGER versions_forgotten_all AFTER TRUNCATE ON stoa.entry FOR EACH STATEMENT EXECUTE FUNCTION stoa.forget_versions();

CREATE TRIGGER model_changed AFTER INSERT OR DELETE OR UPDATE OR TRUNCATE ON stoa.locale FOR EACH STATEMENT EXECUTE FUNCTION stoa.model_changed();

CREATE TRIGGER role_changed AFTER INSERT OR DELETE OR UPDATE OR TRUNCATE ON stoa.role FOR EACH STATEMENT EXECUTE FUNCTION stoa.role_changed();

CREATE TRIGGER scheduled_job AFTER INSERT OR UPDATE OF due_at, state ON stoa.schedule FOR EACH ROW WHEN ((new.state = 'waiting'::text)) EXECUTE FUNCTION stoa.add_scheduled_job();

CREATE TRIGGER version_has_entry AFTER INSERT OR UPDATE OF entry_id, type ON stoa.version FOR EACH ROW EXECUTE FUNCTION stoa.version_has_entry();

CREATE TRIGGER version_kept AFTER UPDATE ON stoa.version FOR EACH ROW WHEN (((old.number <> new.number) OR (NOT (new.is_latest OR new.is_published)))) EXECUTE FUNCTION stoa.keep_version();
