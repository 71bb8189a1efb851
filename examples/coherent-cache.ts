/**
 * A coherent cache for any Node.js application on PostgreSQL. Start as many processes as you like,
 * on as many machines as you like:
 *
 *     DATABASE_URL=postgres://… PORT=3001 node examples/coherent-cache.ts
 *
 * A write returns a token. A read with that token on another process comes from its memory, and
 * shows the new title:
 *
 *     curl -i -X PUT localhost:3001/articles/1 -d 'Hello'
 *     curl localhost:3002/articles/1 -H 'token: …'
 */
import { createServer } from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { formatToken, joinCluster, parseToken, sql } from 'stoa/cluster'

const cluster = await joinCluster({
  url: process.env['DATABASE_URL'] ?? 'postgres://localhost/postgres',
})
await cluster.database.transaction(async (tx) => {
  // Two processes that create the same table at the same moment would make each other fail.
  await tx.run(sql(`select pg_advisory_xact_lock(1)`))
  await tx.run(sql(`create table if not exists article (id text primary key, title text not null)`))
})
await cluster.attach('article', { collection: 'article', key: ['id'] })

const select = sql<{ title: string }>(`select title from article where id = $1`)
const upsert = sql(
  `insert into article values ($1, $2) on conflict (id) do update set title = excluded.title`,
)

async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const id = request.url?.split('/')[2] ?? ''
  try {
    if (request.method === 'PUT') {
      const title = Buffer.concat(await request.toArray()).toString()
      const { token } = await cluster.write(async (tx) => tx.run(upsert, [id, title]))
      response.writeHead(204, token === null ? {} : { token: formatToken(token) }).end()
    } else {
      const since = parseToken(String(request.headers['token'] ?? ''))
      const article = await cluster.cache.get(
        `article:${id}`,
        async (load) => (await load.row('article', id).run(select, [id]))[0] ?? null,
        { since },
      )
      response
        .writeHead(article.value === null ? 404 : 200, { 'cache-status': `stoa; ${article.state}` })
        .end(article.value?.title)
    }
  } catch (error) {
    response.writeHead(503, { 'retry-after': '1' }).end(String(error))
  }
}

createServer((request, response) => void handle(request, response)).listen(
  Number(process.env['PORT'] ?? 3001),
  () => process.stdout.write('listening\n'),
)

for (const signal of ['SIGINT', 'SIGTERM'])
  process.once(signal, () => void cluster[Symbol.asyncDispose]().then(() => process.exit()))
