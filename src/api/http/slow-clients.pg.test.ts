import assert from 'node:assert/strict'
import { get } from 'node:http'
import type { IncomingMessage } from 'node:http'
import { connect } from 'node:net'
import type { Socket } from 'node:net'
import { Readable } from 'node:stream'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { databaseMissing } from '#test/support/database.ts'
import { testSite } from '#test/support/site.ts'
import type { Site } from '#test/support/site.ts'

const skip = databaseMissing
/** More than the sockets of both sides hold. */
const fileBytes = 30_000_000

async function listening(site: Site): Promise<number> {
  return Number(new URL(await site.server.listen({ host: '127.0.0.1', port: 0 })).port)
}

async function bigFile(site: Site): Promise<string> {
  const asset = await site.media.upload(site.database, site.access.systemIdentity.authority.actor, {
    name: 'film.bin',
    source: Readable.from([Buffer.alloc(fileBytes)]),
  })
  return `/assets/${asset.id}/film.bin`
}

/** Writes, and then stands still; the socket is not read from unless the test listens. */
async function stalled(port: number, text: string): Promise<Socket> {
  const socket = connect(port, '127.0.0.1')
  socket.on('error', () => undefined)
  socket.pause()
  await new Promise<void>((resolve) => socket.once('connect', resolve))
  socket.write(text)
  return socket
}

async function statusOnceFree(port: number): Promise<number | undefined> {
  for (let tries = 0; ; tries += 1) {
    const response = await new Promise<IncomingMessage>(
      (resolve, reject) => void get({ port, path: '/api/locales' }, resolve).on('error', reject),
    )
    response.resume()
    if (response.statusCode !== 503 || tries === 200) return response.statusCode
    await sleep(25)
  }
}

test(
  'a body that does not arrive gives its place back, for any sender and route',
  { skip },
  async () => {
    await using site = await testSite({ config: { requestsMax: 2, handlerTimeoutMs: 300 } })
    const port = await listening(site)
    for (const path of ['/api/content/article', '/api/session']) {
      const head = `POST ${path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{`
      const sockets = await Promise.all([stalled(port, head), stalled(port, head)])
      const responses = await Promise.all(
        sockets.map(async (socket) => {
          let text = ''
          for await (const chunk of socket) text += String(chunk)
          return text
        }),
      )
      for (const response of responses) {
        assert.match(response, /^HTTP\/1\.1 408 /, path)
        assert.match(response, /"code":"E_REQUEST_TIMEOUT"/)
      }
      assert.equal(await statusOnceFree(port), 200)
    }
  },
)

test('who asks for a file and does not read it gives the place back', { skip }, async () => {
  await using site = await testSite({ config: { requestsMax: 2, idleTimeoutMs: 300 } })
  const path = await bigFile(site)
  const port = await listening(site)
  const sockets = await Promise.all(
    [1, 2].map(async () => stalled(port, `GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`)),
  )
  assert.equal(await statusOnceFree(port), 200)
  for (const socket of sockets) socket.destroy()
})

test(
  'a file is sent whole over a slow line, however long a handler may take',
  { skip },
  async () => {
    await using site = await testSite({ config: { handlerTimeoutMs: 200 } })
    const path = await bigFile(site)
    const port = await listening(site)
    const response = await new Promise<IncomingMessage>(
      (resolve, reject) => void get({ port, path }, resolve).on('error', reject),
    )
    await sleep(600)
    let bytes = 0
    for await (const chunk of response) bytes += (chunk as Buffer).length
    assert.equal(bytes, fileBytes)
  },
)
