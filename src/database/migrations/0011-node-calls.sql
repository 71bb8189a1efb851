-- Draining on request: kept in the node's own row, so that it arrives without Cluster Link.
alter table stoa.node add column drain_asked boolean not null default false;

-- Calls between nodes, one row per callee, removed by the caller. Unlogged: a call outlives no crash of the database, and its commit need not wait for
-- the disk or a standby.
create unlogged table stoa.node_call (
  id bigint generated always as identity primary key,
  call text not null,
  caller text not null,
  target text not null,
  method text not null,
  payload text not null,
  expires_at timestamptz(3) not null,
  -- Both null: not answered yet.
  reply text,
  failure text
) with (fillfactor = 70);

create index node_call_waiting on stoa.node_call (target) where reply is null and failure is null;
create index node_call_call on stoa.node_call (call);
create index node_call_expiry on stoa.node_call (expires_at);
