import assert from 'node:assert/strict'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { readConfig } from '#config/config.ts'
import type { Database } from '#database/database.ts'
import { DiskFileStore } from '#file-store/drivers/disk.ts'
import { BlobNotFoundError } from '#file-store/errors.ts'
import type { FileStore } from '#file-store/file-store.ts'
import { PlacedFileStore } from '#file-store/placed-file-store.ts'
import { systemClock } from '#lib/clock.ts'
import { silentLogger } from '#lib/logger.ts'
import { createMedia } from '#media/create-media.ts'
import type { Media } from '#media/media.ts'
import { verifyFiles } from '#media/verify-files.ts'
import { DatabaseClock } from '#node/database-clock.ts'
import { FileMoveError, FilesMismatchError } from '#node/errors.ts'
import { checkFileStore, claimFileStore } from '#node/file-store-check.ts'
import { moveFiles, replyAboutFiles } from '#node/file-move.ts'
import type { MoveReport } from '#node/file-move.ts'
import { readPlacement } from '#node/file-placement.ts'
import type { Foundation } from '#node/foundation.ts'
import { databaseMissing, testDatabase } from '#test/support/database.ts'
import { Fault, FaultyFileStore } from '#test/support/faulty-file-store.ts'
import { editor } from '#test/support/media.ts'

const skip = databaseMissing
const secret = 'the secret of this cluster, which is long enough'

type Ground = AsyncDisposable & {
  readonly database: Database
  readonly path: (name: string) => string
  /** A node or a command that is configured for that folder; its stores have that fault. */
  readonly node: (name: string, fault?: Fault) => Promise<Node>
  readonly folder: (name: string) => DiskFileStore
}

type Node = {
  readonly foundation: Foundation
  readonly store: PlacedFileStore
  readonly media: Media
  readonly move: (to: string, nodes?: readonly Node[]) => Promise<MoveReport>
}

async function ground(): Promise<Ground> {
  const opened = new AsyncDisposableStack()
  const db = opened.use(await testDatabase())
  const { database } = db
  const root = await mkdtemp(join(tmpdir(), 'stoa-move-'))
  opened.defer(() => rm(root, { recursive: true, force: true }))
  const path = (name: string): string => join(root, name)
  const folder = (name: string): DiskFileStore =>
    new DiskFileStore({ folder: path(name), mayCreateFolder: false, clock: systemClock })
  const node = async (name: string, fault?: Fault): Promise<Node> => {
    const faulty = (store: FileStore): FileStore =>
      fault === undefined ? store : new FaultyFileStore(store, fault)
    const filesUrl = pathToFileURL(path(name)).href
    const openFiles = async (url: string): Promise<FileStore> =>
      faulty(folder(decodeURIComponent(new URL(url).pathname).slice(root.length + 1)))
    const configured = faulty(folder(name))
    const placement = { database, configured, secret: async () => secret, open: openFiles }
    const store = new PlacedFileStore(configured, () => readPlacement(placement))
    const { config } = readConfig({ file: { filesUrl, secret }, environment: {}, flags: {} })
    const foundation: Foundation = {
      config,
      logger: silentLogger,
      dataDir: path('data'),
      url: db.url,
      database,
      fileStore: store,
      openFiles,
      clock: await DatabaseClock.read(database),
    }
    const media = createMedia({
      database,
      fileStore: store,
      dataDir: path('data'),
      clock: systemClock,
      logger: silentLogger,
    })
    opened.defer(() => media.stop())
    return { foundation, store, media, move: (to, nodes = []) => move(foundation, to, nodes) }
  }
  const move = async (
    foundation: Foundation,
    to: string,
    nodes: readonly Node[],
  ): Promise<MoveReport> =>
    moveFiles(foundation, {
      to: pathToFileURL(path(to)).href,
      leaveDamaged: false,
      signal: new AbortController().signal,
      ask: (payload) =>
        Promise.all(
          nodes.map(async (one, index) => ({
            node: String(index),
            name: `node-${index}`,
            ok: true as const,
            value: await replyAboutFiles(one.foundation, payload),
          })),
        ),
      onProgress: () => undefined,
    })
  for (const name of ['old', 'new']) await mkdir(path(name))
  await claimFileStore({ database, fileStore: folder('old') })
  return { database, path, folder, node, [Symbol.asyncDispose]: () => opened.disposeAsync() }
}

async function upload(media: Media, database: Database, text: string): Promise<string> {
  const source = Readable.from([Buffer.from(text)])
  return (await media.upload(database, editor, { name: 'a.txt', source })).id
}

async function read(media: Media, database: Database, id: string): Promise<string> {
  const asset = await media.find(database, id)
  return (await buffer(await media.original(asset).open())).toString()
}

async function isWhole(database: Database, store: FileStore): Promise<void> {
  const report = await verifyFiles(
    { database, store },
    {
      quick: false,
      olderThanMs: 0,
      nowMs: Date.now(),
      signal: new AbortController().signal,
      onProgress: () => undefined,
    },
  )
  assert.deepEqual([report.missing, report.damaged], [[], []])
}

