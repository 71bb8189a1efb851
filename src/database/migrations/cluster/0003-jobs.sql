-- The queue of jobs. See src/jobs/SPEC.md.

create table stoa.job (
  id bigint generated always as identity primary key,
  kind text not null,
  state text not null default 'waiting'
    check (state in ('waiting', 'blocked', 'running', 'done', 'parked', 'cancelled')),
  priority smallint not null default 1 check (priority between 0 and 2),
  due_at timestamptz not null default clock_timestamp(),
  key text,
  order_key text,
  payload json not null,
  attempt integer not null default 0,
  failures integer not null default 0,
  attempts_max integer not null default 10,
  idempotency_key uuid not null default gen_random_uuid(),
  node text,
  progress json,
  failure json,
  created_at timestamptz(3) not null default clock_timestamp(),
  started_at timestamptz(3),
  ended_at timestamptz(3),
  kept_until timestamptz(3)
);
create index job_due on stoa.job (kind, priority, due_at, id) where state = 'waiting';
create unique index job_key on stoa.job (kind, key)
  where key is not null and state in ('waiting', 'blocked');
create index job_order on stoa.job (kind, order_key, id)
  where order_key is not null and state in ('waiting', 'blocked', 'running');
create unique index job_order_running on stoa.job (kind, order_key)
  where order_key is not null and state = 'running';
create index job_running on stoa.job (node) where state = 'running';
create index job_kept on stoa.job (kept_until) where kept_until is not null;
create index job_parked on stoa.job (kind) where state = 'parked';
comment on table stoa.job is
  'Durable work that is done once in effect. A plain insert in the transaction of a write adds a '
  'job; a node claims it by raising `attempt`, and commits its effect only in a transaction that '
  'finds `attempt` and `node` unchanged.';
comment on column stoa.job.state is
  '`waiting` for `due_at` and a free node; `blocked` behind an earlier job of its order key; '
  '`running` on `node`; `done`; `parked` after its last attempt; `cancelled`.';
comment on column stoa.job.priority is '0 is claimed first, 2 last, within the kind.';
comment on column stoa.job.due_at is 'No attempt starts earlier, by the clock of this database.';
comment on column stoa.job.key is
  'At most one job of a kind waits with it; a later one replaces the payload of the earlier.';
comment on column stoa.job.order_key is
  'Jobs of a kind with the same order key run one at a time, in the order of `id`.';
comment on column stoa.job.attempt is 'Claims so far. It only grows: the fence of the effects.';
comment on column stoa.job.failures is
  'Failed attempts since the job was added or retried; at `attempts_max` it is parked.';
comment on column stoa.job.idempotency_key is
  'The same at each attempt, for effects outside the database.';
comment on column stoa.job.node is 'The node that runs it: its id in `stoa.node`.';
comment on column stoa.job.failure is 'Why the last attempt failed.';
comment on column stoa.job.kept_until is 'Of a job that has ended: when it may be deleted.';
