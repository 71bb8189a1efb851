import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import { databaseMissing, freePort, testDatabase } from '#test/support/database.ts'
import { problemOf, startFileLoad, stoaOf, tokenOf, uploadFile } from '#test/support/file-load.ts'
import type { StoredFile } from '#test/support/file-load.ts'
import { startNode, stoaProgram, temporaryFolder, withoutSettings } from '#test/support/node.ts'
import type { RunningNode } from '#test/support/node.ts'
import { radosgwMissing, startRadosgw } from '#test/support/s3.ts'

const skip = databaseMissing === false ? radosgwMissing : databaseMissing
const deadlineMs = 120_000
const filesBefore = 60
const fileBytes = 200_000
/** The command is killed so long after its start, then once more, and then it may end. */
const killAfterMs = [1_500, 2_500]

type Environment = Readonly<Record<string, string>>

test(
  'the files of two nodes move from a folder to a bucket under load, killed twice: no read fails',
  { skip },
  async (t) => {
    await using db = await testDatabase({ migrated: false })
    await using s3 = await startRadosgw()
    await using folder = await temporaryFolder()
    const files = join(folder.path, 'files')
    await mkdir(files)
    const { url: bucket } = await s3.bucket()
    const environment = {
      STOA_DATABASE_URL: db.url,
      STOA_FILES_URL: pathToFileURL(files).href,
      STOA_STARTER: 'false',
    }
    await using one = await startNode({ environment: { ...environment, STOA_NODE: 'one' } })
    await using two = await startNode({ environment: { ...environment, STOA_NODE: 'two' } })
    const token = tokenOf(one)
    const known: StoredFile[] = []
    for (let n = 0; n < filesBefore; n += 1) {
      const file = { name: `${n}.txt`, data: Buffer.alloc(fileBytes, `file ${n} `) }
      known.push(await uploadFile(one, token, file))
    }
    await using load = startFileLoad([one, two], known, token)
    const move = ['--json', 'files', 'move', '--to', bucket]
    for (const ms of killAfterMs) await killAfter(one, move, ms)
    const report = JSON.parse(stoaOf(one, move)) as { readonly isFinished: boolean }
    assert.equal(report.isFinished, true)
    await sleep(1_000)
    const { reads, uploads, failures, files: all } = await load.stop()
    t.diagnostic(`${reads} reads and ${uploads} uploads meanwhile`)
    assert.deepEqual(failures, [])
    assert.ok(reads > 100 && uploads > 0)
    for (const { origin } of [one, two])
      for (const file of all) assert.equal(await problemOf(origin, file), null)
    const verified = JSON.parse(stoaOf(one, ['--json', 'files', 'verify'])) as {
      readonly checked: number
      readonly missing: unknown[]
      readonly damaged: unknown[]
    }
    assert.deepEqual([verified.missing, verified.damaged], [[], []])
    assert.ok(verified.checked >= filesBefore + uploads)
    await two.stop()
    await findsFiles({ ...environment, STOA_FILES_URL: bucket }, known[0]!)
    await findsFiles(environment, known[0]!)
    const empty = await s3.bucket()
    const refused = await startRefused({ ...environment, STOA_FILES_URL: empty.url })
    assert.match(refused, /which is empty\. .*\(E_FILES_MISMATCH\)/)
    assert.equal((await fetch(`${one.origin}/healthz/ready`)).status, 200)
  },
)

async function killAfter(node: RunningNode, args: readonly string[], ms: number): Promise<void> {
  const child = spawn(process.execPath, [stoaProgram, ...args], {
    env: { ...withoutSettings, ...node.environment },
    stdio: 'ignore',
  })
  const ended = new Promise((resolve) => child.once('exit', resolve))
  await sleep(ms)
  child.kill('SIGKILL')
  await ended
}

/** A node that is configured for the place before, or for the one after, finds the files. */
async function findsFiles(environment: Environment, file: StoredFile): Promise<void> {
  await using node = await startNode({ environment })
  assert.equal(await problemOf(node.origin, file), null)
}

async function startRefused(environment: Environment): Promise<string> {
  await using folder = await temporaryFolder()
  const { status, stderr } = spawnSync(process.execPath, [stoaProgram, 'start'], {
    encoding: 'utf8',
    timeout: deadlineMs,
    env: {
      ...withoutSettings,
      ...environment,
      STOA_DATA: folder.path,
      STOA_PORT: String(await freePort()),
    },
  })
  assert.equal(status, 1, stderr)
  return stderr
}
