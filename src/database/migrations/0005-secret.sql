-- The key for what nodes sign, where STOA_SECRET does not set one: a single row, the same for every node of the cluster.
create table stoa.secret (
  one boolean primary key default true check (one),
  value text not null,
  created_at timestamptz(3) not null default now()
);
