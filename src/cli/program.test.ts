import assert from 'node:assert/strict'
import { Writable } from 'node:stream'
import { test } from 'node:test'
import { runCommandLine } from '#cli/program.ts'
import type { Assembly } from '#cli/site.ts'

const assembly: Assembly = {
  openSite: async () => assert.fail('this command needs no site'),
  openCluster: async () => null,
  runNode: async () => undefined, runNodes: async () => undefined,
}

async function run(argv: readonly string[], environment: Record<string, string> = {}): Promise<{ status: number; stdout: string; stderr: string }> {
  const texts = { stdout: '', stderr: '' }
  const sink = (name: 'stdout' | 'stderr'): Writable =>
    new Writable({
      write: (chunk, _encoding, done) => {
        texts[name] += String(chunk)
        done()
      },
    })
  const on = { environment, folder: '/nonexistent', version: '1.2.3', stdout: sink('stdout'), stderr: sink('stderr') }
  const status = await runCommandLine(argv, assembly, on, new AbortController().signal)
  return { status, ...texts }
}

test('config prints values and sources, and with --json one document', async () => {
  const people = await run(['config', '--port', '4001'], { STOA_HOST: '0.0.0.0' })
  assert.equal(people.status, 0)
  assert.match(people.stdout, /port +4001 +flag +STOA_PORT/)
  assert.match(people.stdout, /host +0\.0\.0\.0 +environment +STOA_HOST/)
  const json = await run(['--json', 'config'])
  assert.equal(JSON.parse(json.stdout).settings.find((each: { name: string }) => each.name === 'port').value, 4000)
})

test('a wrong command line or configuration ends with status 2 and says what to do', async () => {
  const verb = await run(['strat'])
  assert.equal(verb.status, 2)
  assert.match(verb.stderr, /unknown command 'strat'[\s\S]*start/)
  const setting = await run(['config', '--port', 'high'])
  assert.equal(setting.status, 2)
  assert.match(setting.stderr, /--port must be a whole number/)
})

test('--help is not an error', async () => {
  const { status, stdout } = await run(['--help'])
  assert.equal(status, 0)
  assert.match(stdout, /start[\s\S]*config/)
  assert.deepEqual(await run(['--version']), { status: 0, stdout: '1.2.3\n', stderr: '' })
})
