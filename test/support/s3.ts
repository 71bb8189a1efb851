import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3'
import { execFileSync, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { chown, mkdtemp, mkdir, readdir, readFile, rm } from 'node:fs/promises'
import { createConnection } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { freePort } from '#test/support/database.ts'

const startWithinMs = 120_000
/** The id of the user without rights, as Debian numbers it. */
const unprivileged = 65_534

export type TestS3 = AsyncDisposable & {
  readonly endpoint: string
  /** An S3 client with all rights, to look behind the back of the driver. */
  readonly client: S3Client
  /** Makes a bucket and returns the URL of a file store in it. */
  bucket(): Promise<TestBucket>
  /** Stops the storage's processes, and lets them go on. */
  hang(): Promise<void>
  goOn(): Promise<void>
}

export type TestBucket = { readonly name: string; readonly url: string }

function missingProgram(program: string): boolean {
  try {
    execFileSync('sh', ['-c', `command -v ${program}`], { stdio: 'ignore' })
    return false
  } catch {
    return true
  }
}

/** The reason why tests with radosgw cannot run here, or false. */
export const radosgwMissing: string | false = ['radosgw', 'ceph-mon', 'ceph-osd'].some(
  missingProgram,
)
  ? 'no radosgw here: install the packages radosgw, ceph-mon and ceph-osd'
  : false

/** Ceph's gateway, which ignores some conditions of requests and refuses streams with checksums. */
export async function startRadosgw(): Promise<TestS3> {
  const folder = await mkdtemp(join(tmpdir(), 'stoa-ceph-'))
  const [port, monitorPort] = [await freePort(), await freePort()]
  const script = join(import.meta.dirname, 'radosgw.sh')
  const pids = async (): Promise<number[]> => {
    const names = (await readdir(folder)).filter((name) => name.endsWith('.pid'))
    return Promise.all(
      names.map(async (name) => Number(await readFile(join(folder, name), 'utf8'))),
    )
  }
  const signal = async (name: NodeJS.Signals): Promise<void> => {
    for (const pid of await pids()) kill(pid, name)
  }
  const stop = async (): Promise<void> => {
    await signal('SIGKILL')
    await rm(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 })
  }
  try {
    await runScript(script, [folder, String(port), String(monitorPort)])
  } catch (error) {
    await stop()
    throw error
  }
  return testS3(`http://127.0.0.1:${port}`, {
    credentials: { accessKeyId: 'stoa', secretAccessKey: 'stoa-secret' },
    hang: () => signal('SIGSTOP'),
    goOn: () => signal('SIGCONT'),
    stop,
  })
}

const versitygw = process.env['STOA_TEST_VERSITYGW']

/** The reason why tests with versitygw cannot run here, or false. */
export const versitygwMissing: string | false =
  versitygw !== undefined && existsSync(versitygw)
    ? false
    : 'STOA_TEST_VERSITYGW names no versitygw, which takes minutes to build'

/** A storage that has every condition, with its objects on disk. */
export async function startVersitygw(): Promise<TestS3> {
  const folder = await mkdtemp(join(tmpdir(), 'stoa-versity-'))
  const port = await freePort()
  const data = join(folder, 'data')
  await mkdir(data)
  const asRoot = process.getuid?.() === 0
  if (asRoot) for (const path of [folder, data]) await chown(path, unprivileged, unprivileged)
  const child = spawn(
    versitygw ?? '',
    ['--port', `127.0.0.1:${port}`, '--region', 'us-east-1', 'posix', data],
    {
      cwd: folder,
      stdio: 'ignore',
      ...(asRoot ? { uid: unprivileged, gid: unprivileged } : {}),
      env: { ROOT_ACCESS_KEY: 'stoa', ROOT_SECRET_KEY: 'stoa-secret', HOME: folder },
    },
  )
  const ended = new Promise((resolve) => child.once('exit', resolve))
  await responds(port)
  return testS3(`http://127.0.0.1:${port}`, {
    credentials: { accessKeyId: 'stoa', secretAccessKey: 'stoa-secret' },
    hang: async () => void child.kill('SIGSTOP'),
    goOn: async () => void child.kill('SIGCONT'),
    stop: async () => {
      child.kill('SIGKILL')
      await ended
      await rm(folder, { recursive: true, force: true })
    },
  })
}

type Storage = {
  readonly credentials: { readonly accessKeyId: string; readonly secretAccessKey: string }
  readonly hang: () => Promise<void>
  readonly goOn: () => Promise<void>
  readonly stop: () => Promise<void>
}

function testS3(endpoint: string, { credentials, hang, goOn, stop }: Storage): TestS3 {
  const client = new S3Client({
    endpoint,
    region: 'us-east-1',
    forcePathStyle: true,
    credentials,
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
  })
  const { accessKeyId, secretAccessKey } = credentials
  return {
    endpoint,
    client,
    hang,
    goOn,
    bucket: async () => {
      const name = `stoa-${randomBytes(6).toString('hex')}`
      await client.send(new CreateBucketCommand({ Bucket: name }))
      const url = `s3://${accessKeyId}:${secretAccessKey}@${name}/site?endpoint=${endpoint}`
      return { name, url }
    },
    [Symbol.asyncDispose]: async () => {
      client.destroy()
      await stop()
    },
  }
}

async function runScript(script: string, args: readonly string[]): Promise<void> {
  const child = spawn('bash', [script, ...args], { stdio: ['ignore', 'ignore', 'pipe'] })
  let complaints = ''
  child.stderr.on('data', (chunk) => (complaints += String(chunk)))
  const timer = setTimeout(() => child.kill('SIGKILL'), startWithinMs)
  const status = await new Promise<number | null>((resolve) => child.once('exit', resolve))
  clearTimeout(timer)
  if (status !== 0) throw new Error(`radosgw did not start: ${complaints}`)
}

function kill(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}

async function responds(port: number): Promise<void> {
  const end = Date.now() + startWithinMs
  while (!(await accepts(port))) {
    if (Date.now() > end) throw new Error('the storage accepts no connections')
    await sleep(50)
  }
}

async function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection({ host: '127.0.0.1', port }, () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
}
