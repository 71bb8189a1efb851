/**
 * Loaded into the process of each test file: a file whose tests are over, or that takes too long,
 * ends with a sentence that says what kept it. Without this, a failed assertion before a `leave()`
 * leaves timers and sockets that hold the whole run.
 */
import { after } from 'node:test'
import { isMainThread } from 'node:worker_threads'

/**
 * No file takes a third of this on a slow machine. STOA_TEST_MINUTES: the time of a long run, which
 * asks for more runs or responses than every run of the tests.
 */
const fileTimeoutMs = Number(process.env['STOA_TEST_MINUTES'] ?? 10) * 60_000

/** Sockets and child processes that the last test ended are gone within this. */
const lingerMs = 30_000

function endAfter(ms: number, why: string): void {
  // The timer itself keeps no process alive.
  setTimeout(() => {
    const held = process.getActiveResourcesInfo().join(', ')
    process.stderr.write(`${process.argv[1]}: ${why}. What keeps the process: ${held}.\n`)
    process.exit(1)
  }, ms).unref()
}

// Child processes and workers of a test inherit the flag that loads this file.
if (isMainThread && process.argv[1]?.endsWith('.test.ts') === true) {
  endAfter(fileTimeoutMs, `the file took longer than ${fileTimeoutMs / 1_000} s`)
  after(() => endAfter(lingerMs, 'the tests are over and the process does not end'))
}
