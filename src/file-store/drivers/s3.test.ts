import {
  CreateMultipartUploadCommand,
  DeleteBucketCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  UploadPartCommand,
} from '@aws-sdk/client-s3'
import assert from 'node:assert/strict'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { after, before, test } from 'node:test'
import { fileStoreContract, generated, HandClock, sha256 } from '#file-store/contract.ts'
import { S3FileStore } from '#file-store/drivers/s3.ts'
import { BlobNotFoundError, FileStoreUnavailableError } from '#file-store/errors.ts'
import type { Clock } from '#lib/clock.ts'
import { parseS3Url } from '#lib/s3-url.ts'
import { startProxy } from '#test/support/proxy.ts'
import { radosgwMissing, startRadosgw, startVersitygw, versitygwMissing } from '#test/support/s3.ts'
import type { TestBucket, TestS3 } from '#test/support/s3.ts'

const bytesMax = 1_000_000_000
const unreachable = 's3://stoa:stoa-secret@no-bucket?endpoint=http://127.0.0.1:9'

type Opened = AsyncDisposable & {
  readonly store: S3FileStore
  readonly spoolFolder: string
  readonly traces: () => Promise<string[]>
}

/** Every object and every unfinished upload of the bucket, but for the store's identity. */
async function tracesOf({ client }: TestS3, Bucket: string): Promise<string[]> {
  const objects = await client.send(new ListObjectsV2Command({ Bucket }))
  const uploads = await client.send(new ListMultipartUploadsCommand({ Bucket }))
  return [
    ...(objects.Contents ?? [])
      .map(({ Key = '' }) => Key)
      .filter((key) => key !== 'site/stoa-files'),
    ...(uploads.Uploads ?? []).map(({ Key = '', UploadId = '' }) => `${Key} ${UploadId}`),
  ].sort()
}

async function openStore(url: string, clock: Clock = new HandClock()): Promise<Opened> {
  const spoolFolder = await mkdtemp(join(tmpdir(), 'stoa-spool-'))
  const store = new S3FileStore({ place: parseS3Url(url), spoolFolder, clock })
  return {
    store,
    spoolFolder,
    traces: () => readdir(spoolFolder),
    [Symbol.asyncDispose]: async () => {
      await store.close()
      await rm(spoolFolder, { recursive: true, force: true })
    },
  }
}

async function claimed(s3: TestS3, bucket: TestBucket, clock?: Clock): Promise<Opened> {
  const opened = await openStore(bucket.url, clock)
  await opened.store.identity.claim('a store of this test')
  const traces = async (): Promise<string[]> => [
    ...(await tracesOf(s3, bucket.name)),
    ...(await opened.traces()),
  ]
  return { ...opened, traces }
}

