import { execFile } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { DataFolderInUseError } from '#embedded-postgres/errors.ts'

/**
 * A lock that another process is writing or taking over is read again at most this often.
 */
const attemptsMax = 50
const attemptPauseMs = 20

type Holder = {
  readonly pid: number
  readonly born: string
  readonly nonce: string
  readonly since: string
}

/**
 * One node at a time owns a data folder. The lock is a file that names its process by id *and*
 * birth, so that one left behind by a killed node, even when its id has been given to another
 * process, never stands in the way.
 */
export async function lockFolder(folder: string): Promise<{ release(): Promise<void> }> {
  const path = join(folder, 'owner.json')
  const mine: Holder = {
    pid: process.pid,
    born: (await birthOf(process.pid)) ?? '',
    nonce: randomUUID(),
    since: new Date().toISOString(),
  }
  for (let attempt = 0; attempt < attemptsMax; attempt += 1) {
    if (await create(path, mine)) return { release: async () => release(path, mine) }
    const holder = await read(path)
    if (holder === 'missing') continue
    if (holder === 'unfinished') {
      // Written by a process that is between creating and filling it, or died there.
      if (attempt < attemptsMax / 2) await sleep(attemptPauseMs)
      else await rm(path, { force: true })
      continue
    }
    if ((await birthOf(holder.pid)) === holder.born)
      throw new DataFolderInUseError(folder, holder.pid, holder.since)
    await removeStale(path, holder)
  }
  throw new DataFolderInUseError(folder, null, null)
}

async function create(path: string, holder: Holder): Promise<boolean> {
  try {
    await writeFile(path, JSON.stringify(holder), { flag: 'wx', mode: 0o644 })
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false
    // On a full disk an empty file would be left.
    await rm(path, { force: true })
    throw error
  }
}

async function read(path: string): Promise<Holder | 'missing' | 'unfinished'> {
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return 'missing'
    throw error
  }
  try {
    return JSON.parse(text) as Holder
  } catch {
    return 'unfinished'
  }
}

/**
 * Two processes may find the same stale lock: the one whose rename moved that very lock removes it,
 * the other puts back what it took.
 */
async function removeStale(path: string, stale: Holder): Promise<void> {
  const aside = `${path}.${randomUUID()}`
  try {
    await rename(path, aside)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return
    throw error
  }
  const moved = await read(aside)
  if (typeof moved === 'object' && moved.nonce !== stale.nonce) await create(path, moved)
  await rm(aside, { force: true })
}

async function release(path: string, mine: Holder): Promise<void> {
  const holder = await read(path)
  if (typeof holder === 'object' && holder.nonce === mine.nonce) await rm(path, { force: true })
}

/** When a process was born, in whatever words the system has for it; null if it is gone. */
export async function birthOf(pid: number): Promise<string | null> {
  if (process.platform === 'linux') {
    try {
      const [text, boot] = await Promise.all([
        readFile(`/proc/${pid}/stat`, 'utf8'),
        readFile('/proc/sys/kernel/random/boot_id', 'utf8'),
      ])
      // The second field, the program's name in parentheses, may hold spaces; the 22nd is the start
      // in clock ticks.
      const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
      const zombie = fields[0] === 'Z' || fields[0] === 'X'
      return zombie ? null : `${boot.trim()}/${fields[19] ?? ''}`
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code
      if (code === 'ENOENT' || code === 'ESRCH') return null
      throw error
    }
  }
  try {
    const { stdout } = await promisify(execFile)('ps', ['-o', 'lstart=', '-p', String(pid)])
    return stdout.trim() === '' ? null : stdout.trim()
  } catch (error) {
    if (typeof (error as { code?: unknown }).code === 'number') return null
    throw error
  }
}
