import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { ChildPool, TaskCrashedError, TaskFailedError, TaskTimeoutError } from '#lib/child-pool.ts'
import { systemClock } from '#lib/clock.ts'
import { silentLogger } from '#lib/logger.ts'

const tasks = `
  import { serveTasks, TaskFailure } from '${new URL('child-tasks.ts', import.meta.url).href}'
  const kept = []
  serveTasks({
    double: async (input) => ({ value: input.value * 2, pid: process.pid }),
    environment: async () => Object.keys(process.env).sort(),
    fail: async () => { throw new TaskFailure('it is broken', { reason: 'damaged' }) },
    crash: async () => process.abort(),
    loop: async () => { for (;;); },
    memory: async (input) => {
      if (input.native) for (;;) kept.push(Buffer.alloc(50_000_000, 1))
      for (;;) kept.push(Array.from({ length: 100_000 }, () => ({})))
    },
  })
`

async function openPool(): Promise<AsyncDisposable & { readonly pool: ChildPool }> {
  const folder = await mkdtemp(join(tmpdir(), 'stoa-child-'))
  const file = join(folder, 'tasks.mjs')
  await writeFile(file, tasks)
  const pool = new ChildPool({
    module: pathToFileURL(file),
    memoryBytesMax: 400_000_000,
    heapBytesMax: 64_000_000,
    queue: { runningMax: 2, waitingMax: 8, waitingPerCallerMax: 4, waitMs: 30_000 },
    clock: systemClock,
    logger: silentLogger,
  })
  return {
    pool,
    [Symbol.asyncDispose]: async () => {
      await pool.stop()
      await rm(folder, { recursive: true })
    },
  }
}

const claim = { caller: 'a', group: 'x' }
const timeoutMs = 30_000

test('a child does task after task, and knows no secret of its parent', async () => {
  process.env['STOA_SECRET'] = 'secret'
  await using opened = await openPool()
  const run = (value: number) =>
    opened.pool.run(claim, { task: 'double', input: { value }, timeoutMs }) as Promise<{
      readonly value: number
      readonly pid: number
    }>
  const first = await run(2)
  const second = await run(3)
  assert.deepEqual([first.value, second.value, second.pid], [4, 6, first.pid])
  const names = await opened.pool.run(claim, { task: 'environment', input: null, timeoutMs })
  assert.ok(!(names as string[]).some((name) => name.startsWith('STOA')))
})

test('an error of a task comes back with its facts, and the child goes on', async () => {
  await using opened = await openPool()
  await assert.rejects(
    opened.pool.run(claim, { task: 'fail', input: null, timeoutMs }),
    (error) => error instanceof TaskFailedError && error.facts['reason'] === 'damaged',
  )
  await assert.rejects(
    opened.pool.run(claim, { task: 'no such', input: null, timeoutMs }),
    TaskFailedError,
  )
  await opened.pool.run(claim, { task: 'double', input: { value: 1 }, timeoutMs })
})

test('a crash, an endless loop and too much memory end a child and nothing else', async () => {
  await using opened = await openPool()
  await assert.rejects(
    opened.pool.run(claim, { task: 'crash', input: null, timeoutMs }),
    TaskCrashedError,
  )
  await assert.rejects(
    opened.pool.run(claim, { task: 'loop', input: null, timeoutMs: 1_000 }),
    TaskTimeoutError,
  )
  for (const native of [true, false]) {
    if (native && process.platform !== 'linux') continue
    await assert.rejects(
      opened.pool.run(claim, { task: 'memory', input: { native }, timeoutMs }),
      (error) => error instanceof TaskCrashedError || error instanceof TaskFailedError,
    )
  }
  await opened.pool.run(claim, { task: 'double', input: { value: 1 }, timeoutMs })
})
