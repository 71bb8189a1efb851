-- Nodes, leaderships and calls between nodes. See src/nodes/SPEC.md.

create table stoa.node (
  id text primary key,
  counter bigint not null default 0,
  draining boolean not null default false,
  drain_asked boolean not null default false,
  info json not null,
  started_at timestamptz(3) not null default now(),
  seen_at timestamptz(3) not null default now()
) with (fillfactor = 50);
comment on table stoa.node is
  'The nodes of the cluster. A node counts as alive while its counter advances, as measured by '
  'the clock of each reader; the times are only for people.';
comment on column stoa.node.drain_asked is
  'Set by `stoa drain`. It stands in the row of the node, so that it arrives without Cluster '
  'Link.';

create table stoa.leadership (
  duty text primary key,
  holder text not null,
  fence bigint not null,
  renewal bigint not null default 0
) with (fillfactor = 50);
comment on table stoa.leadership is
  'Which node does each kind of work for the whole cluster. The fence grows with every new '
  'holder, so that the writes of a former holder are refused.';

create unlogged table stoa.node_call (
  call text not null,
  target text not null,
  caller text not null,
  method text not null,
  payload text not null,
  expires_at timestamptz(3) not null,
  reply text,
  failure text,
  primary key (call, target)
) with (fillfactor = 70);
create index node_call_waiting on stoa.node_call (target) where reply is null and failure is null;
create index node_call_expiry on stoa.node_call (expires_at);
comment on table stoa.node_call is
  'Calls between nodes, one row per called node, deleted by the caller. Unlogged: a call need not '
  'outlive a crash of the database, and its commit need not wait for the disk or a standby. It '
  'has no sequence, because the sequence of an unlogged table is unlogged too and can be '
  'unreadable on a promoted standby.';
comment on column stoa.node_call.reply is
  'Null, like `failure`, until the called node has replied.';
