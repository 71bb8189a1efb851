/**
 * What a good engineer writes by hand for one purpose: Fastify, pg with named statements, one plain
 * table. No versions, permissions, locales or drafts. `node baseline-server.ts DATABASE_URL` prints
 * the port it listens on.
 */
import { fastify } from 'fastify'
import pg from 'pg'

const pool = new pg.Pool({ connectionString: process.argv[2], max: 20 })
const server = fastify()

const columns = 'id, title, slug, summary, body, category_id, published_at, updated_at'

server.get<{ Params: { id: string } }>('/articles/:id', async (request, reply) => {
  const { rows } = await pool.query({
    name: 'get',
    text: `select ${columns} from article where id = $1`,
    values: [request.params.id],
  })
  return rows[0] ?? reply.code(404).send({ error: 'not found' })
})

server.get<{ Querystring: { category: string } }>('/articles', async (request) => {
  const text = `select ${columns} from article where category_id = $1
      order by published_at desc, id desc limit 20`
  const { rows } = await pool.query({ name: 'list', text, values: [request.query.category] })
  return { data: rows }
})

server.patch<{ Params: { id: string }; Body: { title: string } }>(
  '/articles/:id',
  async (request) => {
    const text = `update article set title = $2, updated_at = now() where id = $1
      returning ${columns}`
    const { rows } = await pool.query({
      name: 'update',
      text,
      values: [request.params.id, request.body.title],
    })
    return rows[0]
  },
)

process.stdout.write(`${new URL(await server.listen({ host: '127.0.0.1', port: 0 })).port}\n`)
