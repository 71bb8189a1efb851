-- Media: assets, their renditions and unfinished uploads. The bytes are blobs in the file store; a
-- blob that none of these
-- tables names is an orphan. See src/media/blobs.ts for the lock under which blobs gain and lose
-- their last reference.

create table stoa.asset (
  id uuid primary key,
  name text not null,
  content_type text not null,
  bytes bigint not null check (bytes > 0),
  blob text not null check (blob ~ '^[0-9a-f]{64}$'),
  width integer check (width > 0),
  height integer check (height > 0),
  frames integer check (frames > 0),
  alt json not null,
  focal_x double precision check (focal_x between 0 and 1),
  focal_y double precision check (focal_y between 0 and 1),
  search text not null,
  created_at timestamptz(3) not null,
  created_by json not null,
  revision integer not null default 1,
  check ((width is null) = (height is null)),
  check ((focal_x is null) = (focal_y is null))
);
create index asset_blob on stoa.asset (blob);

create table stoa.rendition (
  asset_id uuid not null references stoa.asset (id) on delete cascade,
  key text not null,
  blob text not null check (blob ~ '^[0-9a-f]{64}$'),
  content_type text not null,
  bytes bigint not null check (bytes > 0),
  used_at timestamptz(3) not null,
  primary key (asset_id, key)
);
create index rendition_blob on stoa.rendition (blob);

create table stoa.file_store (
  only_one boolean primary key default true check (only_one),
  identity text not null
);

create table stoa.upload (
  id uuid primary key,
  owner text not null,
  actor json not null,
  name text not null,
  alt json not null,
  bytes bigint not null check (bytes > 0),
  received bigint not null default 0 check (received between 0 and bytes),
  created_at timestamptz(3) not null,
  expires_at timestamptz(3) not null,
  asset_id uuid references stoa.asset (id) on delete set null
);
create index upload_owner on stoa.upload (owner);
create index upload_expires on stoa.upload (expires_at);
create index upload_asset on stoa.upload (asset_id);

create table stoa.upload_part (
  upload_id uuid not null references stoa.upload (id) on delete cascade,
  start bigint not null check (start >= 0),
  bytes bigint not null check (bytes > 0),
  blob text not null check (blob ~ '^[0-9a-f]{64}$'),
  written_at timestamptz(3) not null,
  primary key (upload_id, start)
);
create index upload_part_blob on stoa.upload_part (blob);

create table stoa.blob_release (
  blob text primary key,
  released_at timestamptz(3) not null
);

create function stoa.release_blob() returns trigger language plpgsql as $$
begin
  insert into stoa.blob_release (blob, released_at) values (old.blob, clock_timestamp())
  on conflict (blob) do update set released_at = excluded.released_at;
  return null;
end
$$;
create trigger asset_release after delete on stoa.asset
  for each row execute function stoa.release_blob();

comment on table stoa.asset is
  'Uploaded files as editors know them: a blob with a name, alternative texts and a focal point.';
comment on column stoa.asset.search is
  'The name and the alternative texts in lower case, for searching the list.';
comment on table stoa.rendition is 'Images made from an asset.';
comment on column stoa.rendition.key is
  'Everything that decides the bytes: size, crop, format, quality.';
comment on column stoa.rendition.used_at is
  'The last use, as exactly as nodes record it. The least recently used of an asset make room.';
comment on table stoa.file_store is
  'A single row: the identity that is written in the file store of this site. A node that sees '
  'another place does not start.';
comment on table stoa.upload is
  'Resumable uploads. The bytes received so far are blobs too, so that any node can continue the '
  'upload.';
comment on table stoa.blob_release is
  'When a blob lost its last asset. It stays for the grace period after that, because a backup of '
  'the database that is restored needs the files of its time.';

select stoa.attach('stoa.asset', 'asset', array['id']);
