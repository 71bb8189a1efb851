import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { download, isPrivateAddress } from '#cli/import/download.ts'

const folder = mkdtempSync(join(tmpdir(), 'stoa-download-'))
const target = join(folder, 'file')
const server = createServer((request, response) => {
  if (request.url === '/redirect') response.writeHead(302, { location: '/file' }).end()
  else if (request.url === '/loop') response.writeHead(302, { location: '/loop' }).end()
  else if (request.url === '/nowhere') response.writeHead(302, { location: 'http://[' }).end()
  else if (request.url === '/slow') response.write('a')
  else if (request.url === '/cut') {
    response.writeHead(200, { 'content-length': '100' })
    response.write('short')
    setTimeout(() => response.destroy(), 20)
  } else if (request.url === '/file') response.end('x'.repeat(1_000))
  else response.writeHead(404).end()
})
await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
const base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
after(() => {
  server.closeAllConnections()
  server.close()
  rmSync(folder, { recursive: true })
})

const options = {
  bytesMax: 10_000,
  deadlineMs: 5_000,
  allowPrivate: true,
  signal: new AbortController().signal,
}

test('a file, also after a redirect', async () => {
  assert.deepEqual(await download(`${base}/redirect`, target, options), { ok: true })
  assert.equal(readFileSync(target, 'utf8'), 'x'.repeat(1_000))
})

test('what cannot be downloaded comes back as a reason', async () => {
  const reason = async (url: string, more: Partial<typeof options> = {}): Promise<string> => {
    const outcome = await download(url, target, { ...options, ...more })
    assert.ok(!outcome.ok)
    return `${outcome.reason}${outcome.hostDown ? ' (host)' : ''}`
  }
  assert.match(await reason(`${base}/gone`), /status 404$/)
  assert.match(await reason(`${base}/loop`), /redirected more than 5 times$/)
  assert.match(
    await reason(`${base}/nowhere`),
    /redirected to what is no address$/,
    'no reason to ask the host for nothing more',
  )
  assert.match(await reason(`${base}/file`, { bytesMax: 999 }), /larger than 999 bytes$/)
  assert.match(await reason(`${base}/slow`, { deadlineMs: 100 }), /longer than 100 ms \(host\)$/)
  assert.match(await reason(`${base}/cut`), /connection|cannot be reached|ended/)
  assert.match(await reason('http://127.0.0.1:1/x'), /cannot be reached \(ECONNREFUSED\) \(host\)$/)
  assert.match(await reason('file:///etc/passwd'), /not an http/)
  assert.match(await reason('nonsense'), /not an http/)
  const stopped = AbortSignal.abort()
  assert.match(await reason(`${base}/file`, { signal: stopped }), /interrupted$/)
})

test('private addresses are refused, by number, by name and after a redirect', async () => {
  for (const host of [
    '127.0.0.1',
    'localhost',
    '[::1]',
    '10.0.0.1',
    '169.254.169.254',
    '[::ffff:127.0.0.1]',
    '[fd00::1]',
    '0x7f.1',
    '2130706433',
  ]) {
    const outcome = await download(`http://${host}:1/`, target, { ...options, allowPrivate: false })
    assert.ok(
      !outcome.ok && /private network/.test(outcome.reason),
      `${host}: ${JSON.stringify(outcome)}`,
    )
  }
  assert.deepEqual(
    ['8.8.8.8', '2606:4700::1111', '100.64.0.1', '::', 'nonsense', '::ffff:8.8.8.8'].map(
      isPrivateAddress,
    ),
    [false, false, true, true, true, false],
  )
})
