import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { chmodSync, closeSync, mkdtempSync, openSync, rmSync, statSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { startEmbeddedPostgres } from '#embedded-postgres/embedded-postgres.ts'
import { EmbeddedDatabaseError } from '#embedded-postgres/errors.ts'
import { silentLogger as logger } from '#lib/logger.ts'
import { embeddedMissing } from '#test/support/embedded.ts'

const chunk = Buffer.alloc(64 * 1024)

/** A file system of its own, which has to be mounted. */
function mountSmall(size: string): ({ path: string } & Disposable) | null {
  const path = mkdtempSync(join(tmpdir(), 'stoa-full-'))
  const options = ['-t', 'tmpfs', '-o', `size=${size},mode=0755`, 'tmpfs', path]
  if (spawnSync('mount', options).status !== 0) {
    rmSync(path, { recursive: true })
    return null
  }
  return {
    path,
    [Symbol.dispose]: () => {
      spawnSync('umount', [path])
      rmSync(path, { recursive: true, force: true })
    },
  }
}

/** Writes until nothing more fits. */
function fill(path: string): void {
  const file = openSync(path, 'w')
  try {
    for (const size of [chunk.length, 512])
      try {
        for (;;) writeSync(file, chunk, 0, size)
      } catch (error) {
        assert.equal((error as NodeJS.ErrnoException).code, 'ENOSPC')
      }
  } finally {
    closeSync(file)
  }
}

async function refused(dataDir: string): Promise<void> {
  await assert.rejects(
    startEmbeddedPostgres({ dataDir, logger }),
    (error: unknown) =>
      error instanceof EmbeddedDatabaseError &&
      error.facts['reason'] === 'diskFull' &&
      /the disk is full\. Make room, or set STOA_DATA/.test(error.message),
  )
}

const probe = embeddedMissing() === false ? mountSmall('1m') : null
const canMount = probe !== null
probe?.[Symbol.dispose]()
const skip = embeddedMissing() || (canMount ? false : 'a small file system cannot be mounted here')

test('a full disk is named, before the first start and later', { skip }, async () => {
  using small = mountSmall('20m')!
  chmodSync(small.path, 0o755)
  await refused(small.path)

  using disk = mountSmall('200m')!
  await (await startEmbeddedPostgres({ dataDir: disk.path, logger })).stop()
  const ballast = join(disk.path, 'ballast')
  fill(ballast)
  assert.ok(statSync(ballast).size > 0)
  await refused(disk.path)
  rmSync(ballast)
  await (await startEmbeddedPostgres({ dataDir: disk.path, logger })).stop()
})
