import { ListMultipartUploadsCommand, ListObjectsV2Command } from '@aws-sdk/client-s3'
import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { generated } from '#file-store/contract.ts'
import { S3FileStore } from '#file-store/drivers/s3.ts'
import { silentLogger } from '#lib/logger.ts'
import { parseS3Url } from '#lib/s3-url.ts'
import { createMedia } from '#media/create-media.ts'
import type { Media } from '#media/media.ts'
import { verifyFiles } from '#media/verify-files.ts'
import { databaseMissing, testDatabase } from '#test/support/database.ts'
import { startFaultProxy } from '#test/support/http-faults.ts'
import type { FaultProxy, HttpFault } from '#test/support/http-faults.ts'
import { AheadClock, editor } from '#test/support/media.ts'
import { radosgwMissing, startRadosgw } from '#test/support/s3.ts'

const skip = databaseMissing === false ? radosgwMissing : databaseMissing
const dayMs = 24 * 3_600_000
/** Sent whole, and sent in parts. */
const smallBytes = 100_000
const largeBytes = 34 * 1024 ** 2

type Uploading = AsyncDisposable & {
  readonly media: Media
  readonly network: FaultProxy
  /** Uploads that many bytes, which are others each time. */
  readonly upload: (bytes: number) => Promise<'done' | 'refused'>
  /** No row names a blob that is missing; and after the grace period nothing else is left. */
  readonly isWhole: () => Promise<void>
}

async function uploading(): Promise<Uploading> {
  const opened = new AsyncDisposableStack()
  const { database } = opened.use(await testDatabase())
  const s3 = opened.use(await startRadosgw())
  const network = opened.use(await startFaultProxy(s3.endpoint))
  const bucket = await s3.bucket()
  const folder = await mkdtemp(join(tmpdir(), 'stoa-faults-'))
  opened.defer(() => rm(folder, { recursive: true, force: true }))
  const clock = new AheadClock()
  const place = parseS3Url(bucket.url.replace(s3.endpoint, network.url))
  const store = new S3FileStore({ place, spoolFolder: folder, clock })
  opened.defer(() => store.close())
  await store.identity.claim('a test')
  const logger = silentLogger
  const media = createMedia({ database, fileStore: store, dataDir: folder, clock, logger })
  opened.defer(() => media.stop())
  let seed = 0
  const keys = async (): Promise<string[]> => {
    const Bucket = bucket.name
    const objects = await s3.client.send(new ListObjectsV2Command({ Bucket }))
    const uploads = await s3.client.send(new ListMultipartUploadsCommand({ Bucket }))
    return [...(objects.Contents ?? []), ...(uploads.Uploads ?? [])].map(({ Key = '' }) => Key)
  }
  const isWhole = async (): Promise<void> => {
    network.heal()
    clock.aheadMs = 2 * dayMs
    await media.collect({ olderThanMs: dayMs, dryRun: false })
    clock.aheadMs = 0
    const signal = new AbortController().signal
    const options = { quick: false, olderThanMs: 0, nowMs: Date.now(), signal }
    const onProgress = (): void => undefined
    const found = await verifyFiles({ database, store }, { ...options, onProgress })
    assert.deepEqual([found.missing, found.damaged], [[], []])
    const kept = (await keys()).filter((key) => key !== 'site/stoa-files')
    assert.equal(kept.length, found.checked, `what is left: ${kept.join(' ')}`)
  }
  return {
    media,
    network,
    upload: async (bytes) => {
      seed += 1
      const source = generated(seed, Math.ceil(bytes / 65_536))
      try {
        await media.upload(database, editor, { name: 'a.bin', source })
        return 'done'
      } catch (error) {
        assert.equal((error as { code?: unknown }).code, 'E_FILE_STORE_UNAVAILABLE', String(error))
        return 'refused'
      }
    },
    isWhole,
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  }
}

/** Breaks an upload at each of its requests in turn; returns how many there were. */
async function breakEach(at: Uploading, bytes: number, fault: HttpFault): Promise<number> {
  for (let request = 1; ; request += 1) {
    at.network.failFrom(request, fault)
    const outcome = await at.upload(bytes)
    if (outcome === 'done' && at.network.requests < request) {
      await at.isWhole()
      return request - 1
    }
    assert.equal(outcome, 'refused', `request ${request}`)
    // Collecting after each one would hide what a later one leaves behind.
    if (request % 3 === 0) await at.isWhole()
    at.network.heal()
  }
}

test(
  'an upload whose storage fails at any of its requests is refused, and leaves nothing for good',
  { skip },
  async (t) => {
    await using at = await uploading()
    for (const fault of ['reset', 'lost', 'error'] as const)
      t.diagnostic(`${fault}: ${await breakEach(at, smallBytes, fault)} requests`)
    t.diagnostic(`in parts, lost: ${await breakEach(at, largeBytes, 'lost')} requests`)
    at.network.failFrom(1, 'slow')
    assert.equal(await at.upload(smallBytes), 'done')
    await at.isWhole()
  },
)

test('a request that fails once is tried again, and the upload succeeds', { skip }, async () => {
  await using at = await uploading()
  for (let request = 1; request <= 4; request += 1) {
    at.network.failFrom(request, 'error')
    const upload = at.upload(smallBytes)
    while (at.network.requests < request) await new Promise((resolve) => setTimeout(resolve, 1))
    at.network.heal()
    assert.equal(await upload, 'done')
  }
  await at.isWhole()
})
