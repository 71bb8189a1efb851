import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { DatabaseUnavailableError } from '#database/errors.ts'
import { runStoa } from '#test/support/command-line.ts'

test('config prints values and sources, and with --json one document', async () => {
  const people = await runStoa(['config', '--port', '4001'], {
    environment: { STOA_HOST: '0.0.0.0' },
  })
  assert.equal(people.status, 0)
  assert.match(people.stdout, /port +4001 +flag +STOA_PORT/)
  assert.match(people.stdout, /host +0\.0\.0\.0 +environment +STOA_HOST/)
  const json = await runStoa(['--json', 'config'])
  assert.equal(
    JSON.parse(json.stdout).settings.find((each: { name: string }) => each.name === 'port').value,
    4000,
  )
})

test('a wrong command line or configuration ends with status 2 and says what to do', async () => {
  const verb = await runStoa(['strat'])
  assert.equal(verb.status, 2)
  assert.match(verb.stderr, /unknown command 'strat'[\s\S]*start/)
  const setting = await runStoa(['start', '--port', 'high'])
  assert.equal(setting.status, 2)
  assert.match(setting.stderr, /--port must be a whole number/)
})

test('config --help-texts names the flags', async () => {
  assert.match(
    (await runStoa(['config', '--help-texts'])).stdout,
    /leaseMs .* STOA_LEASE_MS +--lease-ms +How long/,
  )
})

test('a database that cannot be reached is named, without its password', async () => {
  const { status, stderr } = await runStoa(['export', '/nonexistent/x'], {
    environment: { STOA_DATABASE_URL: 'postgres://eva:geheim@db1,db2/stoa' },
    assembly: {
      openSite: async () => {
        throw new DatabaseUnavailableError('The database was not reached.')
      },
    },
  })
  assert.equal(status, 1)
  assert.match(
    stderr,
    /^stoa: The database was not reached\. The database is postgres:\/\/eva:\(hidden\)@db1,db2\/stoa; "stoa config" shows where that was set\. \(E_DATABASE_UNAVAILABLE\)\n$/,
  )
})

test('--help is not an error', async () => {
  const { status, stdout } = await runStoa(['--help'])
  assert.equal(status, 0)
  assert.match(stdout, /start[\s\S]*config/)
  assert.deepEqual(await runStoa(['--version']), { status: 0, stdout: '1.2.3\n', stderr: '' })
})

test('config shows a wrong configuration and suggests the setting that was meant', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'stoa-config-'))
  try {
    writeFileSync(join(folder, 'stoa.config.ts'), 'export const config = { prot: 4001 }')
    const options = { folder, environment: { STOA_PRT: '5000', STOA_LEASE_MS: 'long' } }
    const people = await runStoa(['config'], options)
    assert.equal(people.status, 2)
    assert.match(people.stdout, /^leaseMs +\(not valid\) +environment/m)
    assert.match(people.stdout, /^! STOA_PRT is not a setting; did you mean STOA_PORT\?/m)
    assert.match(
      people.stdout,
      /^! prot in stoa\.config\.ts is not a setting; did you mean port\?/m,
    )
    assert.match(people.stdout, /^! STOA_LEASE_MS must be a whole number/m)
    const json = JSON.parse((await runStoa(['config', '--json'], options)).stdout)
    assert.equal(json.problems.length, 3)
    writeFileSync(join(folder, 'broken.ts'), 'export const config = [')
    const broken = await runStoa(['config'], { folder, environment: { STOA_CONFIG: 'broken.ts' } })
    assert.deepEqual([broken.status, /^port +4000/m.test(broken.stdout)], [2, true])
    assert.match(broken.stdout, /^! .*broken\.ts cannot be loaded/m)
    assert.match((await runStoa(['start'], options)).stderr, /did you mean STOA_PORT\?/)
  } finally {
    rmSync(folder, { recursive: true })
  }
})
