import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import {
  mkdir,
  mkdtemp,
  readdir,
  rename,
  rm,
  stat,
  truncate,
  utimes,
  writeFile,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { test } from 'node:test'
import { promisify } from 'node:util'
import type { Clock } from '#lib/clock.ts'
import { fileStoreContract, generated, HandClock, sha256 } from '#file-store/contract.ts'
import { DiskFileStore } from '#file-store/drivers/disk.ts'
import { FileStoreUnavailableError } from '#file-store/errors.ts'

const bytesMax = 1_000_000

async function folder(): Promise<AsyncDisposable & { path: string }> {
  const path = await mkdtemp(join(tmpdir(), 'stoa-files-'))
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) }
}

async function openStore(folder: string, clock: Clock = new HandClock()): Promise<DiskFileStore> {
  const store = new DiskFileStore({ folder, mayCreateFolder: true, clock })
  await store.identity.claim('a store of this test')
  return store
}

async function traces(path: string): Promise<string[]> {
  const entries = await readdir(path, { recursive: true, withFileTypes: true })
  return entries
    .filter((entry) => entry.isFile() && entry.name !== 'stoa-files')
    .map((entry) => join(entry.parentPath, entry.name).slice(path.length))
    .sort()
}

fileStoreContract('disk', async (clock) => {
  const place = await folder()
  const path = join(place.path, 'files')
  return {
    store: await openStore(path, clock),
    traces: () => traces(path).catch(() => []),
    [Symbol.asyncDispose]: () => place[Symbol.asyncDispose](),
  }
})

test('disk: a blob counts as written at its last put, in the list too', async () => {
  await using place = await folder()
  const clock = new HandClock()
  const store = await openStore(place.path, clock)
  await store.put(generated(1, 1), { bytesMax })
  clock.ms += 5_000
  await store.put(generated(1, 1), { bytesMax })
  const times: number[] = []
  for await (const blob of store.list()) times.push(blob.writtenAtMs)
  assert.deepEqual(times, [clock.ms])
})

test('disk: a folder that disappears is unavailable and not made anew', async () => {
  await using place = await folder()
  const path = join(place.path, 'files')
  const store = await openStore(path)
  const blob = await store.put(generated(1, 1), { bytesMax })
  await rename(path, `${path}-unmounted`)
  await mkdir(path)
  for (const call of [
    () => store.get(blob.id),
    () => store.info(blob.id),
    () => store.put(generated(1, 1), { bytesMax }),
    () => store.delete(blob.id),
    () => store.check(AbortSignal.timeout(5_000)),
  ]) {
    await assert.rejects(call, FileStoreUnavailableError)
  }
  assert.deepEqual(await traces(path), [])
  await rm(path, { recursive: true })
  await rename(`${path}-unmounted`, path)
  assert.equal((await buffer(await store.get(blob.id))).length, 65_536)
})

test('disk: a folder that cannot be used is unavailable with the reason', async () => {
  await using place = await folder()
  const path = join(place.path, 'files')
  await writeFile(path, 'a file, no folder')
  const store = new DiskFileStore({
    folder: path,
    mayCreateFolder: true,
    clock: new HandClock(),
  })
  const source = generated(1, 3)
  await assert.rejects(
    store.put(source, { bytesMax }),
    (error) => error instanceof FileStoreUnavailableError && error.facts['reason'] !== undefined,
  )
  assert.ok(source.destroyed)
  await assert.rejects(store.identity.claim('x'), FileStoreUnavailableError)
  await rm(path)
  await store.identity.claim('x')
  await store.put(generated(1, 3), { bytesMax })
})

test('disk: nothing is written to a folder without an identity', async () => {
  await using place = await folder()
  const path = join(place.path, 'files')
  const options = { folder: path, clock: new HandClock() }
  const mounted = new DiskFileStore({ ...options, mayCreateFolder: false })
  await assert.rejects(mounted.identity.read(), FileStoreUnavailableError)
  await assert.rejects(mounted.identity.claim('x'), FileStoreUnavailableError)
  assert.deepEqual(await readdir(place.path), [], 'no folder was made')
  await mkdir(path)
  assert.equal(await mounted.identity.read(), null)
  await assert.rejects(mounted.put(generated(1, 1), { bytesMax }), FileStoreUnavailableError)
  assert.deepEqual(await readdir(path), [], 'nothing was written')
  assert.equal(await mounted.identity.claim('first'), 'first')
  const second = new DiskFileStore({ ...options, mayCreateFolder: true })
  assert.equal(await second.identity.claim('second'), 'first')
  const { id } = await second.put(generated(1, 1), { bytesMax })
  await writeFile(join(path, 'stoa-files'), 'another file system\n')
  await assert.rejects(second.put(generated(2, 1), { bytesMax }), FileStoreUnavailableError)
  await assert.rejects(second.delete(id), FileStoreUnavailableError)
})

