-- Content: locales, types, entries, versions, references, unique values, releases, schedules. See
-- ARCHITECTURE.md, "Data".

create table stoa.locale (
  code text primary key check (code ~ '^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$'),
  fallback text references stoa.locale (code),
  is_default boolean not null default false
);
create unique index locale_default on stoa.locale (is_default) where is_default;
insert into stoa.locale (code, is_default) values ('en', true);
comment on table stoa.locale is 'The languages of the site. Exactly one is the default.';
comment on column stoa.locale.fallback is
  'The locale that is shown where an entry has no version in this one.';

create table stoa.content_type (
  name text primary key,
  definition json not null,
  revision integer not null default 1,
  shape_revision integer not null default 1,
  filter_revision integer not null default 1,
  settled_revision integer not null default 0,
  removed_fields jsonb not null default '{}',
  created_at timestamptz(3) not null default now(),
  updated_at timestamptz(3) not null default now()
);
comment on table stoa.content_type is
  'The content types. Each type has a table of its own for its versions, a partition of '
  '`stoa.version`, which a trigger makes together with the type.';
comment on column stoa.content_type.shape_revision is
  'The revision that last removed a field or changed which values it takes. Data saved before '
  'that revision is narrowed when it is read.';
comment on column stoa.content_type.filter_revision is
  'The revision that last changed the filterable fields. Versions with an older `filter_revision` '
  'wait to be upgraded.';
comment on column stoa.content_type.settled_revision is
  'The revision up to which every `filter` is upgraded and every index exists.';

comment on column stoa.content_type.removed_fields is
  'The revision that last removed each field, by path. Values that were saved before it do not '
  'come back when a field of that name is added.';

create sequence stoa.model_revision;
create table stoa.model (
  revision bigint not null,
  only_one boolean primary key default true check (only_one)
);
insert into stoa.model (revision) values (nextval('stoa.model_revision'));
comment on table stoa.model is
  'A single row: the revision of all types and locales together. It comes from a sequence, so '
  'that a number never stands for two models, not even after a rollback. A node that keeps the '
  'model in memory compares this number in the very statement that does the work.';

create function stoa.model_changed() returns trigger language plpgsql as $$
begin
  update stoa.model set revision = nextval('stoa.model_revision');
  return null;
end
$$;
create trigger model_changed
  after insert or delete or truncate or update of name, definition, revision on stoa.content_type
  for each statement execute function stoa.model_changed();
create trigger model_changed after insert or delete or truncate or update on stoa.locale
  for each statement execute function stoa.model_changed();

create table stoa.entry (
  id uuid primary key,
  type text not null references stoa.content_type (name),
  created_at timestamptz(3) not null default now(),
  created_by json not null,
  archived_at timestamptz(3),
  locale_count integer not null default 1
);
create index entry_type on stoa.entry (type, id);
comment on table stoa.entry is
  'The entries. An entry keeps its type for good. Lock order: a save that only replaces one '
  'version locks that version; every other writer takes the entry FOR NO KEY UPDATE, a new '
  'reference takes its target FOR KEY SHARE, and a deletion takes FOR UPDATE. Several entries are '
  'locked in the order of their ids.';
comment on column stoa.entry.locale_count is
  'How many locales the entry has, so that a save learns from this row whether it must carry '
  'shared fields to other locales.';

-- The versions that are held: the latest and the published one of each entry and locale.
create table stoa.version (
  entry_id uuid not null,
  locale text not null,
  number integer not null,
  type text not null,
  data json not null,
  filter jsonb not null,
  type_revision integer not null default 1,
  filter_revision integer not null default 1,
  is_latest boolean not null,
  is_published boolean not null,
  is_archived boolean not null default false,
  created_at timestamptz(3) not null,
  created_by_id text,
  saved_at timestamptz(3) not null default now(),
  saved_by json not null,
  published_at timestamptz(3),
  published_by json,
  first_published_at timestamptz(3)
) partition by list (type);
comment on table stoa.version is
  'The held versions: of each entry and locale the latest version, which editors see, and the '
  'published one, which readers see; often one row is both. Each type has a partition of its own '
  'with its own indexes (see `stoa.version_table`), and every frequent statement names the '
  'partition, so that planning and writing cost the same however many other types there are. '
  'Earlier versions are in `stoa.version_history`.';
comment on column stoa.version.locale is
  'There is no foreign key, because it would lock the one row of a locale in every save. Deleting '
  'a locale checks the versions under a lock instead.';
comment on column stoa.version.number is 'Counts from 1 in each entry and locale, without gaps.';
comment on column stoa.version.filter is
  'The filterable fields in normal form, small enough to stay out of TOAST, so that a filter '
  'never reads `data`.';
comment on column stoa.version.type_revision is
  'The revision of the type that `data` was valid for.';
comment on column stoa.version.filter_revision is
  'The revision of the type that `filter` was made with.';
