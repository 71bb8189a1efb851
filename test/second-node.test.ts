import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { freePort } from '#test/support/database.ts'
import { startNode, stoaProgram } from '#test/support/node.ts'

const deadlineMs = 30_000
const withoutSettings = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !name.startsWith('STOA_')),
)

test('a second node on a data folder is refused, and the first goes on', async () => {
  await using node = await startNode({})
  const port = String(await freePort())
  const run = (...argv: string[]): { status: number | null; stdout: string; stderr: string } =>
    spawnSync(process.execPath, [stoaProgram, '--data', node.dataDir, ...argv], {
      encoding: 'utf8',
      timeout: deadlineMs,
      env: withoutSettings,
    })
  const second = run('--port', port, 'start')
  assert.equal(second.status, 1, second.stderr)
  assert.match(
    second.stderr,
    /is in use by the Stoa with process id \d+.*STOA_DATABASE_URL.*\(E_DATA_FOLDER_IN_USE\)/,
  )
  const samePort = spawnSync(
    process.execPath,
    [
      stoaProgram,
      '--data',
      `${node.dataDir}/other`,
      '--port',
      new URL(node.origin).port,
      '--starter',
      'false',
      'start',
    ],
    { encoding: 'utf8', timeout: 2 * deadlineMs, env: withoutSettings },
  )
  assert.equal(samePort.status, 1, samePort.stderr)
  assert.match(
    samePort.stderr,
    /^stoa: The node cannot listen on 127\.0\.0\.1 port \d+: another program listens there already\. .* \(E_LISTEN\)\n$/,
  )
  const beside = run('--json', 'user', 'list')
  assert.deepEqual([beside.status, beside.stdout], [0, '{\n  "users": []\n}\n'])
  assert.equal((await fetch(`${node.origin}/healthz/ready`)).status, 200)
  assert.match(run('status').stdout, /live/)
  await node.stop()
  const after = run('status')
  assert.deepEqual([after.status, after.stdout], [0, 'No node runs on this database.\n'])
})

test('a data folder that cannot be used is named with the reason', () => {
  const parent = mkdtempSync(join(tmpdir(), 'stoa-data-'))
  try {
    writeFileSync(join(parent, 'file'), '')
    const run = (data: string, command: string): string =>
      spawnSync(process.execPath, [stoaProgram, '--data', join(parent, data), command], {
        encoding: 'utf8',
        timeout: deadlineMs,
        env: withoutSettings,
      }).stderr
    assert.match(
      run('file', 'start'),
      /^stoa: The data folder \S+file cannot be used: there is a file of that name\. .*STOA_DATA.* \(E_DATA_FOLDER\)\n$/,
    )
    assert.match(
      run('file/below', 'start'),
      /^stoa: .* a part of that path is a file\. .* \(E_DATA_FOLDER\)\n$/,
    )
    assert.match(run('../../proc/stoa', 'start'), /^stoa: .* \(E_DATA_FOLDER\)\n$/)
    assert.match(
      run('file', 'status'),
      /^stoa: \S+postgres cannot be read \(ENOTDIR\): .* \(E_DATABASE_EMBEDDED\)\n$/,
    )
    assert.equal(run('missing', 'status'), '')
    assert.equal(existsSync(join(parent, 'missing')), false, 'who only looks makes no folder')
  } finally {
    rmSync(parent, { recursive: true })
  }
})
