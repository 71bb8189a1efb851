-- Versions that nobody sees any more live beside `stoa.version`, which keeps the held ones: the latest and the published of each
-- entry and locale. A save then writes one row of the table with the many indexes instead of two. See docs/decisions/015.

select stoa.detach('stoa.version');

-- Append-only, but for a version that is published again: it moves back. No foreign key, which would look up the entry in
-- every save; a trigger takes the rows of deleted entries along.
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

-- Checks are parsed anew by every statement that writes; every number is one more than another.
alter table stoa.version drop constraint version_number_check;

-- Compressing texts takes a fifth of a save with PostgreSQL's own method, with LZ4 next to nothing.
do $$
begin
  if exists (select 1 from pg_settings where name = 'default_toast_compression' and 'lz4' = any (enumvals)) then
    alter table stoa.version alter data set compression lz4;
    alter table stoa.version_history alter data set compression lz4;
  end if;
end $$;

-- Every version in which content can be, held or not: for those who read by key.
create view stoa.any_version as
  select entry_id, locale, number, type, data, filter, type_revision, filter_revision, is_latest, is_published, is_archived,
    created_at, created_by_id, saved_at, saved_by, published_at, published_by, first_published_at
  from stoa.version
  union all
  select entry_id, locale, number, type, data, filter, type_revision, filter_revision, false, false, false,
    created_at, created_by_id, saved_at, saved_by, published_at, published_by, first_published_at
  from stoa.version_history;

-- A trigger, so that no statement can overwrite a version without keeping what was there: a row that gets another number is
-- another version from then on, and one that is neither the latest nor published any more leaves.
create function stoa.keep_version() returns trigger language plpgsql as $$
begin
  if new.is_latest or new.is_published then
    insert into stoa.version_history (entry_id, locale, number, type, data, filter, type_revision, filter_revision,
      created_at, created_by_id, saved_at, saved_by, published_at, published_by, first_published_at)
    values (old.entry_id, old.locale, old.number, old.type, old.data, old.filter, old.type_revision, old.filter_revision,
      old.created_at, old.created_by_id, old.saved_at, old.saved_by, old.published_at, old.published_by, old.first_published_at);
  else
    insert into stoa.version_history (entry_id, locale, number, type, data, filter, type_revision, filter_revision,
      created_at, created_by_id, saved_at, saved_by, published_at, published_by, first_published_at)
    values (new.entry_id, new.locale, new.number, new.type, new.data, new.filter, new.type_revision, new.filter_revision,
      new.created_at, new.created_by_id, new.saved_at, new.saved_by, new.published_at, new.published_by, new.first_published_at);
    delete from stoa.version v where v.entry_id = new.entry_id and v.locale = new.locale and v.number = new.number;
  end if;
  return null;
end $$;

insert into stoa.version_history (entry_id, locale, number, type, data, filter, type_revision, filter_revision,
  created_at, created_by_id, saved_at, saved_by, published_at, published_by, first_published_at)
select entry_id, locale, number, type, data, filter, type_revision, filter_revision,
  created_at, created_by_id, saved_at, saved_by, published_at, published_by, first_published_at
from stoa.version where not is_latest and not is_published;
delete from stoa.version where not is_latest and not is_published;

create trigger version_kept after update on stoa.version for each row
  when (old.number <> new.number or not (new.is_latest or new.is_published)) execute function stoa.keep_version();

create function stoa.forget_versions() returns trigger language plpgsql as $$
begin
  if tg_op = 'TRUNCATE' then
    truncate stoa.version_history;
  else
    delete from stoa.version_history h using gone where h.entry_id = gone.id;
  end if;
  return null;
end $$;
create trigger versions_forgotten after delete on stoa.entry referencing old table as gone for each statement execute function stoa.forget_versions();
create trigger versions_forgotten_all after truncate on stoa.entry for each statement execute function stoa.forget_versions();

-- The key is the entry's in a locale: a save changes the number of the row.
select stoa.attach('stoa.version', 'version', array['entry_id', 'locale'],
  array['entry_id', 'type', 'locale', 'is_latest', 'is_published', 'created_at', 'saved_at', 'published_at', 'first_published_at', 'created_by_id'], 'filter');
