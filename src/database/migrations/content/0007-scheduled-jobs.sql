-- Scheduled actions are carried out by jobs. A trigger adds the job, so that an action which a node
-- of an older version, an import or a person adds by SQL is carried out too. The job locks the
-- action and looks at its state, so a second job for it does nothing.

create function stoa.add_scheduled_job() returns trigger language plpgsql as $$
begin
  insert into stoa.job (kind, payload, due_at, attempts_max)
  values ('scheduled-action', json_build_object('schedule', new.id), new.due_at, 1000);
  return null;
end $$;
create trigger scheduled_job after insert or update of due_at, state on stoa.schedule
  for each row when (new.state = 'waiting') execute function stoa.add_scheduled_job();
insert into stoa.job (kind, payload, due_at, attempts_max)
select 'scheduled-action', json_build_object('schedule', id), due_at, 1000
from stoa.schedule where state = 'waiting';
drop index stoa.schedule_entry;
create index schedule_entry on stoa.schedule (entry_id, due_at);
