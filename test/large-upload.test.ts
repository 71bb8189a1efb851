import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { request } from 'node:http'
import type { IncomingMessage } from 'node:http'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { test } from 'node:test'
import { generated } from '#file-store/contract.ts'
import { databaseMissing, testDatabase } from '#test/support/database.ts'
import { startNode, stoaProgram } from '#test/support/node.ts'
import type { RunningNode } from '#test/support/node.ts'

const bytes = 2 ** 30
const chunkBytes = 65_536
const warmBytes = 2 ** 27
const cutAfterBytes = 300_000_000
const growthMax = 100_000_000
const skip =
  databaseMissing === false && !existsSync('/proc/self/status')
    ? 'memory is read from /proc, which is not here'
    : databaseMissing

function residentBytes(node: RunningNode): number {
  return (
    Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${node.process.pid}/status`, 'utf8'))?.[1]) *
    1_024
  )
}

/** The same bytes each time, from `offset` on. */
function bytesFrom(offset: number): Readable {
  return Readable.from(
    (async function* () {
      let at = 0
      for await (const chunk of generated(1, bytes / chunkBytes)) {
        const data = chunk as Buffer
        if (at + data.length > offset) yield data.subarray(Math.max(0, offset - at))
        at += data.length
      }
    })(),
  )
}

test(
  '1 GB by tus: little memory, goes on after a cut, leaves nothing when deleted, stored once',
  { skip },
  async (t) => {
    await using db = await testDatabase()
    await using node = await startNode({
      environment: { STOA_DATABASE_URL: db.url, STOA_STARTER: 'false', STOA_LOG_LEVEL: 'warn' },
    })
    const made = execFileSync(
      process.execPath,
      [stoaProgram, '--json', 'token', 'create', 'test', '--role', 'administrator'],
      { env: { ...process.env, ...node.environment }, encoding: 'utf8' },
    )
    const common = {
      authorization: `Bearer ${(JSON.parse(made) as { token: string }).token}`,
      'tus-resumable': '1.0.0',
    }
    const call = async (
      method: string,
      path: string,
      headers: Record<string, string> = {},
    ): Promise<Response> =>
      fetch(`${node.origin}${path}`, { method, headers: { ...common, ...headers } })
    const create = async (): Promise<string> =>
      (await call('POST', '/api/uploads', { 'upload-length': String(bytes) })).headers.get(
        'location',
      )!
    /** `source` may end early: then the connection is cut. */
    const append = async (
      path: string,
      offset: number,
      source: Readable,
      length = bytes - offset,
    ): Promise<IncomingMessage | null> => {
      const sent = request(`${node.origin}${path}`, {
        method: 'PATCH',
        agent: false,
        headers: {
          ...common,
          'content-type': 'application/offset+octet-stream',
          'upload-offset': String(offset),
          'content-length': String(length),
        },
      })
      const received = new Promise<IncomingMessage | null>((resolve) =>
        sent.once('response', resolve).once('error', () => resolve(null)),
      )
      await pipeline(source, sent).catch(() => sent.destroy())
      return received
    }
    const files = async (): Promise<string[]> =>
      (await readdir(join(node.dataDir, 'files'), { recursive: true, withFileTypes: true }))
        .filter((entry) => entry.isFile() && !entry.name.startsWith('.'))
        .map((entry) => entry.name)

    // The compiler, the collector and the pools take their memory before the measurement begins.
    const deleted = await create()
    assert.equal(
      (await append(deleted, 0, generated(2, warmBytes / chunkBytes), warmBytes))?.statusCode,
      204,
    )
    const before = await files()
    assert.equal((await call('DELETE', deleted)).status, 204)
    assert.equal((await call('HEAD', deleted)).status, 404)
    assert.ok((await files()).length < before.length, 'the bytes of a deleted upload are gone')
    const [without, start] = [await files(), residentBytes(node)]
    let peak = start
    const sampling = setInterval(() => (peak = Math.max(peak, residentBytes(node))), 20)
    const ids: string[] = []
    try {
      for (const cut of [true, false]) {
        const upload = await create()
        let offset = 0
        if (cut) {
          let sent = 0
          const some = bytesFrom(0).map((chunk: Buffer) => {
            sent += chunk.length
            if (sent > cutAfterBytes) throw new Error('cut')
            return chunk
          })
          assert.equal(await append(upload, 0, some), null)
          offset = Number((await call('HEAD', upload)).headers.get('upload-offset'))
          assert.ok(
            offset > cutAfterBytes / 2 && offset < cutAfterBytes,
            `${offset} bytes were safe`,
          )
        }
        const done = await append(upload, offset, bytesFrom(offset))
        assert.equal(done?.statusCode, 204, done === null ? 'no response' : await text(done))
        ids.push(String(done?.headers['stoa-asset']))
      }
    } finally {
      clearInterval(sampling)
    }
    const blobs = await Promise.all(
      ids.map(
        async (id) =>
          (
            (await (await call('GET', `/api/assets/${id}`)).json()) as {
              data: { blob: string; bytes: number }
            }
          ).data,
      ),
    )
    assert.deepEqual(
      blobs.map((blob) => [blob.blob, blob.bytes]),
      [
        [blobs[0]!.blob, bytes],
        [blobs[0]!.blob, bytes],
      ],
    )
    assert.notEqual(ids[0], ids[1])
    assert.deepEqual(
      (await files()).filter((name) => !without.includes(name)).length,
      1,
      'equal bytes are there once',
    )
    t.diagnostic(`memory grew by ${Math.round((peak - start) / 1e6)} MB`)
    assert.ok(peak - start < growthMax, `grew by ${Math.round((peak - start) / 1e6)} MB`)
  },
)
