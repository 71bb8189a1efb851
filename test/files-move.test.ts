import assert from 'node:assert/strict'
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import { databaseMissing, freePort, testDatabase } from '#test/support/database.ts'
import { startNode, stoaProgram, temporaryFolder, withoutSettings } from '#test/support/node.ts'
import type { RunningNode } from '#test/support/node.ts'
import { radosgwMissing, startRadosgw } from '#test/support/s3.ts'

const skip = databaseMissing === false ? radosgwMissing : databaseMissing
const deadlineMs = 120_000
const filesBefore = 60
const fileBytes = 200_000
/** The command is killed so long after its start, then once more, and then it may end. */
const killAfterMs = [1_500, 2_500]

type File = { readonly url: string; readonly bytes: Buffer }

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
    const known: File[] = []
    for (let n = 0; n < filesBefore; n += 1) known.push(await upload(one, token, n))
    await using load = startLoad([one, two], token, known)
    const move = ['--json', 'files', 'move', '--to', bucket]
    for (const ms of killAfterMs) {
      const child = spawn(process.execPath, [stoaProgram, ...move], {
        env: { ...withoutSettings, ...one.environment },
        stdio: 'ignore',
      })
      const ended = new Promise((resolve) => child.once('exit', resolve))
      await sleep(ms)
      child.kill('SIGKILL')
      await ended
    }
    const report = JSON.parse(stoa(one, move)) as { readonly isFinished: boolean }
    assert.equal(report.isFinished, true)
    await sleep(1_000)
    const { reads, uploads, failures } = await load.stop()
    t.diagnostic(`${reads} reads and ${uploads} uploads meanwhile`)
    assert.deepEqual(failures, [])
    assert.ok(reads > 100 && uploads > 0)
    for (const node of [one, two])
      for (const { url, bytes } of known) {
        const response = await fetch(`${node.origin}${url}`)
        assert.equal(response.status, 200, await response.clone().text())
        assert.ok(Buffer.from(await response.arrayBuffer()).equals(bytes))
      }
    const verified = JSON.parse(stoa(one, ['--json', 'files', 'verify'])) as {
      readonly checked: number
      readonly missing: unknown[]
      readonly damaged: unknown[]
    }
    assert.deepEqual([verified.missing, verified.damaged], [[], []])
    assert.ok(verified.checked >= filesBefore + uploads)
    await staysAfterRestart(two, { bucket, environment, known })
    const empty = await s3.bucket()
    const refused = await startRefused({ ...environment, STOA_FILES_URL: empty.url })
    assert.match(refused, /which is empty\. .*\(E_FILES_MISMATCH\)/)
    for (const node of [one])
      assert.equal((await fetch(`${node.origin}/healthz/ready`)).status, 200)
  },
)

/** A node that is configured for the place before, or for the one after, finds the files. */
async function staysAfterRestart(
  node: RunningNode,
  at: {
    readonly bucket: string
    readonly environment: Readonly<Record<string, string>>
    readonly known: readonly File[]
  },
): Promise<void> {
  await node.stop()
  for (const filesUrl of [at.environment['STOA_FILES_URL']!, at.bucket]) {
    await using again = await startNode({
      environment: { ...at.environment, STOA_FILES_URL: filesUrl },
    })
    const { url, bytes } = at.known[0]!
    const response = await fetch(`${again.origin}${url}`)
    assert.ok(Buffer.from(await response.arrayBuffer()).equals(bytes))
  }
}

async function startRefused(environment: Readonly<Record<string, string>>): Promise<string> {
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

function stoa(node: RunningNode, args: readonly string[]): string {
  return execFileSync(process.execPath, [stoaProgram, ...args], {
    env: { ...withoutSettings, ...node.environment },
    encoding: 'utf8',
    timeout: deadlineMs,
  })
}

function tokenOf(node: RunningNode): string {
  const made = stoa(node, ['--json', 'token', 'create', 'test', '--role', 'administrator'])
  return (JSON.parse(made) as { token: string }).token
}

async function upload(node: RunningNode, token: string, seed: number): Promise<File> {
  const bytes = Buffer.alloc(fileBytes, `file ${seed} `)
  const form = new FormData()
  form.append('file', new Blob([new Uint8Array(bytes)]), `${seed}.txt`)
  const response = await fetch(`${node.origin}/api/assets`, {
    method: 'POST',
    headers: { authorization: `Bearer ${token}` },
    body: form,
  })
  assert.equal(response.status, 201, await response.clone().text())
  const { data } = (await response.json()) as { data: { url: string }[] }
  return { url: data[0]!.url, bytes }
}

type Load = AsyncDisposable & {
  stop(): Promise<{
    readonly reads: number
    readonly uploads: number
    readonly failures: readonly string[]
  }>
}

/** Reads of every file on both nodes, one after the other, and new uploads, which are read too. */
function startLoad(nodes: readonly RunningNode[], token: string, known: File[]): Load {
  const over = new AbortController()
  const failures: string[] = []
  const counts = { reads: 0, uploads: 0 }
  const reader = async (node: RunningNode): Promise<void> => {
    while (!over.signal.aborted) {
      for (const { url, bytes } of known) {
        if (over.signal.aborted) return
        const response = await fetch(`${node.origin}${url}`).catch((error: unknown) =>
          String(error),
        )
        const body = typeof response === 'string' ? null : Buffer.from(await response.arrayBuffer())
        counts.reads += 1
        if (body?.equals(bytes) !== true)
          failures.push(typeof response === 'string' ? response : `${response.status} ${url}`)
        await sleep(5)
      }
    }
  }
  const writer = async (): Promise<void> => {
    for (let n = 0; !over.signal.aborted; n += 1) {
      try {
        known.push(await upload(nodes[n % nodes.length]!, token, 1_000 + n))
        counts.uploads += 1
      } catch (error) {
        failures.push(String(error))
      }
      await sleep(100)
    }
  }
  const all = Promise.all([...nodes.map(reader), writer()])
  const stop = async () => {
    over.abort()
    await all
    return { ...counts, failures }
  }
  return { stop, [Symbol.asyncDispose]: async () => void (await stop()) }
}
