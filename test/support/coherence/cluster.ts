import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import pg from 'pg'
import { newId } from '#lib/id.ts'
import { startNode, stoaProgram } from '#test/support/node.ts'
import type { RunningNode } from '#test/support/node.ts'

/** Groups that entries are in by turns, each with a list of its own. */
export const groups = 8
const typeName = 'probe'
const probeType = {
  name: typeName,
  label: 'Probe',
  fields: [
    { name: 'n', kind: 'number', filterable: true },
    { name: 'grp', kind: 'text', filterable: true },
    { name: 'body', kind: 'text' },
  ],
}
const body = 'A roof on many columns: take one away and it stands. '.repeat(8)

export type ClusterOptions = {
  /** Where each node finds the database: as many nodes as URLs. */
  readonly urls: readonly string[]
  readonly entries: number
  readonly environment?: Readonly<Record<string, string>>
}

export type Cluster = AsyncDisposable & {
  readonly nodes: readonly RunningNode[]
  readonly entries: readonly string[]
  /** API tokens of an administrator and of a caller who only reads. */
  readonly tokens: { readonly administrator: string; readonly reader: string }
}

/** Real nodes on one database, and published entries that all have the number 0. */
export async function startCluster(options: ClusterOptions): Promise<Cluster> {
  await using opened = new AsyncDisposableStack()
  const folder = await mkdtemp(join(tmpdir(), 'stoa-cluster-'))
  opened.defer(async () => rm(folder, { recursive: true, force: true }))
  const files = join(folder, 'files')
  await mkdir(files)
  const common = {
    STOA_STARTER: 'false',
    STOA_LOG_LEVEL: 'warn',
    STOA_FILES_URL: `file://${files}`,
    ...options.environment,
  }
  const start = async (url: string, index: number): Promise<RunningNode> => {
    const environment = { ...common, STOA_DATABASE_URL: url, STOA_NODE: nodeName(index) }
    return opened.use(await startNode({ dataDir: join(folder, nodeName(index)), environment }))
  }
  // It waits for all of them, so that none comes up after another has failed and all were ended.
  const started = await Promise.allSettled(options.urls.map(start))
  const nodes = started.map((each) => {
    if (each.status === 'rejected') throw each.reason
    return each.value
  })
  const [first] = nodes
  const command = [
    stoaProgram,
    '--json',
    'token',
    'create',
    'administrator',
    '--role',
    'administrator',
  ]
  const { stdout } = await promisify(execFile)(process.execPath, command, {
    env: { PATH: process.env['PATH'] ?? '', ...first!.environment },
  })
  const { token: administrator } = JSON.parse(stdout) as { token: string }
  const call = async (method: string, path: string, content: object): Promise<string> =>
    send(`${first!.origin}${path}`, administrator, method, content)
  const made = JSON.parse(
    await call('POST', '/api/tokens', { name: 'reader', roles: ['author'], expiresAt: null }),
  ) as { data: { token: string } }
  const tokens = { administrator, reader: made.data.token }
  const entries = Array.from({ length: options.entries }, () => newId())
  await call('PUT', `/api/types/${typeName}`, probeType)
  await Promise.all(
    entries.map((id) =>
      call('POST', `/api/content/${typeName}`, {
        id,
        fields: { ...fieldsOf(0), body },
        publish: true,
      }),
    ),
  )
  const closing = opened.move()
  return { nodes, entries, tokens, [Symbol.asyncDispose]: async () => closing.disposeAsync() }
}

export function nodeName(index: number): string {
  return `node-${index + 1}`
}

export function entryPath(key: string): string {
  return `/api/content/${typeName}/${key}`
}

export function listPath(group: number): string {
  return `/api/content/${typeName}?where[grp][eq]=g${group}&limit=200`
}

export function fieldsOf(n: number): { n: number; grp: string } {
  return { n, grp: `g${n % groups}` }
}

type EntryJson = { readonly id: string; readonly fields: { readonly n: number } }

/** The number in the response of an entry. */
export function numberIn(text: string): number {
  return (JSON.parse(text) as { data: EntryJson }).data.fields.n
}

export function numbersIn(text: string): Map<string, number> {
  return new Map(
    (JSON.parse(text) as { data: EntryJson[] }).data.map(({ id, fields }) => [id, fields.n]),
  )
}

/** The numbers that the database itself has, by entry. */
export async function numbersInDatabase(url: string): Promise<Map<string, number>> {
  const client = new pg.Client({
    connectionString: url,
    connectionTimeoutMillis: 5_000,
    query_timeout: 20_000,
  })
  client.on('error', () => undefined)
  await client.connect()
  try {
    const { rows } = await client.query<{ id: string; n: string }>(
      `select entry_id as id, data->>'n' as n from stoa.version where type = $1 and is_published`,
      [typeName],
    )
    return new Map(rows.map(({ id, n }) => [id, Number(n)]))
  } finally {
    await client.end()
  }
}

async function send(url: string, token: string, method: string, content: object): Promise<string> {
  const response = await fetch(url, {
    method,
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    body: JSON.stringify(content),
  })
  const text = await response.text()
  if (!response.ok) throw new Error(`${method} ${url}: ${response.status} ${text}`)
  return text
}
