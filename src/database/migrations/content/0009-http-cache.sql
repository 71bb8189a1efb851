-- Purges of the HTTP cache in front of the nodes. See docs/decisions/089-purges-from-the-outbox.md.

create table stoa.http_cache (
  one boolean primary key default true check (one),
  epoch text not null,
  position text not null
);
comment on table stoa.http_cache is
  'A single row: the snapshot up to which the changes have become purges. Whatever it sees was '
  'purged, or waits in `stoa.http_cache_purge`.';

create table stoa.http_cache_purge (
  id bigint generated always as identity primary key,
  edge text not null,
  epoch text not null,
  after_position text not null,
  up_to_position text not null,
  xids text[],
  fine text[] not null,
  wide text[] not null,
  coarse text[] not null,
  hard boolean not null,
  round integer not null default 0,
  due_at timestamptz(3) not null default clock_timestamp(),
  purged_at timestamptz(3)
);
create index http_cache_purge_due on stoa.http_cache_purge (edge, due_at);
comment on table stoa.http_cache_purge is
  'Purges that an edge has not had yet, or not for the last time: a row for each edge and each '
  'reading of changes.';
comment on column stoa.http_cache_purge.after_position is
  'The changes that `up_to_position` sees and this snapshot does not are purged by this row.';
comment on column stoa.http_cache_purge.xids is
  'The transactions that made them. Null: they are too many to name.';
comment on column stoa.http_cache_purge.hard is
  'What is purged must not be served again, not even while no node responds.';
comment on column stoa.http_cache_purge.round is
  'How often the edge has had it. A row is deleted after its last round.';

create table stoa.http_cache_edge (
  id text primary key,
  calls double precision not null,
  calls_at timestamptz(3) not null default clock_timestamp(),
  failing_since timestamptz(3),
  problem text
);
comment on table stoa.http_cache_edge is
  'The edges that were purged once: the calls that each still accepts, and since when it has '
  'failed.';
