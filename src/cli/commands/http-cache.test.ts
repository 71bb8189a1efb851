import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Assembly, Site } from '#node/site.ts'
import { runStoa } from '#test/support/command-line.ts'
import { startVarnish, varnishMissing } from '#test/support/varnish.ts'

/** The command works on nothing of the site but its key. */
const openSite: Assembly['openSite'] = async () =>
  ({ purgeKey: 'the key', [Symbol.asyncDispose]: async () => undefined }) as unknown as Site

test('stoa http-cache vcl: what Varnish compiles', { skip: varnishMissing }, async () => {
  const nodes = ['--backend', '127.0.0.1:4000', '--backend', '[::1]:4001']
  const { status, stdout } = await runStoa(['http-cache', 'vcl', ...nodes, '--grace', '7'], {
    assembly: { openSite },
  })
  assert.equal(status, 0)
  assert.match(stdout, /^vcl 4\.1;/)
  assert.match(stdout, /\.host = "::1";\n {2}\.port = "4001";/)
  assert.match(stdout, /beresp\.grace = 7s/)
  await using varnish = await startVarnish(stdout)
  const purge = { method: 'PURGE', headers: { 'stoa-purge-key': 'the key' } }
  assert.equal((await fetch(varnish.origin, purge)).headers.get('stoa-vcl'), '1')
})

test('stoa http-cache vcl: a node or a grace that is none is refused', async () => {
  for (const bad of [
    ['--backend', 'web1'],
    ['--backend', 'a"b:80'],
    ['--grace', 'long'],
    ['--grace', '999999'],
  ]) {
    const { status, stderr } = await runStoa(['http-cache', 'vcl', ...bad], {
      assembly: { openSite },
    })
    assert.equal(status, 2, stderr)
  }
})