function s3Tests(name: string, start: () => Promise<TestS3>, skip: string | false): void {
  let s3: TestS3
  before(async () => {
    if (skip === false) s3 = await start()
  })
  after(async () => s3?.[Symbol.asyncDispose]())

  fileStoreContract(name, async (clock) => claimed(s3, await s3.bucket(), clock), skip)

  test(`${name}: a blob of many parts comes back whole, and ranges of it`, { skip }, async () => {
    const bucket = await s3.bucket()
    await using opened = await claimed(s3, bucket)
    const { store } = opened
    const blob = await store.put(generated(1, 700, 65_536), { bytesMax })
    const whole = await buffer(generated(1, 700, 65_536))
    assert.deepEqual(blob, { id: sha256(whole), bytes: whole.length })
    assert.equal(sha256(await buffer(await store.get(blob.id))), blob.id)
    const [start, end] = [8_388_000, 17_000_000]
    const range = await buffer(await store.get(blob.id, { start, end }))
    assert.ok(range.equals(whole.subarray(start, end + 1)))
    assert.deepEqual(await opened.traces(), [`site/blobs/${blob.id}`])
  })

  test(`${name}: remains of dead processes go after their time`, { skip }, async () => {
    const bucket = await s3.bucket()
    await using opened = await claimed(s3, bucket)
    const { store } = opened
    const at = (key: string) => ({ Bucket: bucket.name, Key: `site/${key}` })
    const id = sha256('half')
    const { UploadId } = await s3.client.send(new CreateMultipartUploadCommand(at(`blobs/${id}`)))
    const part = { ...at(`blobs/${id}`), UploadId, PartNumber: 1, Body: Buffer.alloc(5_242_880) }
    await s3.client.send(new UploadPartCommand(part))
    await s3.client.send(new PutObjectCommand({ ...at('check/1'), Body: 'stoa' }))
    assert.equal((await opened.traces()).length, 2)
    const [past, future] = [Date.now() - 3_600_000, Date.now() + 3_600_000]
    assert.equal(await store.prune({ writtenBeforeMs: past, dryRun: false }), 0)
    assert.equal(await store.prune({ writtenBeforeMs: future, dryRun: true }), 2)
    assert.equal((await opened.traces()).length, 2)
    assert.equal(await store.prune({ writtenBeforeMs: future, dryRun: false }), 2)
    assert.deepEqual(await opened.traces(), [])
  })

  test(
    `${name}: a put waits for a delete that is under way, and for one that died only a while`,
    { skip },
    async () => {
      const bucket = await s3.bucket()
      const clock = new HandClock()
      await using opened = await claimed(s3, bucket, clock)
      const { store } = opened
      const id = sha256('again')
      const put = async () => store.put(Readable.from([Buffer.from('again')]), { bytesMax })
      const mark = async (ms: number): Promise<void> => {
        const Key = `site/deleting/${id}.${ms}.00`
        await s3.client.send(new PutObjectCommand({ Bucket: bucket.name, Key, Body: 'x' }))
      }
      await mark(clock.ms - 21 * 60_000)
      await put()
      await mark(clock.ms)
      let isDone = false
      const waiting = put().then(() => (isDone = true))
      await new Promise((resolve) => setTimeout(resolve, 500))
      assert.equal(isDone, false)
      clock.ms += 21 * 60_000
      await waiting
    },
  )

  test(
    `${name}: nothing is written to a bucket without an identity, or of another`,
    { skip },
    async () => {
      const bucket = await s3.bucket()
      await using opened = await openStore(bucket.url)
      const { store } = opened
      assert.equal(await store.identity.read(), null)
      const source = generated(1, 1)
      await assert.rejects(store.put(source, { bytesMax }), /is not a file store/)
      assert.ok(source.destroyed)
      await assert.rejects(store.check(AbortSignal.timeout(5_000)), FileStoreUnavailableError)
      assert.deepEqual(await tracesOf(s3, bucket.name), [])
      await store.identity.claim('the first')
      const { id } = await store.put(generated(1, 1), { bytesMax })
      const identity = { Bucket: bucket.name, Key: 'site/stoa-files' }
      await s3.client.send(new PutObjectCommand({ ...identity, Body: 'another\n' }))
      await assert.rejects(store.delete(id, { writtenBeforeMs: 9e15 }), /another file store/)
      await assert.rejects(store.get(sha256('unknown')), /another file store/)
      assert.equal((await buffer(await store.get(id))).length, 65_536)
    },
  )

  test(`${name}: each refusal says what to do`, { skip }, async () => {
    const bucket = await s3.bucket()
    const own = new URL(bucket.url)
    const variant = (change: (url: URL) => void): string => {
      const url = new URL(own)
      change(url)
      return url.href
    }
    const cases = [
      [variant((url) => (url.password = 'wrong')), /the key or its secret is wrong/],
      [variant((url) => (url.username = 'unknown')), /the key or its secret is wrong/],
      [variant((url) => (url.hostname = 'there-is-none')), /there is no such bucket; make it/],
      [unreachable, /it cannot be reached/],
    ] as const
    for (const [url, message] of cases) {
      await using opened = await openStore(url)
      const { store } = opened
      for (const call of [
        () => store.identity.read(),
        () => store.identity.claim('x'),
        () => store.put(generated(1, 1), { bytesMax }),
        () => store.get(sha256('x')),
        () => store.check(AbortSignal.timeout(10_000)),
      ])
        await assert.rejects(call, (error) => {
          assert.ok(error instanceof FileStoreUnavailableError, String(error))
          assert.match(error.message, message)
          assert.ok(!error.message.includes('stoa-secret'))
          return true
        })
    }
  })

  test(
    `${name}: a bucket that is gone is unavailable, and no blob is missing from it`,
    { skip },
    async () => {
      const bucket = await s3.bucket()
      await using opened = await claimed(s3, bucket)
      const { store } = opened
      await assert.rejects(store.info(sha256('x')), BlobNotFoundError)
      const Bucket = bucket.name
      await s3.client.send(new PutObjectCommand({ Bucket, Key: 'site/stoa-files', Body: ' ' }))
      await assert.rejects(store.info(sha256('x')), FileStoreUnavailableError)
      const emptied = await s3.bucket()
      await s3.client.send(new DeleteBucketCommand({ Bucket: emptied.name }))
      await using gone = await openStore(emptied.url)
      await assert.rejects(gone.store.info(sha256('x')), /there is no such bucket/)
    },
  )

  test(
    `${name}: a black hole is unavailable within the deadline, and comes back`,
    { skip },
    async () => {
      const bucket = await s3.bucket()
      await using network = await startProxy(s3.endpoint)
      const url = bucket.url.replace(s3.endpoint, network.url.replace(/\/$/, ''))
      await using opened = await openStore(url)
      const { store } = opened
      await store.identity.claim('x')
      const { id } = await store.put(generated(1, 1), { bytesMax })
      network.silence()
      const fromMs = performance.now()
      await assert.rejects(store.get(id), /does not respond in time/)
      const tookMs = performance.now() - fromMs
      assert.ok(tookMs < 15_000, `took ${Math.round(tookMs)} ms`)
      network.cut()
      assert.equal((await buffer(await store.get(id))).length, 65_536)
    },
  )
}

s3Tests('radosgw', startRadosgw, radosgwMissing)
s3Tests('versitygw', startVersitygw, versitygwMissing)
