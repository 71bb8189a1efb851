-- Nodes and what they lead (`role` names are the cluster's, not those of users). Rows are judged by whether their counters move, on each reader's own clock; the times are for people.

create table stoa.node (
  id text primary key,
  counter bigint not null default 0,
  draining boolean not null default false,
  info json not null,
  started_at timestamptz(3) not null default now(),
  seen_at timestamptz(3) not null default now()
) with (fillfactor = 50);

create table stoa.leadership (
  role text primary key,
  holder text not null,
  fence bigint not null,
  renewal bigint not null default 0
) with (fillfactor = 50);
