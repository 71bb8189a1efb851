-- Nodes of the version before show such values again until they are replaced; they change nothing.
alter table stoa.content_type add column narrowed_fields jsonb not null default '[]';
comment on column stoa.content_type.narrowed_fields is
  'Fields as they were made by a change after which not every value of before was one of the '
  'field, each with the revision, in order. Older versions are read through all of them, so that '
  'a value which a change lost does not come back when the field is changed again.';
