-- Content: locales, types, entries, versions, references, unique values, releases, schedule. See ARCHITECTURE.md "Data".

create table stoa.locale (
  code text primary key check (code ~ '^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$'),
  fallback text references stoa.locale (code),
  is_default boolean not null default false
);
create unique index locale_default on stoa.locale (is_default) where is_default;
insert into stoa.locale (code, is_default) values ('en', true);

create table stoa.content_type (
  name text primary key,
  definition json not null,
  revision integer not null default 1,
  -- The revision that last removed a field or changed what values it takes: data saved before it is narrowed when read.
  shape_revision integer not null default 1,
  -- The revision that last changed the normal form: rows of `version` with an older `filter_revision` wait to be renewed.
  filter_revision integer not null default 1,
  -- The revision for which every `filter` is renewed and every index is there.
  settled_revision integer not null default 0,
  created_at timestamptz(3) not null default now(),
  updated_at timestamptz(3) not null default now()
);

-- Types and locales together are the model. Its revision comes from a sequence, so that a number never stands for two
-- models, not even after a rollback; triggers move it, so that no SQL escapes. Whoever keeps the model in memory
-- compares this one number in the statement that does the work.
create sequence stoa.model_revision;
create table stoa.model (
  revision bigint not null,
  only_one boolean primary key default true check (only_one)
);
insert into stoa.model (revision) values (nextval('stoa.model_revision'));

create function stoa.model_changed() returns trigger language plpgsql as $$
begin
  update stoa.model set revision = nextval('stoa.model_revision');
  return null;
end
$$;
create trigger model_changed after insert or delete or truncate or update of name, definition, revision on stoa.content_type
  for each statement execute function stoa.model_changed();
create trigger model_changed after insert or delete or truncate or update on stoa.locale
  for each statement execute function stoa.model_changed();

create table stoa.entry (
  id uuid primary key,
  type text not null references stoa.content_type (name),
  created_at timestamptz(3) not null default now(),
  created_by json not null,
  archived_at timestamptz(3),
  -- A save that locks this row learns from it, in the same statement, whether shared fields have to be carried.
  locale_count integer not null default 1
);
create index entry_type on stoa.entry (type);

-- Every save is a row. At most one is the latest (what editors see) and at most one is published (what readers see):
-- the partial unique indexes hold both, whoever writes. `filter` repeats the filterable fields in normal form, small
-- enough to stay out of TOAST, so that a filter never reads `data`. On the latest and the published row, `published_at`
-- says since when the locale is published (null: it is not); on older ones, when they were. `published_by` is set only on
-- rows that were published themselves.
--
-- Locks: a plain save takes the entry FOR SHARE, every other writer FOR NO KEY UPDATE, a new reference takes its target
-- FOR KEY SHARE, and deleting takes FOR UPDATE. Several entries are locked in the order of their ids.
create table stoa.version (
  entry_id uuid not null references stoa.entry (id) on delete cascade,
  -- No foreign key: it would lock the one row of a locale in every save. Deleting a locale checks under a lock of its own.
  locale text not null,
  number integer not null check (number > 0),
  type text not null,
  data json not null,
  filter jsonb not null,
  -- The revision of the type that `data` was valid for, and the one that `filter` was made with.
  type_revision integer not null default 1,
  filter_revision integer not null default 1,
  is_latest boolean not null,
  is_published boolean not null,
  is_archived boolean not null default false,
  created_at timestamptz(3) not null,
  -- The id in the entry's `created_by`, repeated on each of its versions so that "only my own" is a filter like any other.
  created_by_id text,
  saved_at timestamptz(3) not null default now(),
  saved_by json not null,
  published_at timestamptz(3),
  published_by json,
  first_published_at timestamptz(3),
  primary key (entry_id, locale, number)
);
create unique index version_latest on stoa.version (entry_id, locale) where is_latest;
create unique index version_published on stoa.version (entry_id, locale) where is_published;
create index version_latest_type on stoa.version (type, locale, saved_at desc, entry_id desc) where is_latest;
create index version_published_type on stoa.version (type, locale, published_at desc, entry_id desc) where is_published;
create index version_latest_creator on stoa.version (created_by_id, type, locale) where is_latest and created_by_id is not null;

-- One row per reference held by the latest version (perspective draft) and by the published one, so that a save that
-- changes no reference writes nothing here. `path` names the fields down to it, without positions: `author`,
-- `gallery.image`. `on_delete` says what deleting the target does.
create table stoa.reference (
  entry_id uuid not null references stoa.entry (id) on delete cascade,
  locale text not null,
  perspective text not null check (perspective in ('draft', 'published')),
  path text not null,
  target_kind text not null check (target_kind in ('entry', 'asset')),
  target_id uuid not null,
  on_delete text not null check (on_delete in ('restrict', 'unset', 'cascade')),
  primary key (entry_id, locale, perspective, path, target_id)
);
create index reference_target on stoa.reference (target_id);

-- A value of a unique field, claimed by the entry whose latest or published version uses it. `locale` is `*` for a
-- field that is not localized.
create table stoa.unique_value (
  type text not null,
  field text not null,
  locale text not null,
  value text not null,
  entry_id uuid not null references stoa.entry (id) on delete cascade,
  primary key (type, field, locale, value)
);
create index unique_value_entry on stoa.unique_value (entry_id);

create table stoa.release (
  id uuid primary key,
  name text not null,
  state text not null default 'open' check (state in ('open', 'published', 'undone')),
  created_at timestamptz(3) not null default now(),
  created_by json not null,
  published_at timestamptz(3),
  published_by json
);

create table stoa.release_item (
  release_id uuid not null references stoa.release (id) on delete cascade,
  entry_id uuid not null references stoa.entry (id),
  locale text not null,
  action text not null check (action in ('publish', 'unpublish')),
  number integer,
  -- What undoing puts back: the version that was published before, and since when. Null: none was.
  number_before integer,
  published_before timestamptz(3),
  primary key (release_id, entry_id, locale)
);
create index release_item_entry on stoa.release_item (entry_id);

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

create table stoa.idempotency (
  key text not null,
  principal text not null,
  request_hash text not null,
  status integer,
  headers json,
  body text,
  created_at timestamptz(3) not null default now(),
  primary key (principal, key)
);
create index idempotency_created on stoa.idempotency (created_at);
