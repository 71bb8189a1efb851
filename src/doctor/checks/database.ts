import { check, onNodes } from '#doctor/check.ts'
import type { Check, Surroundings } from '#doctor/check.ts'
import { sql } from '#database/database.ts'

/** A connection that the pool leaves idle in a transaction for so long is closed by the server. */
const idleInTransactionMinMs = 60_000

type Row = Record<string, unknown>

async function one<F extends Row>(here: Surroundings, text: string): Promise<F> {
  const [row] = await here.database.run(sql<F>(text, 'never'))
  return row!
}

const durability = check<{ readonly off: string }>({
  name: 'durability',
  looksAt: 'fsync and full_page_writes of the server: off, a crash of its machine damages the data',
  where: 'once',
  inspect: (here) =>
    one(
      here,
      `select concat_ws(', ', case when current_setting('fsync') = 'off' then 'fsync' end,
         case when current_setting('full_page_writes') = 'off' then 'full_page_writes' end) as off`,
    ),
  evaluate: ([seen]) =>
    seen?.facts.off
      ? [
          {
            severity: 'error',
            message: `The database runs with ${seen.facts.off} off: a crash can damage its data.`,
            cure: `alter system reset ${seen.facts.off.split(', ')[0]}; select pg_reload_conf()`,
          },
        ]
      : [],
})

const commits = check<{ readonly value: string }>({
  name: 'commits',
  looksAt: 'synchronous_commit: off, writes that were acknowledged are lost in a crash',
  where: 'once',
  inspect: (here) => one(here, `select current_setting('synchronous_commit') as value`),
  evaluate: ([seen]) =>
    seen?.facts.value === 'off'
      ? [
          {
            severity: 'error',
            message:
              'synchronous_commit is off: a crash of the database loses writes that were ' +
              'acknowledged.',
            cure:
              'Set synchronous_commit to on for the server, the database and the role ' +
              '(alter role … reset synchronous_commit).',
          },
        ]
      : [],
})

type SynchronousStandby = {
  readonly names: string
  readonly commit: string
  readonly present: number
  readonly hidden: number
}

const synchronousStandby = check<SynchronousStandby>({
  name: 'synchronous-standby',
  looksAt: 'synchronous_standby_names: a standby is named and none is there, so commits wait',
  where: 'once',
  inspect: (here) =>
    one(
      here,
      `select current_setting('synchronous_standby_names') as names,
         current_setting('synchronous_commit') as commit,
         count(*) filter (where sync_state in ('sync', 'quorum'))::int as present,
         count(*) filter (where sync_state is null)::int as hidden
       from pg_stat_replication`,
    ),
  evaluate: ([seen]) => {
    if (seen === undefined) return []
    const { names, commit, present, hidden } = seen.facts
    if (names === '' || ['off', 'local'].includes(commit) || present + hidden > 0) return []
    return [
      {
        severity: 'error',
        message: `Commits wait for a synchronous standby (${names}), and none is connected.`,
        cure:
          'Start the standby; or let commits go on without one: alter system set ' +
          `synchronous_standby_names = ''; select pg_reload_conf()`,
      },
    ]
  },
})

const idleTransactions = check<{ readonly ms: number }>({
  name: 'idle-transactions',
  looksAt:
    'idle_in_transaction_session_timeout behind a pooler: shorter than that of a node, it ends ' +
    'transactions in the middle',
  where: 'node',
  inspect: (here) =>
    one(
      here,
      `select extract(epoch from current_setting('idle_in_transaction_session_timeout')::interval)
         ::float8 * 1000 as ms`,
    ),
  evaluate: (inspected) =>
    onNodes(
      inspected,
      ({ ms }) => ms > 0 && ms < idleInTransactionMinMs,
      ({ ms }) => ({
        severity: 'warning',
        message: `The server ends transactions that are idle for ${ms} ms.`,
        cure:
          'Give the role at least a minute: alter role … set ' +
          `idle_in_transaction_session_timeout = '60s'`,
      }),
    ),
})

const statementDeadline = check<{ readonly value: string }>({
  name: 'statement-deadline',
  looksAt: 'statement_timeout behind a pooler: without one the server goes on with abandoned work',
  where: 'node',
  inspect: (here) => one(here, `select current_setting('statement_timeout') as value`),
  evaluate: (inspected) =>
    onNodes(
      inspected,
      ({ value }) => value === '0',
      () => ({
        severity: 'warning',
        message: 'Statements through the pooler have no deadline on the server.',
        cure: 'Give the role one: alter role … set statement_timeout = 10000',
      }),
    ),
})

