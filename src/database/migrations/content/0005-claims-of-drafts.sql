-- Nodes of the version before claim the values of drafts with those of published versions, in
-- stoa.unique_value. That is stricter for these entries, and ends when each is saved again.
create table stoa.unique_draft_value (
  type text not null,
  field text not null,
  locale text not null,
  value text not null,
  entry_id uuid not null references stoa.entry (id) on delete cascade,
  primary key (type, field, locale, value)
);
create index unique_draft_value_entry on stoa.unique_draft_value (entry_id);
-- A number has several spellings: those are all taken over.
insert into stoa.unique_draft_value (type, field, locale, value, entry_id)
select u.type, u.field, u.locale, u.value, u.entry_id from stoa.unique_value u
where exists (select from stoa.version v
  where v.type = u.type and v.entry_id = u.entry_id and v.is_latest and u.locale in ('*', v.locale)
    and (v.filter ->> u.field = u.value or jsonb_typeof(v.filter -> u.field) = 'number'));
comment on table stoa.unique_draft_value is
  'The values of unique fields, each claimed by the entry whose latest version has it. So a draft '
  'may take what only a published version of another entry has, and the two are published in one '
  'release.';
comment on column stoa.unique_draft_value.locale is '`*` for a field that all locales share.';
comment on table stoa.unique_value is
  'The values of unique fields, each claimed by the entry whose published version has it.';
