import assert from 'node:assert/strict'
import { Writable } from 'node:stream'
import { test } from 'node:test'
import { runCommandLine } from '#cli/program.ts'
import { DatabaseUnavailableError } from '#database/errors.ts'
import type { Assembly } from '#node/site.ts'

const assembly: Assembly = {
  openSite: async () => assert.fail('this command needs no site'),
  openCluster: async () => null,
  runNode: async () => undefined,
  runNodes: async () => undefined,
}

async function run(
  argv: readonly string[],
  environment: Record<string, string> = {},
  given = assembly,
): Promise<{ status: number; stdout: string; stderr: string }> {
  const texts = { stdout: '', stderr: '' }
  const sink = (name: 'stdout' | 'stderr'): Writable =>
    new Writable({
      write: (chunk, _encoding, done) => {
        texts[name] += String(chunk)
        done()
      },
    })
  const on = {
    environment,
    folder: '/nonexistent',
    version: '1.2.3',
    stdout: sink('stdout'),
    stderr: sink('stderr'),
  }
  const status = await runCommandLine(argv, given, on, new AbortController().signal)
  return { status, ...texts }
}

test('config prints values and sources, and with --json one document', async () => {
  const people = await run(['config', '--port', '4001'], { STOA_HOST: '0.0.0.0' })
  assert.equal(people.status, 0)
  assert.match(people.stdout, /port +4001 +flag +STOA_PORT/)
  assert.match(people.stdout, /host +0\.0\.0\.0 +environment +STOA_HOST/)
  const json = await run(['--json', 'config'])
  assert.equal(
    JSON.parse(json.stdout).settings.find((each: { name: string }) => each.name === 'port').value,
    4000,
  )
})

test('a wrong command line or configuration ends with status 2 and says what to do', async () => {
  const verb = await run(['strat'])
  assert.equal(verb.status, 2)
  assert.match(verb.stderr, /unknown command 'strat'[\s\S]*start/)
  const setting = await run(['config', '--port', 'high'])
  assert.equal(setting.status, 2)
  assert.match(setting.stderr, /--port must be a whole number/)
})

test('config --help-texts names the flags', async () => {
  assert.match(
    (await run(['config', '--help-texts'])).stdout,
    /leaseMs .* STOA_LEASE_MS +--lease-ms +How long/,
  )
})

test('a database that cannot be reached is named, without its password', async () => {
  const { status, stderr } = await run(
    ['export', '/nonexistent/x'],
    { STOA_DATABASE_URL: 'postgres://eva:geheim@db1,db2/stoa' },
    {
      ...assembly,
      openSite: async () => {
        throw new DatabaseUnavailableError('The database was not reached.')
      },
    },
  )
  assert.equal(status, 1)
  assert.match(
    stderr,
    /^stoa: The database was not reached\. The database is postgres:\/\/eva:\(hidden\)@db1,db2\/stoa; "stoa config" says where that was set\. \(E_DATABASE_UNAVAILABLE\)\n$/,
  )
})

test('--help is not an error', async () => {
  const { status, stdout } = await run(['--help'])
  assert.equal(status, 0)
  assert.match(stdout, /start[\s\S]*config/)
  assert.deepEqual(await run(['--version']), { status: 0, stdout: '1.2.3\n', stderr: '' })
})
