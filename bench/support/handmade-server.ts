/**
 * A server for one purpose, made by hand on `node:http` and pg, that does for a write what Stoa
 * must do: it keeps the version before, records one change in an outbox, and drops what it has
 * cached of the entry and of the list that shows it. Its cache is perfect: it knows which path
 * shows what, is the only writer, and joins readers of the same list. `node handmade-server.ts
 * DATABASE_URL TOKEN` prints the port that it listens on.
 */
import { createHash } from 'node:crypto'
import { createServer } from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import pg from 'pg'

type Article = {
  readonly id: string
  readonly category: string
  readonly title: string
  readonly version: number
  readonly publishedAt: Date
}
type Reply = { readonly status: number; readonly headers: string[]; readonly body: Buffer }

const [databaseUrl = '', token = ''] = process.argv.slice(2)
const pool = new pg.Pool({ connectionString: databaseUrl, max: 20 })
const replies = new Map<string, Reply>()
const reading = new Map<string, Promise<Reply>>()

const columns = `a.id, a.version, a.title, a.slug, a.summary, a.body,
  a.category_id as category, a.published_at as "publishedAt", a.updated_at as "updatedAt"`
const write = `
  with old as materialized (select * from article where id = $1 for update),
    kept as (insert into article_history select * from old),
    recorded as (
      insert into change (collection, key, before, after)
      select 'article', id::text,
        json_build_object('category', category_id, 'published', published_at),
        json_build_object('category', category_id, 'published', now())
      from old
    )
  update article a set title = $2, version = a.version + 1, published_at = now(), updated_at = now()
  from old where a.id = old.id returning ${columns}`

function reply(content: object, surrogateKey: string): Reply {
  const body = Buffer.from(JSON.stringify(content))
  const tag = createHash('sha256').update(body).digest('base64url').slice(0, 22)
  const headers = [
    ['content-type', 'application/json; charset=utf-8'],
    ['content-length', String(body.length)],
    ['etag', `"${tag}"`],
    ['cache-control', 'public, max-age=0, s-maxage=1'],
    ['vary', 'accept-encoding, authorization, cookie, stoa-token'],
    ['surrogate-key', surrogateKey],
    ['cache-status', 'stoa; hit'],
    ['x-content-type-options', 'nosniff'],
  ]
  return { status: 200, headers: headers.flat(), body }
}

function entryPath(id: string): string {
  return `/api/content/article/${id}`
}

function listPath(category: string): string {
  return `/api/content/article?where[category][eq]=${category}&sort=-publishedAt&limit=20`
}

async function readEntry(id: string): Promise<Reply> {
  const { rows } = await pool.query<Article>({
    name: 'entry',
    text: `select ${columns} from article a where a.id = $1`,
    values: [id],
  })
  return reply({ data: rows[0] }, `article ${id}`)
}

async function readList(category: string): Promise<Reply> {
  const { rows } = await pool.query<Article>({
    name: 'list',
    text: `select ${columns} from article a where a.category_id = $1
      order by a.published_at desc, a.id desc limit 20`,
    values: [category],
  })
  return reply({ data: rows, meta: { next: null } }, `article list-${category}`)
}

/** All concurrent readers share one query; its result is kept unless a write came in between. */
async function fill(path: string): Promise<Reply> {
  const known = reading.get(path)
  if (known !== undefined) return known
  const category = /\[eq\]=([^&]+)/.exec(path)?.[1]
  const read =
    category === undefined ? readEntry(path.slice(path.lastIndexOf('/') + 1)) : readList(category)
  reading.set(path, read)
  try {
    const made = await read
    if (reading.get(path) === read) replies.set(path, made)
    return made
  } finally {
    if (reading.get(path) === read) reading.delete(path)
  }
}

function drop(path: string): void {
  replies.delete(path)
  reading.delete(path)
}

async function patch(id: string, body: string): Promise<Reply> {
  const { fields } = JSON.parse(body) as { fields: { title: string } }
  if (typeof fields.title !== 'string' || fields.title.length > 20_000)
    throw new Error('a title is a text')
  const values = [id, fields.title]
  const { rows } = await pool.query<Article>({ name: 'write', text: write, values })
  const article = rows[0]!
  drop(entryPath(id))
  drop(listPath(article.category))
  return reply({ data: article }, `article ${id}`)
}

function send(response: ServerResponse, { status, headers, body }: Reply): void {
  response.writeHead(status, headers)
  response.end(body)
}

function receive(request: IncomingMessage, response: ServerResponse): void {
  const chunks: Buffer[] = []
  request.on('data', (chunk: Buffer) => chunks.push(chunk))
  request.on('end', () => {
    patch(
      request.url!.slice(request.url!.lastIndexOf('/') + 1),
      Buffer.concat(chunks).toString(),
    ).then(
      (made) => send(response, made),
      (error: unknown) => response.writeHead(500).end(String(error)),
    )
  })
}

const server = createServer((request, response) => {
  const path = request.url ?? ''
  if (request.method === 'PATCH') {
    if (request.headers.authorization === `Bearer ${token}`) receive(request, response)
    else response.writeHead(401).end()
    return
  }
  const known = replies.get(path)
  if (known !== undefined) send(response, known)
  else
    fill(path).then(
      (made) => send(response, made),
      (error: unknown) => response.writeHead(500).end(String(error)),
    )
})
server.listen(0, '127.0.0.1', () =>
  process.stdout.write(`${(server.address() as AddressInfo).port}\n`),
)
