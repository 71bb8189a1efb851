import { CreateBucketCommand, PutObjectCommand } from '@aws-sdk/client-s3'
import { spawn } from 'node:child_process'
import { createHash, randomFillSync } from 'node:crypto'
import { mkdir, readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import { startTestPostgres } from '#test/support/database.ts'
import { startFileLoad, stoaOf, tokenOf, uploadFile } from '#test/support/file-load.ts'
import type { StoredFile } from '#test/support/file-load.ts'
import { startNode, stoaProgram, temporaryFolder, withoutSettings } from '#test/support/node.ts'
import type { RunningNode } from '#test/support/node.ts'
import { startRadosgw } from '#test/support/s3.ts'
import type { TestS3 } from '#test/support/s3.ts'
import { round } from './support/benchmark.ts'
import type { Benchmark } from './support/benchmark.ts'

/** The bytes that move (STOA_BENCH_BYTES); the storage keeps them three times, in memory. */
const bytes = Number(process.env['STOA_BENCH_BYTES'] ?? 1_536 * 1024 ** 2)
const fileBytes = 8 * 1024 ** 2
/** As many files as the move copies at once. */
const atOnce = 8
/** The command is killed so often, after times that cover a whole move (STOA_BENCH_KILLS). */
const kills = Number(process.env['STOA_BENCH_KILLS'] ?? 10)

export const benchmark: Benchmark = {
  claim:
    `stoa files move takes ${bytes / 1024 ** 2} MiB from a folder to S3 at 0.8 or more of the ` +
    'speed of the slower of the two, and killed at any moment it loses no byte and no read.',
  async run(say) {
    const postgres = await startTestPostgres()
    try {
      await using s3 = await startRadosgw()
      await using folder = await temporaryFolder()
      const files = join(folder.path, 'files')
      await mkdir(files)
      const environment = {
        STOA_DATABASE_URL: postgres.url,
        STOA_FILES_URL: pathToFileURL(files).href,
        STOA_STARTER: 'false',
      }
      await using one = await startNode({ environment })
      const known = await fill(one, say)
      const speeds = await rawSpeeds(files, s3, say)
      say('moving …')
      const { url } = await s3.bucket()
      const report = stoaOf(one, ['--json', 'files', 'move', '--to', url])
      const { tookMs: moveMs } = JSON.parse(report) as { readonly tookMs: number }
      const moved = bytes / moveMs
      // The machine drifts: each store is measured before and after.
      const again = await rawSpeeds(files, s3, say)
      const disk = (speeds.disk + again.disk) / 2
      const put = (speeds.s3 + again.s3) / 2
      const slower = Math.min(disk, put)
      say('moving to another folder, killed over and over, under load …')
      const back = join(folder.path, 'back')
      await mkdir(back)
      const placed = { ...one, environment: { ...one.environment, STOA_FILES_URL: url } }
      const outcome = await killedMoves(placed, { url: pathToFileURL(back).href, moveMs }, known)
      return {
        figures: [
          { name: 'raw: read from the folder', value: rate(disk), unit: 'MiB/s' },
          { name: 'raw: put to S3', value: rate(put), unit: 'MiB/s' },
          { name: 'move', value: rate(moved), unit: 'MiB/s' },
          { name: 'move / slower store', value: round(moved / slower), unit: '', atLeast: 0.8 },
          { name: 'kills', value: outcome.kills, unit: '', atLeast: 1 },
          { name: 'reads meanwhile', value: outcome.reads, unit: '', atLeast: 1 },
          { name: 'reads that failed', value: outcome.failures.length, unit: '', atMost: 0 },
          { name: 'files missing or damaged', value: outcome.wrong, unit: '', atMost: 0 },
        ],
        notes: outcome.failures.slice(0, 10),
      }
    } finally {
      await postgres.stop()
    }
  },
}

function rate(bytesPerMs: number): number {
  return round((bytesPerMs * 1_000) / 1024 ** 2, 0)
}

async function fill(node: RunningNode, say: (line: string) => void): Promise<StoredFile[]> {
  say('uploading …')
  const token = tokenOf(node)
  const known: StoredFile[] = []
  for (let n = 0; n < bytes / fileBytes; n += 1) {
    const data = Buffer.alloc(fileBytes)
    randomFillSync(data)
    known.push(await uploadFile(node, token, { name: `${n}.bin`, data }))
  }
  return known
}

/** Bytes per millisecond of each store alone, with as many files at once as the move has. */
async function rawSpeeds(
  files: string,
  { client }: TestS3,
  say: (line: string) => void,
): Promise<{ readonly disk: number; readonly s3: number }> {
  say('measuring both stores …')
  const Bucket = `raw-${Math.round(performance.now())}`
  await client.send(new CreateBucketCommand({ Bucket }))
  const entries = await readdir(files, { recursive: true, withFileTypes: true })
  const paths = entries
    .filter((entry) => entry.isFile() && entry.name.length === 64)
    .map((entry) => join(entry.parentPath, entry.name))
  const data: Buffer[] = []
  const disk = await timed(paths, async (path) => {
    const content = await readFile(path)
    createHash('sha256').update(content).digest()
    data.push(content)
  })
  const s3 = await timed(data, async (Body) => {
    await client.send(new PutObjectCommand({ Bucket, Key: String(data.indexOf(Body)), Body }))
  })
  return { disk, s3 }
}

async function timed<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<number> {
  const startedMs = performance.now()
  const rest = items.values()
  const worker = async (): Promise<void> => {
    for (const item of rest) await work(item)
  }
  await Promise.all(Array.from({ length: atOnce }, worker))
  return (items.length * fileBytes) / (performance.now() - startedMs)
}

type Outcome = {
  readonly kills: number
  readonly reads: number
  readonly failures: readonly string[]
  readonly wrong: number
}

async function killedMoves(
  node: RunningNode,
  target: { readonly url: string; readonly moveMs: number },
  known: readonly StoredFile[],
): Promise<Outcome> {
  await using load = startFileLoad([node], known)
  const move = ['--json', 'files', 'move', '--to', target.url]
  let killed = 0
  for (let n = 1; n <= kills; n += 1) {
    const child = spawn(process.execPath, [stoaProgram, ...move], {
      env: { ...withoutSettings, ...node.environment },
      stdio: 'ignore',
    })
    const ended = new Promise<boolean>((resolve) =>
      child.once('exit', (_code, signal) => resolve(signal !== null)),
    )
    const timer = setTimeout(() => child.kill('SIGKILL'), (target.moveMs * n) / (kills + 1))
    if (await ended) killed += 1
    clearTimeout(timer)
  }
  await sleep(500)
  const { reads, failures } = await load.stop()
  try {
    stoaOf(node, move)
  } catch {
    // It has ended by itself before the last kill: the files are there already.
  }
  const verified = JSON.parse(stoaOf(node, ['--json', 'files', 'verify'])) as {
    readonly missing: unknown[]
    readonly damaged: unknown[]
  }
  return {
    kills: killed,
    reads,
    failures,
    wrong: verified.missing.length + verified.damaged.length,
  }
}
