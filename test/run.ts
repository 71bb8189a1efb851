/**
 * `npm test`: format, types, lint, dead code, then every test with real services: first those of
 * whole nodes, then the rest, and node:test's summary last. `npm test -- PATTERN…` runs only the
 * test files whose path contains one of the patterns.
 */
import { spawnSync } from 'node:child_process'
import { globSync } from 'node:fs'
import { databaseMissing, startTestPostgres } from '#test/support/database.ts'

/**
 * One test that hangs fails by itself; `file-deadline.ts` ends a file that does. STOA_TEST_MINUTES:
 * more, for a long run.
 */
const testTimeoutMs = Number(process.env['STOA_TEST_MINUTES'] ?? 10) * 60_000

/** Whatever happens, the summary comes before CI gives up. */
const runTimeoutMs = Math.max(40 * 60_000, testTimeoutMs)

const patterns = process.argv.slice(2)
const files = globSync(['{src,test,sim}/**/*.test.ts'])
  .filter((file) => patterns.length === 0 || patterns.some((pattern) => file.includes(pattern)))
  .sort()

if (files.length === 0) {
  process.stderr.write(`No test file has ${patterns.join(' or ')} in its path.\n`)
  process.exit(1)
}

function step(name: string, command: string, args: readonly string[]): void {
  process.stdout.write(`\n• ${name}\n`)
  const result = spawnSync(command, args, { stdio: 'inherit' })
  if (result.status !== 0) {
    process.stdout.write(`\n${name}: failed\n`)
    process.exit(result.status ?? 1)
  }
}

if (patterns.length === 0) {
  step('format', 'npm', ['run', '--silent', 'format', '--', '--check'])
  step('types', 'tsc', [])
  step('lint', 'oxlint', ['--deny-warnings', '--type-aware'])
  step('dead code', 'knip', [])
}

const server = databaseMissing === false ? await startTestPostgres() : null
const env = {
  ...process.env,
  NODE_ENV: 'test',
  ...(server === null ? {} : { STOA_TEST_DATABASE_URL: server.url }),
}

/** Returns whether all of it passed. */
function tests(name: string, some: readonly string[], concurrency: number): boolean {
  if (some.length === 0) return true
  process.stdout.write(`\n• ${name}\n`)
  const args = [
    '--import',
    './test/support/file-deadline.ts',
    '--test',
    '--test-reporter=spec',
    `--test-timeout=${testTimeoutMs}`,
    `--test-concurrency=${concurrency}`,
    ...some,
  ]
  const options = { stdio: 'inherit', env, timeout: runTimeoutMs, killSignal: 'SIGINT' } as const
  return spawnSync(process.execPath, args, options).status === 0
}

// Whole clusters of real processes have deadlines that mean something: nothing else runs beside
// them.
const whole = tests(
  'whole nodes',
  files.filter((file) => file.startsWith('test/')),
  1,
)
const parts = tests(
  'tests',
  files.filter((file) => !file.startsWith('test/')),
  2,
)
await server?.stop()
process.exitCode = whole && parts ? 0 : 1
