import assert from 'node:assert/strict'
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  cpSync,
  globSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join, resolve } from 'node:path'
import { after, test } from 'node:test'
import * as sources from '#cluster.ts'
import { databaseMissing, testDatabase } from '#test/support/database.ts'

/**
 * A customer's application, in a folder of its own, with the packed Stoa in `node_modules`
 * as npm would put it there.
 */
const application = mkdtempSync(join(tmpdir(), 'stoa-package-'))
after(() => rmSync(application, { recursive: true, force: true }))

const modules = join(application, 'node_modules')
mkdirSync(modules)
const packed = execFileSync('npm', ['pack', '--silent', '--pack-destination', application], {
  encoding: 'utf8',
}).trim()
execFileSync('tar', ['xzf', join(application, packed), '-C', modules])
cpSync(join(modules, 'package'), join(modules, 'stoa'), { recursive: true })
rmSync(join(modules, 'package'), { recursive: true })
for (const name of readdirSync('node_modules'))
  if (!name.startsWith('.') && name !== 'stoa')
    symlinkSync(resolve('node_modules', name), join(modules, name))
writeFileSync(join(application, 'package.json'), '{ "type": "module" }')

function run(args: readonly string[], environment: NodeJS.ProcessEnv = {}): string {
  const result = spawnSync(process.execPath, args, {
    cwd: application,
    encoding: 'utf8',
    env: { ...process.env, ...environment },
  })
  assert.equal(result.status, 0, result.stderr)
  return result.stdout
}

test('the package has the program, and of its sources only what describes them', () => {
  assert.deepEqual(readdirSync(join(modules, 'stoa')).sort(), [
    'ARCHITECTURE.md',
    'CHANGELOG.md',
    'LICENSE',
    'README.md',
    'bin',
    'cluster.js',
    'dist',
    'docs',
    'examples',
    'package.json',
    'src',
  ])
  assert.deepEqual(readdirSync(join(modules, 'stoa', 'bin')), ['stoa.js'])
  assert.deepEqual(
    globSync('src/**/*.*', { cwd: join(modules, 'stoa') }).map((file) => basename(file)),
    ['SPEC.md', 'SPEC.md', 'SPEC.md', 'SPEC.md'],
  )
})

test('the command runs from the package', () => {
  const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string }
  assert.equal(run([join(modules, 'stoa/bin/stoa.js'), '--version']), `${version}\n`)
})

test('the example, copied, passes the compiler with everything strict', () => {
  cpSync('examples/coherent-cache.ts', join(application, 'app.ts'))
  const options = {
    strict: true,
    exactOptionalPropertyTypes: true,
    noUncheckedIndexedAccess: true,
    skipLibCheck: false,
    module: 'nodenext',
    target: 'es2024',
    noEmit: true,
    types: ['node'],
  }
  writeFileSync(
    join(application, 'tsconfig.json'),
    JSON.stringify({ compilerOptions: options, files: ['app.ts'] }),
  )
  const compiled = spawnSync('tsc', ['--project', application], { encoding: 'utf8' })
  assert.equal(compiled.status, 0, compiled.stdout)
})

test('plain JavaScript gets all that the sources export, by import and by require', () => {
  writeFileSync(
    join(application, 'names.mjs'),
    `console.log(Object.keys(await import('stoa/cluster')).sort().join())`,
  )
  writeFileSync(
    join(application, 'names.cjs'),
    `const names = Object.keys(require('stoa/cluster')).filter((name) => name !== '__esModule')
console.log(names.sort().join())`,
  )
  // A node shares these with the library; they are not part of it.
  const internal = new Set(['identityOf', 'openLink', 'openSecondLevelStore', 'wireFeed'])
  const exported = Object.keys(sources).filter((name) => !internal.has(name))
  const names = `${exported.sort().join()}\n`
  assert.equal(run(['names.mjs']), names)
  assert.equal(run(['names.cjs']), names)
})

test('plain JavaScript joins a cluster from the package', { skip: databaseMissing }, async () => {
  await using db = await testDatabase({ migrated: false })
  writeFileSync(
    join(application, 'join.mjs'),
    `import { joinCluster, sql } from 'stoa/cluster'
await using cluster = await joinCluster({ url: process.env.DATABASE_URL })
await cluster.database.run(sql('create table word (id text primary key, text text not null)'))
await cluster.attach('word', { collection: 'word', key: ['id'] })
await cluster.write(async (tx) => tx.run(sql("insert into word values ('1', 'roof')")))
const select = sql('select text from word where id = $1')
const word = await cluster.cache.get('word:1', async (load) => {
  const rows = await load.row('word', '1').run(select, ['1'])
  return rows[0] ?? null
})
console.log(word.value.text)`,
  )
  assert.equal(run(['join.mjs'], { DATABASE_URL: db.url }), 'roof\n')
})

test('SIGTERM to "npm start" stops the node', { skip: databaseMissing }, async () => {
  await using db = await testDatabase({ migrated: false })
  const environment = {
    ...process.env,
    STOA_DATABASE_URL: db.url,
    STOA_DATA: join(application, 'data'),
    STOA_PORT: '0',
    STOA_STARTER: 'false',
  }
  const npm = spawn('npm', ['start'], { env: environment, stdio: ['ignore', 'pipe', 'inherit'] })
  // The stream ends when every process that could write to it has ended, the node too.
  const ended = once(npm.stdout, 'end')
  let said = ''
  for await (const chunk of npm.stdout.iterator({ destroyOnReturn: false }))
    if ((said += String(chunk)).includes('"msg":"ready"')) break
  assert.match(said, /"msg":"ready"/)
  npm.kill('SIGTERM')
  npm.stdout.on('data', (chunk: Buffer) => void (said += String(chunk)))
  await ended
  assert.match(said, /"msg":"stopping/)
})
