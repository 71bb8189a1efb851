import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { connect } from 'node:net'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import { test } from 'node:test'
import { headLines, HeadWriter } from '#api/delivery/raw-head.ts'

const pairs = [
  'content-type',
  'application/json',
  'content-length',
  '4',
  'etag',
  '"a"',
  'vary',
  'Cookie',
]
const body = Buffer.from('{ }\n')

/**
 * What a server says to raw requests, the last of which closes the connection; `written` counts the
 * heads that were texts.
 */
async function said(
  keepAliveTimeout: number,
  ready: boolean,
  requests: string,
): Promise<{ bytes: string; written: number }> {
  const heads = new HeadWriter(keepAliveTimeout)
  let written = 0
  const server = createServer({ keepAliveTimeout }, (_request, response) => {
    if (ready && heads.write(response, headLines(pairs), 'id-1', performance.now())) written += 1
    else response.writeHead(200, [...pairs, 'x-request-id', 'id-1'])
    response.end(body)
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const socket = connect((server.address() as AddressInfo).port, '127.0.0.1')
  socket.end(requests)
  const bytes = await text(socket)
  server.close()
  return {
    bytes: bytes.replaceAll(/^Date: .*$/gm, (line) =>
      Math.abs(Date.parse(line.slice(6)) - Date.now()) < 5_000 ? 'Date: now' : line,
    ),
    written,
  }
}

test('the head is the one that writeHead makes, to the byte', async () => {
  const request = 'GET / HTTP/1.1\r\nHost: a\r\n\r\n'
  for (const [requests, written] of [
    [request.repeat(3), 3],
    [`${request}GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`, 1],
    ['GET / HTTP/1.0\r\n\r\n', 0],
    ['GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n', 1],
  ] as const) {
    for (const keepAliveTimeout of [72_000, 0]) {
      const own = await said(keepAliveTimeout, true, requests)
      assert.equal(own.bytes, (await said(keepAliveTimeout, false, requests)).bytes)
      assert.equal(own.written, written)
      assert.match(own.bytes, /Date: now/)
    }
  }
})

test('the date is that of the second', async (t) => {
  t.mock.timers.enable({ apis: ['Date'], now: Date.UTC(2026, 0, 1, 12, 0, 0, 400) })
  const heads = new HeadWriter(0)
  const dates: string[] = []
  const server = createServer((request, response) => {
    assert.ok(heads.write(response, headLines(pairs), 'id', Number(request.url!.slice(1))))
    response.end(body)
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  for (const [nowMs, advance] of [
    [5_000, 599],
    [5_599, 1],
    [5_600, 1_000],
    [6_599, 0],
  ] as const) {
    const response = await fetch(
      `http://127.0.0.1:${(server.address() as AddressInfo).port}/${nowMs}`,
    )
    await response.text()
    dates.push(response.headers.get('date')!.slice(17, 25))
    t.mock.timers.tick(advance)
  }
  server.close()
  server.closeAllConnections()
  assert.deepEqual(dates, ['12:00:00', '12:00:00', '12:00:01', '12:00:01'])
})

test('what writeHead would refuse is refused', () => {
  assert.throws(() => headLines(['a', 'b\r\nc: d']), { code: 'ERR_INVALID_CHAR' })
  assert.throws(() => headLines(['a b', 'c']), { code: 'ERR_INVALID_HTTP_TOKEN' })
})