const sessions = check<{ readonly refusal: string | null }>({
  name: 'sessions',
  looksAt:
    'a pooler in transaction mode where sessions of the server are needed: change feed, locks, ' +
    'NOTIFY',
  where: 'node',
  inspect: async ({ database }) => {
    try {
      await database.session((session) => session.run(sql('select 1', 'never')))
      return { refusal: null }
    } catch (error) {
      return { refusal: error instanceof Error ? error.message : String(error) }
    }
  },
  evaluate: (inspected) =>
    onNodes(
      inspected,
      ({ refusal }) => refusal !== null,
      ({ refusal }) => ({
        severity: 'error',
        message: `There are no sessions of the server: ${refusal}`,
        cure: 'Set STOA_DATABASE_DIRECT_URL to the PostgreSQL behind the pooler.',
      }),
    ),
})

const directUrl = check<{ readonly main: string; readonly direct: string }>({
  name: 'direct-url',
  looksAt: 'STOA_DATABASE_DIRECT_URL: it leads to another database than STOA_DATABASE_URL',
  where: 'node',
  inspect: async ({ database }) => {
    const place = sql<{ place: string }>(
      `select (select system_identifier from pg_control_system()) || ' '
         || (select oid from pg_database where datname = current_database()) as place`,
      'never',
    )
    const [main, direct] = await Promise.all([
      database.run(place),
      database.session((session) => session.run(place)),
    ])
    return { main: main[0]!.place, direct: direct[0]!.place }
  },
  evaluate: (inspected) =>
    onNodes(
      inspected,
      ({ main, direct }) => main !== direct,
      () => ({
        severity: 'error',
        message: 'STOA_DATABASE_DIRECT_URL and STOA_DATABASE_URL lead to two databases.',
        cure: 'Set STOA_DATABASE_DIRECT_URL to the server behind STOA_DATABASE_URL, same database.',
      }),
    ),
})

const epoch = check<{ readonly followed: string | null }>({
  name: 'epoch',
  looksAt: 'the epoch that each node follows: two of them are two primaries, or two databases',
  where: 'node',
  inspect: async (here) => ({ followed: here.epoch }),
  evaluate: (inspected) => {
    const epochs = new Map<string, string[]>()
    for (const { node, facts } of inspected)
      if (facts.followed !== null)
        epochs.set(facts.followed, [...(epochs.get(facts.followed) ?? []), node])
    if (epochs.size < 2) return []
    const groups = [...epochs].map(([name, nodes]) => `${nodes.join(', ')}: ${name}`)
    return [
      {
        severity: 'error',
        nodes: [...epochs.values()].flat(),
        message: `The nodes follow two epochs of the database (${groups.join('; ')}).`,
        cure:
          'During a failover this lasts seconds. If it stays: see that STOA_DATABASE_URL leads ' +
          'to the same primary on every node, and stop the one that was replaced.',
      },
    ]
  },
})

type Standbys = {
  readonly system: string
  readonly standbys: Awaited<ReturnType<Surroundings['standbys']>>
}

const standbys = check<Standbys>({
  name: 'standbys',
  looksAt:
    'STOA_DATABASE_READ_URL: a server that is away, is no standby, is of another database, or ' +
    'has no hot_standby_feedback',
  where: 'node',
  inspect: async (here) => ({
    ...(await one<{ system: string }>(
      here,
      `select system_identifier::text as system from pg_control_system()`,
    )),
    standbys: await here.standbys(),
  }),
  evaluate: (inspected) => {
    const seen = inspected.flatMap(({ node, facts: { system, standbys: all } }) =>
      all.map((standby) => ({ node, facts: { system, standby } })),
    )
    const at = (one: Standbys['standbys'][number]): string => `STOA_DATABASE_READ_URL: ${one.host}`
    return [
      ...onNodes(
        seen,
        ({ standby }) => 'error' in standby,
        ({ standby }) => ({
          severity: 'warning',
          message: `${at(standby)} cannot be used: ${'error' in standby ? standby.error : ''}`,
          cure: 'Start that standby, or take it out of the URL.',
        }),
      ),
      ...onNodes(
        seen,
        ({ standby }) => 'isStandby' in standby && !standby.isStandby,
        ({ standby }) => ({
          severity: 'warning',
          message: `${at(standby)} is a primary, not a standby: nothing is read there.`,
          cure: 'Name hot standbys of the database, or unset STOA_DATABASE_READ_URL.',
        }),
      ),
      ...onNodes(
        seen,
        ({ system, standby }) => 'system' in standby && standby.system !== system,
        ({ standby }) => ({
          severity: 'error',
          message: `${at(standby)} belongs to another database server.`,
          cure: 'Name standbys of the server of STOA_DATABASE_URL.',
        }),
      ),
      ...onNodes(
        seen,
        ({ standby }) => 'isStandby' in standby && standby.isStandby && !standby.feedback,
        ({ standby }) => ({
          severity: 'warning',
          message: `${at(standby)} runs without hot_standby_feedback: long reads are cancelled.`,
          cure:
            'On the standby: alter system set hot_standby_feedback = on; select ' +
            'pg_reload_conf()',
        }),
      ),
    ]
  },
})