test('disk: files and folders are closed to other users of the machine', async () => {
  await using place = await folder()
  const path = join(place.path, 'files')
  const store = await openStore(path)
  const { id } = await store.put(generated(1, 1), { bytesMax })
  const modeOf = async (...names: string[]): Promise<number> =>
    (await stat(join(path, ...names))).mode & 0o777
  const [outer, inner] = [id.slice(0, 2), id.slice(2, 4)]
  assert.deepEqual(
    [await modeOf(), await modeOf('tmp'), await modeOf(outer), await modeOf(outer, inner)],
    [0o700, 0o700, 0o700, 0o700],
  )
  assert.deepEqual([await modeOf('stoa-files'), await modeOf(outer, inner, id)], [0o600, 0o600])
})

const failingWriter = `
  import { Readable } from 'node:stream'
  import { DiskFileStore } from '#file-store/drivers/disk.ts'
  import { systemClock } from '#lib/clock.ts'
  process.on('SIGXFSZ', () => undefined)
  const folder = process.argv[1]
  const store = new DiskFileStore({ folder, mayCreateFolder: true, clock: systemClock })
  await store.identity.claim('x')
  const source = Readable.from([Buffer.alloc(40_000), Buffer.alloc(40_000)])
  const error = await store.put(source, { bytesMax: 1e6 }).catch((error) => error)
  process.stdout.write(JSON.stringify({ code: error.code, reason: error.facts?.reason }))
`

test(
  'disk: a write that fails halfway is "unavailable" and leaves nothing',
  { skip: process.platform === 'linux' ? false : 'needs ulimit -f in KiB' },
  async () => {
    await using place = await folder()
    const { stdout } = await promisify(execFile)('bash', [
      '-c',
      'ulimit -f 64; exec "$0" --input-type=module -e "$1" "$2"',
      process.execPath,
      failingWriter,
      place.path,
    ])
    assert.deepEqual(JSON.parse(stdout), { code: 'E_FILE_STORE_UNAVAILABLE', reason: 'EFBIG' })
    assert.deepEqual(await traces(place.path), [])
  },
)

test('disk: remains of a dead process go after their time, and moved blobs come back', async () => {
  await using place = await folder()
  const clock = new HandClock()
  const store = await openStore(place.path, clock)
  await store.check(AbortSignal.timeout(5_000))
  const leave = async (name: string, text: string, ageMs: number): Promise<void> => {
    const path = join(place.path, 'tmp', name)
    await writeFile(path, text)
    await utimes(path, (clock.ms - ageMs) / 1_000, (clock.ms - ageMs) / 1_000)
  }
  const moved = `${sha256('moved')}.${clock.ms - 100_000}.0.trash`
  const moving = `${sha256('moving')}.${clock.ms - 1_000}.0.trash`
  await leave('old.part', 'half', 100_000)
  await leave('young.part', 'half', 1_000)
  await leave(moved, 'moved', 1_000_000)
  await leave(moving, 'moving', 1_000_000)
  const writtenBeforeMs = clock.ms - 50_000
  assert.equal(await store.prune({ writtenBeforeMs, dryRun: true }), 1)
  assert.equal((await traces(place.path)).length, 4)
  assert.equal(await store.prune({ writtenBeforeMs, dryRun: false }), 1)
  const id = sha256('moved')
  assert.deepEqual(
    await traces(place.path),
    [`/${id.slice(0, 2)}/${id.slice(2, 4)}/${id}`, '/tmp/young.part', `/tmp/${moving}`].sort(),
  )
  assert.equal((await buffer(await store.get(id))).toString(), 'moved')
})

test('disk: a blob that was cut short is healed by the next put of its bytes', async () => {
  await using place = await folder()
  const store = await openStore(place.path)
  const { id } = await store.put(Readable.from([Buffer.from('whole')]), { bytesMax })
  await truncate(join(place.path, id.slice(0, 2), id.slice(2, 4), id), 2)
  await store.put(Readable.from([Buffer.from('whole')]), { bytesMax })
  assert.equal((await buffer(await store.get(id))).toString(), 'whole')
})

test("disk: two nodes on one folder see each other's blobs", async () => {
  await using place = await folder()
  const clock = new HandClock()
  const [one, two] = [await openStore(place.path, clock), await openStore(place.path, clock)]
  const blobs = await Promise.all(
    [one, two, one, two].map((store) => store.put(generated(3, 4), { bytesMax })),
  )
  assert.equal((await buffer(await two.get(blobs[0]!.id))).length, 4 * 65_536)
  assert.equal((await traces(place.path)).length, 1)
})
