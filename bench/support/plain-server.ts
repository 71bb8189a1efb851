/**
 * Plain `node:http` with every response in memory: the most that a server on Node.js
 * can do. It reads responses, as JSON lines of `path`, `headers` and `body`, from the file that is
 * named, and prints the port it listens on. With a database URL behind it, PATCH of an article is
 * one bare UPDATE, and the responses stay as they are.
 */
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import pg from 'pg'

const [file = '', databaseUrl] = process.argv.slice(2)
const lines = readFileSync(file, 'utf8')
  .trimEnd()
  .split('\n')
  .map((line) => JSON.parse(line) as { path: string; headers: string[]; body: string })
const prepared = new Map(
  lines.map(({ path, headers, body }) => [path, { headers, body: Buffer.from(body, 'base64') }]),
)
const pool =
  databaseUrl === undefined ? null : new pg.Pool({ connectionString: databaseUrl, max: 20 })

const server = createServer((request, response) => {
  if (request.method === 'PATCH' && pool !== null) {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      const { fields } = JSON.parse(Buffer.concat(chunks).toString()) as {
        fields: { title: string }
      }
      const values = [request.url!.slice(request.url!.lastIndexOf('/') + 1), fields.title]
      pool
        .query({
          name: 'update',
          text: 'update article set title = $2, updated_at = now() where id = $1',
          values,
        })
        .then(
          () =>
            response
              .writeHead(200, ['content-type', 'application/json', 'content-length', '2'])
              .end('{}'),
          (error: unknown) => response.writeHead(500).end(String(error)),
        )
    })
    return
  }
  const found = prepared.get(request.url ?? '')
  if (found === undefined) response.writeHead(404).end()
  else {
    response.writeHead(200, found.headers)
    response.end(found.body)
  }
})
server.listen(0, '127.0.0.1', () =>
  process.stdout.write(`${(server.address() as AddressInfo).port}\n`),
)