type Collation = { readonly objects: string }

const collation = check<Collation>({
  name: 'collation',
  looksAt: 'the version of the collation: changed by an upgrade of the system, indexes are wrong',
  where: 'once',
  inspect: (here) =>
    one(
      here,
      `select coalesce(string_agg(name, ', '), '') as objects from (
         select 'the database' as name from pg_database where datname = current_database()
           and datcollversion is distinct from pg_database_collation_actual_version(oid)
           and datcollversion is not null
         union all
         select 'collation ' || c.collname from pg_collation c
         where c.collversion is not null
           and c.collversion is distinct from pg_collation_actual_version(c.oid)
           and exists (select from pg_attribute a join pg_class t on t.oid = a.attrelid
             where a.attcollation = c.oid and t.relnamespace = to_regnamespace('stoa'))) changed`,
    ),
  evaluate: ([seen]) =>
    seen?.facts.objects
      ? [
          {
            severity: 'error',
            message:
              `The sort order of ${seen.facts.objects} has changed since it was made: indexes ` +
              'may miss rows.',
            cure:
              'reindex database …; then alter database … refresh collation version (or alter ' +
              'collation … refresh version).',
          },
        ]
      : [],
})

type Recording = { readonly tables: string }

const recording = check<Recording>({
  name: 'recording',
  looksAt: 'the triggers of the change feed: missing or disabled, nodes serve what has changed',
  where: 'once',
  inspect: (here) =>
    one(
      here,
      `select coalesce(string_agg(a.target::regclass::text, ', '), '') as tables
       from stoa.attachment a where exists (select from pg_class c where c.oid = a.target)
         and (select count(*) from pg_trigger t where t.tgrelid = a.target
           and t.tgname like 'stoa\\_change\\_%' and t.tgenabled = 'A') < 4`,
    ),
  evaluate: ([seen]) =>
    seen?.facts.tables
      ? [
          {
            severity: 'error',
            message: `Not recorded, a trigger is missing or off: changes of ${seen.facts.tables}.`,
            cure:
              'alter table … enable always trigger stoa_change_insert (and _update, _delete, ' +
              '_truncate); then select stoa.end_epoch()',
          },
        ]
      : [],
})

type Connections = {
  readonly own: number
  readonly max: number
  readonly reserved: number
  readonly others: number
}

const connections = check<Connections>({
  name: 'connections',
  looksAt: 'STOA_DATABASE_CONNECTIONS of all nodes together: more than the server takes',
  where: 'node',
  inspect: async (here) => ({
    own: here.config.databaseConnections,
    ...(await one<Omit<Connections, 'own'>>(
      here,
      `select current_setting('max_connections')::int as max,
         current_setting('superuser_reserved_connections')::int
           + coalesce(current_setting('reserved_connections', true)::int, 0) as reserved,
         (select count(*)::int from pg_stat_activity where backend_type = 'client backend'
           and application_name not like 'stoa %') as others`,
    )),
  }),
  evaluate: (inspected) => {
    const [first] = inspected
    if (first === undefined) return []
    const { max, reserved, others } = first.facts
    const wanted = inspected.reduce((sum, { facts }) => sum + facts.own, 0)
    const free = max - reserved - others
    if (wanted <= free) return []
    return [
      {
        severity: 'warning',
        message:
          `The nodes may open ${wanted} connections together; the server has ${free} for them ` +
          `(max_connections ${max}, ${reserved} reserved, ${others} of other programs).`,
        cure:
          'Lower STOA_DATABASE_CONNECTIONS, raise max_connections, or put a pooler such as ' +
          'PgBouncer before the server.',
      },
    ]
  },
})

export const databaseChecks: readonly Check[] = [
  durability,
  commits,
  synchronousStandby,
  idleTransactions,
  statementDeadline,
  sessions,
  directUrl,
  epoch,
  standbys,
  collation,
  recording,
  connections,
]