comment on column stoa.version.created_by_id is
  'The id in the `created_by` of the entry, repeated so that "only my own entries" is a filter '
  'like any other.';
comment on column stoa.version.published_at is
  'On the latest and the published version: since when the locale is published, null if it is '
  'not. On earlier versions: when they were published.';
comment on column stoa.version.published_by is
  'Who published this version itself, and when (`at`), the last time. It stays when the version '
  'is unpublished.';

create table stoa.version_history (
  entry_id uuid not null,
  locale text not null,
  number integer not null,
  type text not null,
  data json not null,
  filter jsonb not null,
  type_revision integer not null,
  filter_revision integer not null,
  created_at timestamptz(3) not null,
  created_by_id text,
  saved_at timestamptz(3) not null,
  saved_by json not null,
  published_at timestamptz(3),
  published_by json,
  first_published_at timestamptz(3),
  primary key (entry_id, locale, number)
);
comment on table stoa.version_history is
  'The versions that are neither the latest nor published any more. Rows are only added, by a '
  'trigger on `stoa.version`, except that a version which is published again moves back. There is '
  'no foreign key, which would look up the entry in every save: a trigger deletes the versions of '
  'deleted entries.';

-- Compressing texts with PostgreSQL's own method takes a fifth of the time of a save; with LZ4 it
-- takes next to nothing.
do $$
begin
  if exists (
    select from pg_settings
    where name = 'default_toast_compression' and 'lz4' = any (enumvals)
  ) then
    alter table stoa.version alter data set compression lz4;
    alter table stoa.version_history alter data set compression lz4;
  end if;
end $$;

create view stoa.any_version as
  select entry_id, locale, number, type, data, filter, type_revision, filter_revision,
    is_latest, is_published, is_archived,
    created_at, created_by_id, saved_at, saved_by, published_at, published_by, first_published_at
  from stoa.version
  union all
  select entry_id, locale, number, type, data, filter, type_revision, filter_revision,
    false, false, false,
    created_at, created_by_id, saved_at, saved_by, published_at, published_by, first_published_at
  from stoa.version_history;
comment on view stoa.any_version is
  'Every version, held or not, of every type. For people and for rare work: a statement of the '
  'program names the partition of its type instead.';

-- A trigger, so that no statement can overwrite a version without keeping it.
create function stoa.keep_version() returns trigger language plpgsql as $$
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
end $$;
comment on function stoa.keep_version is
  'Keeps what an UPDATE of `stoa.version` would lose: a row that gets another number is another '
  'version from then on, so the former goes into the history, and a row that is neither latest '
  'nor published moves there.';
create trigger version_kept after update on stoa.version for each row
  when (old.number <> new.number or not (new.is_latest or new.is_published))
  execute function stoa.keep_version();

create function stoa.version_has_entry() returns trigger language plpgsql as $$
begin
  perform 1 from stoa.entry e where e.id = new.entry_id and e.type = new.type for key share;
  if not found then
    raise exception 'there is no entry % of the type "%"', new.entry_id, new.type
      using errcode = 'foreign_key_violation', constraint = 'version_entry_id_fkey',
        table = 'version', schema = 'stoa';
  end if;
  return null;
end $$;
comment on function stoa.version_has_entry is
  'The foreign key of a version to its entry, which also holds that all versions of an entry are '
  'of its type. It is a trigger because a real foreign key would make the deletion of one entry '
  'search the partitions of all types, and adding a type would have to lock `stoa.entry` against '
  'writers. `stoa.forget_versions` is the other half.';
create trigger version_has_entry after insert or update of entry_id, type on stoa.version
  for each row execute function stoa.version_has_entry();

create function stoa.version_table(type text) returns text language sql immutable strict as $$
  select 'version:' ||
    case when length(type) < 40 then type else left(type, 31) || '-' || left(md5(type), 8) end
$$;
comment on function stoa.version_table is
  'The name, in the schema `stoa`, of the partition of `stoa.version` for a type. '
  'src/content/version-table.ts computes the same.';

create function stoa.add_version_table(type text) returns void language plpgsql as $$
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
end $$;
comment on function stoa.add_version_table is
  'Makes the partition of `stoa.version` for a type, unless it exists. Its unique indexes hold '
  'that an entry has at most one latest and one published version in a locale. '
  'Lists need the other indexes, and the program adds one for each filterable field of the type.';

create function stoa.version_truncated() returns trigger language plpgsql as $$
begin
  insert into stoa.change (collection, operation) values ('version', 'flush');
  return null;
end $$;
comment on function stoa.version_truncated is
  'Reports the truncation of a single partition to the change feed: triggers per statement do '
  'not pass from a table to its partitions.';

create function stoa.type_added() returns trigger language plpgsql as $$
begin
  perform stoa.add_version_table(new.name);
  return null;
end $$;
create trigger type_added after insert or update of name on stoa.content_type
  for each row execute function stoa.type_added();
