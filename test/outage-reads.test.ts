import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import sharp from 'sharp'
import { databaseMissing, testDatabase } from '#test/support/database.ts'
import { startNode, stoaProgram, withoutSettings } from '#test/support/node.ts'
import { startProxy } from '#test/support/proxy.ts'

const leaseMs = 1_000
/**
 * What a read of something known takes. Tests share their machine, so the best of a few tries
 * has to keep it; a read that waits for the database keeps it in none.
 */
const knownWithinMs = 50
const tries = 5
/** No try takes as long as a wait for the database would. */
const slowestMs = leaseMs / 2
const unknownWithinMs = 2 * leaseMs + 500

type Read = { readonly status: number; readonly ms: number; readonly marked: boolean }

test(
  'during an outage, cached content is served and marked, and the rest refused within two leases',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase({ migrated: false })
    await using network = await startProxy(db.url)
    await using node = await startNode({
      environment: { STOA_DATABASE_URL: network.url, STOA_LEASE_MS: String(leaseMs) },
    })
    const made = execFileSync(
      process.execPath,
      [stoaProgram, '--json', 'token', 'create', 'administrator', '--role', 'administrator'],
      {
        env: { ...withoutSettings, ...node.environment, STOA_DATABASE_URL: db.url },
        encoding: 'utf8',
      },
    )
    const { token } = JSON.parse(made) as { token: string }
    const form = new FormData()
    const image = await sharp({
      create: { width: 100, height: 100, channels: 3, background: '#336699' },
    })
      .png()
      .toBuffer()
    form.append('file', new Blob([new Uint8Array(image)]), 'picture.png')
    const uploaded = await fetch(`${node.origin}/api/assets`, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}` },
      body: form,
    })
    const text = await uploaded.text()
    assert.equal(uploaded.status, 201, text)
    const { data } = JSON.parse(text) as { data: { url: string }[] }
    const { url } = data[0]!
    const read = async (path: string, signedIn = false): Promise<Read> => {
      const fromMs = performance.now()
      const response = await fetch(`${node.origin}${path}`, {
        headers: signedIn ? { authorization: `Bearer ${token}` } : {},
      })
      await response.arrayBuffer()
      const marked = (response.headers.get('cache-status') ?? '').includes('stale')
      return { status: response.status, ms: performance.now() - fromMs, marked }
    }
    const known = [
      ['/', false],
      ['/openapi.json', false],
      ['/api/types', false],
      ['/api/types/page', false],
      ['/api/locales', false],
      ['/api/session', true],
      ['/api/content/page', false],
      ['/api/content/page', true],
      [url, false],
      [`${url}?width=64`, false],
    ] as const
    for (const [path, signedIn] of known) await read(path, signedIn)
    network.silence()
    await sleep(2.5 * leaseMs)
    for (const [path, signedIn] of known) {
      const took: number[] = []
      for (let count = 0; count < tries; count += 1) {
        const { status, ms, marked } = await read(path, signedIn)
        assert.equal(status, 200, path)
        assert.ok(marked, `${path} is not marked as stale`)
        took.push(Math.round(ms))
      }
      assert.ok(Math.min(...took) < knownWithinMs, `${path} took ${took.join(', ')} ms`)
      assert.ok(Math.max(...took) < slowestMs, `${path} took ${took.join(', ')} ms`)
    }
    for (const path of ['/api/content/page?limit=3', '/api/users', '/api/releases']) {
      const { status, ms } = await read(path, true)
      assert.ok(status === 503, `${path}: ${status}`)
      assert.ok(ms < unknownWithinMs, `${path} took ${Math.round(ms)} ms`)
    }
    network.heal()
  },
)
