-- Access: roles, users, sessions, API tokens, the link for the first administrator, sign-in
-- throttling, the audit log.
-- Secrets are kept only as SHA-256 (of 256 random bits) or argon2id (passwords).

create table stoa.role (
  name text primary key check (name ~ '^[a-z][a-z0-9-]{0,62}$'),
  label text not null,
  content json not null,
  system text[] not null,
  built_in boolean not null default false,
  updated_at timestamptz(3) not null default now()
);

insert into stoa.role (name, label, content, system, built_in) values
  -- The program gives `administrator` every permission that it knows; this row's lists are not
  -- read.
  ('administrator', 'Administrator', '[]', '{}', true),
  ('editor', 'Editor',
   '[{"type":"*","filter":null,"fields":null,
      "actions":["read","readDraft","create","update","publish","archive","delete"]}]',
   '{releases.write,assets.read,assets.write}', true),
  ('author', 'Author',
   '[{"type":"*","actions":["read","create"],"filter":null,"fields":null},
     {"type":"*","actions":["readDraft","update","publish","archive","delete"],
      "filter":null,"fields":null,"own":true}]',
   '{assets.read,assets.write}', true),
  ('anonymous', 'Anonymous',
   '[{"type":"*","actions":["read"],"filter":null,"fields":null}]', '{}', true);

create sequence stoa.role_revision_sequence;
create table stoa.role_revision (
  revision bigint not null,
  only_one boolean primary key default true check (only_one)
);
insert into stoa.role_revision (revision) values (nextval('stoa.role_revision_sequence'));
comment on table stoa.role_revision is
  'A single row: the revision of all roles together, from a sequence, so that a number never '
  'stands for two sets of roles. Nodes that keep compiled roles in memory compare it in the '
  'statement that finds the session or token.';

create function stoa.role_changed() returns trigger language plpgsql as $$
begin
  update stoa.role_revision set revision = nextval('stoa.role_revision_sequence');
  return null;
end
$$;
create trigger role_changed after insert or update or delete or truncate on stoa.role
  for each statement execute function stoa.role_changed();

create table stoa.user (
  id uuid primary key,
  email text not null constraint user_email unique,
  name text not null,
  password_hash text not null,
  state text not null default 'active' check (state in ('active', 'disabled')),
  created_at timestamptz(3) not null,
  last_login_at timestamptz(3)
);

create table stoa.user_role (
  user_id uuid not null references stoa.user (id) on delete cascade,
  role text not null constraint user_role_role references stoa.role (name),
  primary key (user_id, role)
);
create index user_role_role on stoa.user_role (role);

create table stoa.session (
  id_hash bytea primary key,
  user_id uuid not null references stoa.user (id) on delete cascade,
  created_at timestamptz(3) not null,
  expires_at timestamptz(3) not null,
  address text not null,
  agent text not null
);
create index session_of_user on stoa.session (user_id, created_at);
create index session_expires on stoa.session (expires_at);

create table stoa.session_use (
  id_hash bytea primary key references stoa.session (id_hash) on delete cascade,
  last_used_at timestamptz(3) not null
);

create table stoa.api_token (
  id uuid primary key,
  name text not null,
  token_hash bytea not null unique,
  hint text not null,
  created_at timestamptz(3) not null,
  created_by uuid references stoa.user (id) on delete set null,
  created_by_token uuid references stoa.api_token (id) on delete cascade,
  expires_at timestamptz(3)
);
create index api_token_creator on stoa.api_token (created_by);
create index api_token_maker on stoa.api_token (created_by_token);

create table stoa.api_token_use (
  token_id uuid primary key references stoa.api_token (id) on delete cascade,
  last_used_at timestamptz(3) not null
);

create table stoa.api_token_role (
  token_id uuid not null references stoa.api_token (id) on delete cascade,
  role text not null constraint api_token_role_role references stoa.role (name),
  primary key (token_id, role)
);
create index api_token_role_role on stoa.api_token_role (role);

create table stoa.first_administrator (
  secret_hash bytea not null,
  expires_at timestamptz(3) not null,
  only_one boolean primary key default true check (only_one)
);

create unlogged table stoa.login_throttle (
  key text primary key,
  failures integer not null,
  last_at timestamptz(3) not null,
  blocked_until timestamptz(3) not null
);
create index login_throttle_last on stoa.login_throttle (last_at);
comment on table stoa.login_throttle is
  'Failed sign-ins, by `device:NONCE`, `network:NETWORK`, `pair:NETWORK:ACCOUNT` or '
  '`account:HASH`. Unlogged: every failed sign-in writes here, and the rows are worth nothing '
  'after a crash.';

create table stoa.audit (
  id uuid primary key,
  at timestamptz(3) not null,
  actor json not null,
  action text not null,
  subject text not null,
  facts json not null,
  address text,
  request_id text
);
create index audit_at on stoa.audit (at);

create function stoa.audit_append_only() returns trigger language plpgsql as $$
begin
  if tg_op = 'DELETE' and current_setting('stoa.audit_prune', true) = 'on' then
    return old;
  end if;
  raise exception 'the audit log is append-only' using errcode = 'restrict_violation';
end
$$;
create trigger audit_append_only before update or delete on stoa.audit
  for each row execute function stoa.audit_append_only();
create trigger audit_no_truncate before truncate on stoa.audit
  for each statement execute function stoa.audit_append_only();
comment on function stoa.audit_append_only is
  'Refuses every change of the audit log, so that a mistake of this program cannot alter it '
  'either. Only pruning by age may delete, which sets `stoa.audit_prune` in its transaction.';

comment on table stoa.role is
  'Roles: what their holders may do, by content type (`content`) and in the system (`system`).';
comment on table stoa.user is 'People who can sign in. The password is kept as an argon2id hash.';
comment on table stoa.session is 'Signed-in browsers. Only the SHA-256 of the cookie is kept.';
comment on table stoa.session_use is
  'When sessions were last used. A table of its own, which the change feed does not announce: a '
  'use changes nothing that nodes have in memory.';
comment on table stoa.api_token is
  'API tokens. Only the SHA-256 is kept; `hint` shows the first characters.';
comment on column stoa.api_token.created_by_token is
  'The token that made it, and with which it is deleted.';
comment on table stoa.api_token_use is 'When API tokens were last used, as `session_use`.';
comment on table stoa.first_administrator is
  'A single row while the site has no administrator: the hash of the secret in the link that '
  'makes the first one.';
comment on table stoa.audit is 'Who changed what, append-only.';

select stoa.attach('stoa.role', 'role', array['name']);
select stoa.attach('stoa.user', 'user', array['id']);
select stoa.attach('stoa.user_role', 'user_role', array['user_id', 'role'], array['user_id']);
select stoa.attach('stoa.session', 'session', array['id_hash']);
select stoa.attach('stoa.api_token', 'api_token', array['id']);
select stoa.attach('stoa.api_token_role', 'api_token_role',
  array['token_id', 'role'], array['token_id']);
