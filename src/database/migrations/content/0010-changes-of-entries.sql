-- Events evaluate a change by the row that was recorded, so it has what grants ask for.

select stoa.attach('stoa.version', 'version', array['entry_id', 'locale'],
  array['entry_id', 'type', 'locale', 'is_latest', 'is_published', 'is_archived', 'created_at',
    'saved_at', 'published_at', 'first_published_at', 'created_by_id', 'filter_revision'],
  'filter');
