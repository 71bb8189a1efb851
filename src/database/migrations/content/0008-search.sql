-- Search in PostgreSQL: the text of each held version as a tsvector, in its own row.

alter table stoa.version
  add column search tsvector,
  add column search_number integer,
  add column search_revision integer not null default 0;
comment on column stoa.version.search is
  'The words of the searchable fields, stemmed for the locale; null where the type has none. '
  'The weights A to D are groups of fields: see src/content/search/searched-fields.ts.';
comment on column stoa.version.search_number is
  'The version that `search` was made from. A search takes a row only where it equals '
  '`number`, so that a write which does not know of `search` never leaves words of an earlier '
  'version to be found.';
comment on column stoa.version.search_revision is
  'The revision of the type that `search` was made with.';

alter table stoa.content_type add column search_revision integer not null default 0;
comment on column stoa.content_type.search_revision is
  'The revision that last changed what is searched; 0: nothing ever was. Versions with an '
  'older `search_revision` are not found, and wait to be upgraded.';

do $$
begin
  if exists (
    select from pg_settings
    where name = 'default_toast_compression' and 'lz4' = any (enumvals)
  ) then
    alter table stoa.version alter search set compression lz4;
  end if;
end $$;

create function stoa.search_config(locale text) returns regconfig
language sql immutable strict parallel safe as $$
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
$$;
comment on function stoa.search_config is
  'The text search configuration of a locale: stemmer and stop words of its language, or neither.';

create function stoa.search_vector(locale text, texts json) returns tsvector
language sql immutable strict parallel safe as $$
  select setweight(to_tsvector(config, texts ->> 0), 'A')
    || setweight(to_tsvector(config, texts ->> 1), 'B')
    || setweight(to_tsvector(config, texts ->> 2), 'C')
    || setweight(to_tsvector(config, texts ->> 3), 'D')
  from stoa.search_config(locale) as config
$$;
comment on function stoa.search_vector is
  'What `stoa.version.search` holds: `texts` are the words of the four groups of fields.';