comment on function stoa.type_added is
  'Gives every new type its partition. The partition of a deleted type is empty; background work '
  'drops it when it is not in use.';

create function stoa.forget_versions() returns trigger language plpgsql as $$
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
end $$;
comment on function stoa.forget_versions is 'Deletes the versions of deleted entries.';
create trigger versions_forgotten after delete on stoa.entry referencing old table as gone
  for each statement execute function stoa.forget_versions();
create trigger versions_forgotten_all after truncate on stoa.entry
  for each statement execute function stoa.forget_versions();

create table stoa.reference (
  entry_id uuid not null references stoa.entry (id) on delete cascade,
  locale text not null,
  perspective text not null check (perspective in ('draft', 'published')),
  path text not null,
  target_kind text not null check (target_kind in ('entry', 'asset')),
  target_id uuid not null,
  primary key (entry_id, locale, perspective, path, target_id)
);
create index reference_target on stoa.reference (target_id);
comment on table stoa.reference is
  'What held versions point to: one row per target of the latest version (perspective draft) and '
  'of the published one. A save that changes no reference writes nothing here. What happens when '
  'a target is deleted is not kept here: the type says it for each path.';
comment on column stoa.reference.path is
  'The names of the fields that lead to the reference, without positions: `author`, '
  '`gallery.image`.';

create table stoa.unique_value (
  type text not null,
  field text not null,
  locale text not null,
  value text not null,
  entry_id uuid not null references stoa.entry (id) on delete cascade,
  primary key (type, field, locale, value)
);
create index unique_value_entry on stoa.unique_value (entry_id);
comment on table stoa.unique_value is
  'The values of unique fields, each claimed by the entry whose latest or published version has '
  'it.';
comment on column stoa.unique_value.locale is '`*` for a field that all locales share.';

create table stoa.release (
  id uuid primary key,
  name text not null,
  state text not null default 'open' check (state in ('open', 'published', 'undone')),
  created_at timestamptz(3) not null default now(),
  created_by json not null,
  published_at timestamptz(3),
  published_by json
);
comment on table stoa.release is
  'Releases: sets of versions that are published in one transaction, and undone in one.';

create table stoa.release_item (
  release_id uuid not null references stoa.release (id) on delete cascade,
  entry_id uuid not null references stoa.entry (id),
  locale text not null,
  action text not null check (action in ('publish', 'unpublish')),
  number integer,
  number_before integer,
  published_before timestamptz(3),
  primary key (release_id, entry_id, locale)
);
create index release_item_entry on stoa.release_item (entry_id);
comment on table stoa.release_item is
  'What a release does: publish version `number` of an entry in a locale, or unpublish the entry '
  'there.';
comment on column stoa.release_item.number_before is
  'What undoing the release publishes again: the version that was published before, null if none '
  'was.';
comment on column stoa.release_item.published_before is 'Since when that version was published.';

create table stoa.schedule (
  id uuid primary key,
  entry_id uuid not null references stoa.entry (id) on delete cascade,
  locale text not null,
  action text not null check (action in ('publish', 'unpublish')),
  number integer,
  due_at timestamptz(3) not null,
  created_at timestamptz(3) not null default now(),
  created_by json not null,
  state text not null default 'waiting' check (state in ('waiting', 'done', 'cancelled', 'failed')),
  finished_at timestamptz(3),
  failure json
);
create index schedule_due on stoa.schedule (due_at) where state = 'waiting';
create index schedule_entry on stoa.schedule (entry_id);
comment on table stoa.schedule is 'Publishing and unpublishing at a given time.';

create table stoa.idempotency (
  key text not null,
  principal text not null,
  rights text not null,
  request_hash text not null,
  status integer,
  headers json,
  body text,
  created_at timestamptz(3) not null default now(),
  primary key (principal, key)
);
comment on column stoa.idempotency.rights is
  'A hash of what the caller was allowed: a response is repeated only while that is the same.';
create index idempotency_created on stoa.idempotency (created_at);
comment on table stoa.idempotency is
  'Responses to requests with an `Idempotency-Key`, so that a repeated request takes effect once. '
  'A row without a status belongs to a request that is being processed.';

create table stoa.secret (
  one boolean primary key default true check (one),
  value text not null,
  created_at timestamptz(3) not null default now()
);
comment on table stoa.secret is
  'A single row: the key for what nodes sign, where STOA_SECRET does not set one. Every node of '
  'the cluster uses the same.';

-- The key of a change is the entry in a locale, because a save changes the number of the row.
select stoa.attach('stoa.version', 'version', array['entry_id', 'locale'],
  array['entry_id', 'type', 'locale', 'is_latest', 'is_published', 'created_at', 'saved_at',
    'published_at', 'first_published_at', 'created_by_id'], 'filter');
select stoa.attach('stoa.model', 'model', array['only_one']);
