import { execFileSync } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import pg from 'pg'
import { newId } from '#lib/id.ts'
import { freePort } from '#test/support/database.ts'
import { Child } from './processes.ts'

/**
 * Articles of about 4 KB in categories, and a node that holds them: what the benchmarks of delivery
 * read and write.
 */

const categories = 20
const inFlightMax = 24

export type Article = {
  readonly id: string
  readonly title: string
  readonly slug: string
  readonly summary: string
  readonly body: string
  readonly category: string
  readonly publishedAt: string
}

const stoa = join(import.meta.dirname, '..', '..', 'bin', 'stoa.js')
const words = (
  'roof column stone light market citizen talk shade ' +
  'morning harbour wind paint story rule choice measure'
).split(' ')

function paragraph(seed: number, characters: number): string {
  let text = ''
  for (let at = seed; text.length < characters; at = (at * 1_103_515_245 + 12_345) % 2_147_483_648)
    text += `${words[at % words.length]!} `
  return text.slice(0, characters).trim()
}

export const categoryIds = Array.from({ length: categories }, () => newId())

/** The same at each run, but for its id's random part. */
export function article(index: number): Article {
  const publishedAt = new Date(Date.UTC(2026, 0, 1) + index * 60_000).toISOString()
  const id = newId(Date.UTC(2026, 0, 1) + index)
  return {
    id,
    title: `Article ${index}`,
    slug: `article-${index}`,
    summary: paragraph(index + 1, 200),
    body: paragraph(index * 7 + 1, 3_700),
    category: categoryIds[index % categories]!,
    publishedAt,
  }
}

export type Send = (method: string, path: string, body?: object) => Promise<void>

