-- The place of the files can change while the site runs (stoa files move).

alter table stoa.file_store
  add column revision integer not null default 1,
  add column url text,
  add column target text,
  add column target_url text,
  add column previous text,
  add check ((target is null) = (target_url is null));

comment on table stoa.file_store is
  'A single row: the identity that is written in the file store of this site, and where a '
  'move leads. A node that sees another place does not start.';
comment on column stoa.file_store.revision is
  'Grows with each beginning and end of a move. A transaction that names a blob reads it '
  'under a lock, so no reference is made by a rule of before.';
comment on column stoa.file_store.url is
  'The place of the identity, sealed with the secret of the cluster, once a move has begun; '
  'null: as the nodes are configured.';
comment on column stoa.file_store.target is
  'While a move is under way: the identity of the place to which it leads. New blobs go '
  'there.';
comment on column stoa.file_store.previous is
  'The identity of the place before the last move: a node that is still configured for it '
  'uses the new one.';
