-- Content and access tell their changes: what answers are made of.

select stoa.attach('stoa.version', 'version', array['entry_id', 'locale', 'number'],
  array['entry_id', 'type', 'locale', 'is_latest', 'is_published', 'created_at', 'saved_at', 'published_at', 'first_published_at', 'created_by_id'], 'filter');
-- One row that moves with every change of a type or locale.
select stoa.attach('stoa.model', 'model', array['only_one']);
select stoa.attach('stoa.role', 'role', array['name']);
select stoa.attach('stoa.user', 'user', array['id']);
select stoa.attach('stoa.user_role', 'user_role', array['user_id', 'role'], array['user_id']);
select stoa.attach('stoa.session', 'session', array['id_hash']);
select stoa.attach('stoa.api_token', 'api_token', array['id']);
select stoa.attach('stoa.api_token_role', 'api_token_role', array['token_id', 'role'], array['token_id']);
