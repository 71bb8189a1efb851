import assert from 'node:assert/strict'
import { mkdir, mkdtemp, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { DiskFileStore } from '#file-store/drivers/disk.ts'
import { FileStoreWatch } from '#file-store/file-store-watch.ts'
import { PlacedFileStore } from '#file-store/placed-file-store.ts'
import { systemClock } from '#lib/clock.ts'
import { silentLogger } from '#lib/logger.ts'

test('a mount that goes, is another, and comes back is seen, with its reason', async () => {
  const root = await mkdtemp(join(tmpdir(), 'stoa-watch-'))
  try {
    const folder = join(root, 'files')
    await mkdir(folder)
    const disk = new DiskFileStore({ folder, mayCreateFolder: false, clock: systemClock })
    await disk.identity.claim('ours')
    const home = { identity: 'ours', open: null }
    const store = new PlacedFileStore(disk, async () => ({ revision: 1, home, target: null }))
    const watch = new FileStoreWatch(store, silentLogger)
    const isSoon = async (): Promise<boolean> => (await watch.look()) < 5_000
    assert.equal(await isSoon(), false)
    assert.deepEqual(watch.now, { state: 'up', address: folder, problem: null })
    await rename(folder, `${folder}-away`)
    assert.equal(await isSoon(), true)
    assert.match(watch.now.problem ?? '', /does not exist/)
    await mkdir(folder)
    await watch.look()
    assert.match(watch.now.problem ?? '', /it is empty: its file system is not mounted/)
    await writeFile(join(folder, 'stoa-files'), 'theirs\n')
    await watch.look()
    assert.match(watch.now.problem ?? '', /another file store/)
    await rm(folder, { recursive: true })
    await rename(`${folder}-away`, folder)
    assert.equal(await isSoon(), false)
    assert.equal(watch.now.state, 'up')
  } finally {
    await rm(root, { recursive: true })
  }
})
