import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import {
  hidePassword,
  loadConfig,
  printableConfig,
  readConfig,
  requireValid,
} from '#config/config.ts'
import type { Config, ConfigInput } from '#config/config.ts'
import { ConfigError } from '#config/errors.ts'

const nothing = { file: {}, environment: {}, flags: {} }

function resolveConfig(input: ConfigInput): Config {
  return requireValid(readConfig(input))
}

test('defaults need nothing', () => {
  const config = resolveConfig(nothing)
  assert.equal(config.port, 4000)
  assert.equal(config.databaseUrl, null)
  assert.equal(config.sources.port, 'default')
})

test('a flag wins over the environment, that over the file, and that over the default', () => {
  const file = { port: 1, host: 'file', logLevel: 'warn' }
  const environment = { STOA_PORT: '2', STOA_HOST: 'environment' }
  const config = resolveConfig({ file, environment, flags: { port: '3' } })
  assert.deepEqual([config.port, config.host, config.logLevel], [3, 'environment', 'warn'])
  assert.deepEqual(
    [config.sources.port, config.sources.host, config.sources.logLevel],
    ['flag', 'environment', 'stoa.config.ts'],
  )
})

test('every problem is listed at once, with its source and what is allowed', () => {
  const environment = {
    STOA_PORT: '70000',
    STOA_DATABASE_URL: 'mysql://x',
    STOA_PROT: '1',
    STOA_SECRET: 'short',
  }
  assert.throws(
    () => resolveConfig({ file: { colour: 'red' }, environment, flags: { logLevel: 'loud' } }),
    (error) => {
      assert.ok(error instanceof ConfigError)
      assert.equal(error.problems.length, 6)
      assert.match(error.message, /STOA_PORT must be a whole number from 0 to 65535, not "70000"/)
      assert.match(error.message, /STOA_DATABASE_URL must be a URL that begins with postgres:/)
      assert.match(error.message, /STOA_PROT is not a setting; did you mean STOA_PORT\?/)
      assert.match(error.message, /--log-level must be one of/)
      assert.doesNotMatch(error.message, /"short"/)
      return true
    },
  )
})

test('secrets and passwords are hidden wherever they are', () => {
  const environment = {
    STOA_SECRET: 's'.repeat(40),
    STOA_DATABASE_URL: 'postgres://me:p@ss:w/zebra@h1:1,h2:2/db?password=giraffe&x=1',
  }
  const printed = JSON.stringify(printableConfig(resolveConfig({ ...nothing, environment })))
  assert.doesNotMatch(printed, /ssss|ss:w|zebra|giraffe/)
  assert.match(printed, /postgres:\/\/me:\(hidden\)@h1:1,h2:2\/db/)
  assert.equal(hidePassword('postgres://me:zebra'), 'postgres://me:(hidden)')
  assert.equal(hidePassword('nats://zebra@h1:4222,h2'), 'nats://(hidden)@h1:4222,h2')
  assert.equal(
    hidePassword('rediss://me:zebra@h1,h2/0?sentinel=main&sentinelPassword=giraffe'),
    'rediss://me:(hidden)@h1,h2/0?sentinel=main&sentinelPassword=(hidden)',
  )
  for (const url of [
    'redis://h1:26379,h2:26379/0?sentinel=main',
    'nats://h1:4222,h2:4222',
    'postgres://h1:5432,h2:5432/db',
    'redis://h:6379',
    'redis://[::1]:6379',
    'postgres:///db',
    'file:///var/files',
  ])
    assert.equal(hidePassword(url), url)
})

test('a config file is TypeScript, and an error says what is wrong with it', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'stoa-config-'))
  try {
    await writeFile(
      join(folder, 'stoa.config.ts'),
      `const port: number = 4100\n` +
        `export const config = { port, corsOrigins: ['https://a.example'] }\n`,
    )
    const config = requireValid(await loadConfig({}, {}, folder))
    assert.deepEqual(
      [config.port, config.corsOrigins, config.sources.port],
      [4100, ['https://a.example'], 'stoa.config.ts'],
    )
    await writeFile(join(folder, 'broken.ts'), `export const config = [1]\n`)
    const broken = await loadConfig({}, { STOA_CONFIG: 'broken.ts' }, folder)
    assert.match(broken.problems.join(), /must export an object named config/)
    const absent = await loadConfig({}, { STOA_CONFIG: 'absent.ts' }, folder)
    assert.match(absent.problems.join(), /does not exist/)
    assert.throws(() => requireValid(absent), ConfigError)
  } finally {
    await rm(folder, { recursive: true })
  }
})