test(
  'a move takes every file along, ends with the identity, and nodes follow without a restart',
  { skip },
  async () => {
    await using at = await ground()
    const { database } = at
    const [one, two] = [await at.node('old'), await at.node('old')]
    const ids: string[] = []
    for (let n = 0; n < 30; n += 1) ids.push(await upload(one.media, database, `file ${n}`))
    const report = await (await at.node('old')).move('new', [one, two])
    assert.equal(report.isFinished, true)
    assert.deepEqual([report.copied, report.unconfirmed], [30, []])
    await isWhole(database, at.folder('new'))
    await rm(at.path('old'), { recursive: true })
    for (const [n, id] of ids.entries())
      assert.equal(await read(two.media, database, id), `file ${n}`)
    await checkFileStore({ database, fileStore: at.folder('new') })
    await assert.rejects(checkFileStore({ database, fileStore: at.folder('old') }))
    await upload(one.media, database, 'after')
    await isWhole(database, at.folder('new'))
    await mkdir(at.path('old'))
    await assert.rejects(
      checkFileStore({ database, fileStore: at.folder('old') }),
      FilesMismatchError,
    )
  },
)

test(
  'a node that sleeps through the whole move makes no reference to a file that is left behind',
  { skip },
  async () => {
    await using at = await ground()
    const { database } = at
    const asleep = await at.node('old')
    await upload(asleep.media, database, 'known')
    const input = { name: 'b.txt', source: Readable.from([Buffer.from('received before')]) }
    const before = await asleep.media.receive(editor, input)
    const text = 'received before, and named while it moves'
    const during = await asleep.media.receive(editor, {
      name: 'c.txt',
      source: Readable.from([Buffer.from(text)]),
    })
    // The move begins and is interrupted before it has copied anything: it is `moving` now.
    const fault = new Fault(4, 'before')
    await assert.rejects((await at.node('old', fault)).move('new'), /the process has died/)
    const named = await asleep.media.create(database, editor, during)
    assert.equal((await buffer(await at.folder('new').get(named.blob))).toString(), text)
    await (await at.node('old')).move('new')
    await asleep.media.create(database, editor, before)
    await isWhole(database, at.folder('new'))
    const id = await upload(asleep.media, database, 'after it woke up')
    assert.equal(await read(asleep.media, database, id), 'after it woke up')
    await isWhole(database, at.folder('new'))
  },
)

test(
  'killed at each call of a store, before and after it takes effect, the move is taken up again',
  { skip },
  async (t) => {
    await using at = await ground()
    const { database } = at
    const reader = await at.node('old')
    const ids: string[] = []
    for (let n = 0; n < 4; n += 1) ids.push(await upload(reader.media, database, `file ${n}`))
    const sides = ['old', 'new']
    let deaths = 0
    for (let round = 0; round < 2; round += 1) {
      const when = round === 0 ? 'before' : 'after'
      const [from, to] = round === 0 ? sides : sides.toReversed()
      for (let call = 1; ; call += 1) {
        const fault = new Fault(call, when)
        const outcome = await (
          await at.node(from!, fault)
        )
          .move(to!)
          .then((report) => (report.isFinished ? 'done' : 'open'))
          .catch((error: Error) => error.message)
        for (const [n, id] of ids.entries())
          assert.equal(await read(reader.media, database, id), `file ${n}`, outcome)
        if (outcome === 'done' && !fault.hasHappened) break
        assert.match(outcome, /the process has died|there already|is under way/)
        deaths += 1
        if (outcome.includes('there already')) break
      }
      await isWhole(database, at.folder(to!))
    }
    assert.ok(deaths > 10, `it died ${deaths} times`)
    t.diagnostic(`it died ${deaths} times`)
  },
)

test('a damaged file keeps the move open; one that is missing does not', { skip }, async () => {
  await using at = await ground()
  const { database } = at
  const { media, move } = await at.node('old')
  const find = async (text: string) => media.find(database, await upload(media, database, text))
  const [whole, damaged, missing] = [await find('whole'), await find('damage'), await find('gone')]
  const place = (id: string): string => join(at.path('old'), id.slice(0, 2), id.slice(2, 4), id)
  await writeFile(place(damaged.blob), 'DAMAGE')
  await rm(place(missing.blob))
  const open = await move('new')
  assert.equal(open.isFinished, false)
  assert.deepEqual(
    [open.copied, open.damaged.map(({ id }) => id), open.missing.map(({ id }) => id)],
    [1, [damaged.blob], [missing.blob]],
  )
  assert.deepEqual(open.damaged[0]!.assets, [damaged.id])
  await writeFile(place(damaged.blob), 'damage')
  const ended = await move('new')
  assert.deepEqual([ended.isFinished, ended.copied, ended.there], [true, 1, 1])
  assert.equal(await read(media, database, whole.id), 'whole')
  await assert.rejects(read(media, database, missing.id), BlobNotFoundError)
})

test(
  'a move begins only where every node sees the target, and the target is not of another site',
  { skip },
  async () => {
    await using at = await ground()
    await using other = await ground()
    const { database } = at
    const one = await at.node('old')
    const blind: Node = { ...one, foundation: { ...one.foundation, openFiles: () => missing() } }
    const missing = async (): Promise<FileStore> => {
      await mkdir(at.path('not mounted'), { recursive: true })
      return at.folder('not mounted')
    }
    await assert.rejects(one.move('new', [one, blind]), (error) => {
      assert.ok(error instanceof FileMoveError)
      assert.match(error.message, /Nothing was begun, .* node-1: it sees another place there/)
      return true
    })
    const id = await upload(one.media, database, 'stays')
    assert.equal(
      (await buffer(await at.folder('old').get((await one.media.get(id)).blob))).length,
      5,
    )
    await assert.rejects(one.move('old'), /STOA_FILES_URL and --to are one place/)
    await rm(at.path('new'), { recursive: true })
    await mkdir(at.path('new'))
    await claimFileStore({ database: other.database, fileStore: other.folder('old') }).catch(
      () => undefined,
    )
    await writeFile(join(at.path('new'), 'stoa-files'), 'the identity of another site\n')
    await assert.rejects(one.move('new'), FilesMismatchError)
  },
)