/** Writes through the API, and fails loudly. */
export function sender(origin: string, token: string): Send {
  return async (method, path, body) => {
    const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' }
    const response = await fetch(`${origin}${path}`, {
      method,
      headers,
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    if (!response.ok)
      throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`)
    await response.arrayBuffer()
  }
}

export async function fillStoa(
  send: Send,
  all: readonly Article[],
  inCategories: readonly string[] = categoryIds,
): Promise<void> {
  await send('PUT', '/api/types/category', {
    name: 'category',
    label: 'Category',
    fields: [{ name: 'name', kind: 'text', required: true }],
  })
  await send('PUT', '/api/types/article', {
    name: 'article',
    label: 'Article',
    fields: [
      { name: 'title', kind: 'text', required: true },
      { name: 'slug', kind: 'slug', from: 'title' },
      { name: 'summary', kind: 'text' },
      { name: 'body', kind: 'markdown' },
      { name: 'category', kind: 'reference', types: ['category'], filterable: true },
    ],
    indexes: [['category', '-publishedAt']],
  })
  for (const id of inCategories)
    await send('POST', '/api/content/category', { id, fields: { name: id }, publish: true })
  const queue = [...all]
  const worker = async (): Promise<void> => {
    for (let next = queue.pop(); next !== undefined; next = queue.pop()) {
      const { id, publishedAt: _, ...fields } = next
      await send('POST', '/api/content/article', { id, fields, publish: true })
    }
  }
  await Promise.all(Array.from({ length: inFlightMax }, worker))
}

export async function createDatabase(url: string, name: string): Promise<string> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  await client.query(`create database ${name}`)
  await client.end()
  return url.replace(/\/postgres$/, `/${name}`)
}

export async function fillBaseline(url: string, all: readonly Article[]): Promise<void> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  await client.query(`create table article (id uuid primary key, title text not null,
    slug text not null unique, summary text not null, body text not null,
    category_id uuid not null, published_at timestamptz not null,
    updated_at timestamptz not null default now())`)
  for (let at = 0; at < all.length; at += 500) {
    const rows = all
      .slice(at, at + 500)
      .map((each) => ({ ...each, category_id: each.category, published_at: each.publishedAt }))
    await client.query(
      `insert into article (id, title, slug, summary, body, category_id, published_at)
       select id, title, slug, summary, body, category_id, published_at
       from json_populate_recordset(null::article, $1)`,
      [JSON.stringify(rows)],
    )
  }
  await client.query(`create index on article (category_id, published_at desc, id desc)`)
  await client.query(`vacuum analyze article`)
  await client.end()
}

export type ArticleNode = AsyncDisposable & {
  readonly origin: string
  readonly token: string
  readonly process: Child
}

/** A node on this database, with an API token that may do everything. */
export async function startArticleNode(options: {
  readonly databaseUrl: string
  readonly folder: string
  readonly environment?: Readonly<Record<string, string>>
}): Promise<ArticleNode> {
  const port = await freePort()
  const environment = {
    STOA_DATABASE_URL: options.databaseUrl,
    STOA_PORT: String(port),
    STOA_DATA: join(options.folder, 'data'),
    STOA_STARTER: 'false',
    STOA_LOG_LEVEL: 'warn',
    ...options.environment,
  }
  const child = new Child(process.execPath, [stoa, 'start'], environment)
  const origin = `http://127.0.0.1:${port}`
  try {
    await ready(origin, child)
  } catch (error) {
    await child[Symbol.asyncDispose]()
    throw error
  }
  const made = execFileSync(
    process.execPath,
    [stoa, '--json', 'token', 'create', 'bench', '--role', 'administrator'],
    { env: { ...process.env, ...environment }, encoding: 'utf8' },
  )
  const { token } = JSON.parse(made) as { token: string }
  return {
    origin,
    token,
    process: child,
    [Symbol.asyncDispose]: () => child[Symbol.asyncDispose](),
  }
}

async function ready(origin: string, node: Child): Promise<void> {
  for (let tries = 0; tries < 600; tries++) {
    const response = await fetch(`${origin}/healthz/ready`).catch(() => null)
    if (response?.status === 200) return
    if (node.process.exitCode !== null) break
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  throw new Error(`the node did not become ready:\n${node.output}`)
}

/**
 * The same articles with what a write has to keep: the versions before, and an outbox of changes.
 * Rates compare only if both servers keep as much.
 */
export async function fillHandmade(url: string, all: readonly Article[]): Promise<void> {
  await fillBaseline(url, all)
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  await client.query(`alter table article add column version int not null default 1;
    create table article_history (like article, primary key (id, version));
    create table change (xid xid8 not null default pg_current_xact_id(),
      collection text not null, key text not null, before json, after json);
    create index on change (xid)`)
  await client.end()
}

/** The server made by hand, which accepts writes with this token. */
export async function handmadeServer(
  databaseUrl: string,
  token: string,
): Promise<AsyncDisposable & { readonly origin: string }> {
  const program = join(import.meta.dirname, 'handmade-server.ts')
  const child = new Child(process.execPath, [program, databaseUrl, token], {})
  const [, port] = await child.printed(/^(\d+)\n/)
  return {
    origin: `http://127.0.0.1:${port!}`,
    [Symbol.asyncDispose]: () => child[Symbol.asyncDispose](),
  }
}

/**
 * Node's own server, which replays Stoa's responses with the same bodies and headers; with a
 * database, writes are bare updates.
 */
export async function plainServer(options: {
  readonly origin: string
  readonly paths: readonly string[]
  readonly folder: string
  readonly databaseUrl?: string
}): Promise<AsyncDisposable & { readonly origin: string }> {
  const { origin, paths, folder, databaseUrl } = options
  const lines: string[] = []
  for (const path of paths) {
    const response = await fetch(`${origin}${path}`, {
      headers: { 'accept-encoding': 'identity' },
    })
    const headers = [...response.headers]
      .filter(([name]) => !['date', 'connection', 'keep-alive'].includes(name))
      .flat()
    lines.push(
      JSON.stringify({
        path,
        headers,
        body: Buffer.from(await response.arrayBuffer()).toString('base64'),
      }),
    )
  }
  const file = join(folder, 'responses.jsonl')
  await writeFile(file, `${lines.join('\n')}\n`)
  const child = new Child(
    process.execPath,
    [
      join(import.meta.dirname, 'plain-server.ts'),
      file,
      ...(databaseUrl === undefined ? [] : [databaseUrl]),
    ],
    {},
  )
  const [, port] = await child.printed(/^(\d+)\n/)
  return {
    origin: `http://127.0.0.1:${port!}`,
    [Symbol.asyncDispose]: () => child[Symbol.asyncDispose](),
  }
}
