import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { sql } from '#database/database.ts'
import { JobQueue } from '#jobs/job-queue.ts'
import type { Assembly, Site } from '#node/site.ts'
import type { ReportDocument } from '#cli/import/report.ts'
import { runStoa } from '#test/support/command-line.ts'
import type { Outcome } from '#test/support/command-line.ts'
import { databaseMissing, testDatabase } from '#test/support/database.ts'
import { importing } from '#test/support/importing.ts'
import type { Importing } from '#test/support/importing.ts'

const folder = mkdtempSync(join(tmpdir(), 'stoa-commands-'))
after(() => rmSync(folder, { recursive: true }))

/** Runs a command on the site of `on`, in the folder of this test. */
function stoa(on: Importing, argv: readonly string[], signal?: AbortSignal): Promise<Outcome> {
  const openSite: Assembly['openSite'] = async (config) =>
    ({
      ...on.site,
      config,
      queue: new JobQueue(null),
      purgeKey: 'key',
      [Symbol.asyncDispose]: async () => undefined,
    }) satisfies Site
  return runStoa(argv, { assembly: { openSite }, folder, ...(signal && { signal }) })
}

test(
  'types pull and push: files, plan, dry run, loss, types that refer to each other, YAML',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase()
    await using on = importing(db)
    const types = join(folder, 'types')
    mkdirSync(types)
    writeFileSync(
      join(types, 'author.yaml'),
      'name: author\nlabel: Author\nfields:\n' +
        '  - { name: name, kind: text }\n' +
        '  - { name: best, kind: reference, types: [article] }\n',
    )
    writeFileSync(
      join(types, 'article.json'),
      JSON.stringify({
        name: 'article',
        label: 'Article',
        fields: [
          { name: 'title', kind: 'text' },
          { name: 'author', kind: 'reference', types: ['author'] },
        ],
      }),
    )
    const dry = await stoa(on, ['--json', 'types', 'push', types, '--dry-run'])
    assert.deepEqual(
      [
        dry.status,
        (JSON.parse(dry.stdout) as { written: boolean }).written,
        await on.content.types.list(on.database),
      ],
      [0, false, []],
    )
    assert.equal((await stoa(on, ['types', 'push', types])).status, 0)
    assert.deepEqual(
      (await on.content.types.list(on.database)).map(({ definition }) => definition.name).sort(),
      ['article', 'author'],
    )

    const pulled = join(folder, 'pulled')
    assert.deepEqual(JSON.parse((await stoa(on, ['--json', 'types', 'pull', pulled])).stdout), {
      folder: pulled,
      created: ['article', 'author'],
      changed: [],
      unchanged: [],
      notInDatabase: [],
    })
    assert.match((await stoa(on, ['types', 'pull', pulled])).stdout, /2 unchanged/)
    const again = await stoa(on, ['--json', 'types', 'push', pulled])
    assert.deepEqual(
      (JSON.parse(again.stdout) as { types: { change: string }[] }).types.map(
        ({ change }) => change,
      ),
      ['none', 'none'],
    )

    await on.content.entries.create(on.call, 'article', { locale: null, fields: { title: 'kept' } })
    writeFileSync(
      join(pulled, 'article.json'),
      JSON.stringify({
        name: 'article',
        label: 'Article',
        fields: [{ name: 'author', kind: 'reference' }],
      }),
    )
    const lossy = await stoa(on, ['types', 'push', pulled])
    assert.deepEqual(
      [lossy.status, /LOSES VALUES: removeField title/.test(lossy.stdout)],
      [3, true],
    )
    assert.equal((await on.content.types.get(on.database, 'article')).definition.fields.length, 2)
    assert.equal((await stoa(on, ['types', 'push', pulled, '--allow-loss'])).status, 0)
    assert.equal((await on.content.types.get(on.database, 'article')).definition.fields.length, 1)

    writeFileSync(join(pulled, 'broken.json'), '{')
    assert.deepEqual(
      [
        (await stoa(on, ['types', 'push', pulled])).status,
        (await stoa(on, ['types', 'push', join(folder, 'none')])).status,
      ],
      [2, 2],
    )
    writeFileSync(
      join(pulled, 'broken.json'),
      '{"name":"broken","label":"B","fields":[{"name":"x","kind":"nothing"}]}',
    )
    const wrong = await stoa(on, ['types', 'push', pulled])
    assert.match(wrong.stderr, /broken\.json: The definition/)
  },
)

test(
  'import markdown: the report on the screen, as a file and as JSON; exit statuses',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase()
    await using on = importing(db)
    const pages = join(folder, 'pages')
    mkdirSync(pages)
    writeFileSync(join(pages, 'a.md'), '# A')
    for (let number = 0; number < 25; number += 1)
      writeFileSync(join(pages, `broken-${number}.md`), '---\ntitle: [\n---\n')
    const file = join(folder, 'report.json')
    assert.equal((await stoa(on, ['import', 'markdown', pages, '--dry-run'])).status, 3)
    assert.deepEqual(await on.content.types.list(on.database), [])
    const people = await stoa(on, ['import', 'markdown', pages, '--report', file])
    assert.equal(people.status, 3)
    assert.match(people.stdout, /pages +1 +0 +0 +25/)
    assert.match(people.stdout, /Refused \(25\):\n(?: {2}pages .*\n){20} {2}… and 5 more/)
    assert.match(people.stdout, /pagesPerSecond \d+/)
    assert.equal((JSON.parse(readFileSync(file, 'utf8')) as ReportDocument).refused.length, 25)
    const json = await stoa(on, ['--json', 'import', 'markdown', pages])
    const report = JSON.parse(json.stdout) as ReportDocument
    assert.deepEqual(
      [report.counts['pages'], report.finished, report.refused.length],
      [{ made: 0, changed: 0, unchanged: 1, refused: 25 }, true, 25],
    )
    assert.ok(report.measured['peakMemoryMb']! > 0)
    assert.deepEqual(
      [
        (await stoa(on, ['import', 'markdown', join(folder, 'gone')])).status,
        (await stoa(on, ['import', 'markdown', pages, '--type', 'Bad Name'])).status,
        (await stoa(on, ['import'])).status,
      ],
      [1, 2, 2],
    )
    const none = join(folder, 'no-pages')
    mkdirSync(none)
    writeFileSync(join(none, 'readme.txt'), 'x')
    const nothing = await stoa(on, ['import', 'markdown', none, '--type', 'fresh'])
    assert.deepEqual(
      [
        nothing.status,
        (await on.content.types.list(on.database)).map(({ definition }) => definition.name),
      ],
      [1, ['page']],
    )
    assert.match(nothing.stderr, /no file ends in \.md/)
    for (const command of [
      ['import', 'markdown', pages],
      ['export', join(folder, 'unreported')],
    ]) {
      const unreported = await stoa(on, [
        ...command,
        '--report',
        join(folder, 'gone', 'report.json'),
      ])
      assert.equal(unreported.status, 2)
      assert.match(unreported.stderr, /^stoa: The report cannot be written to /)
    }
    assert.equal((await stoa(on, ['types', 'pull', file])).status, 2)
  },
)

test(
  'an interrupted import finishes its batch and ends with 130; the next one completes it',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase()
    await using on = importing(db)
    const pages = join(folder, 'many')
    mkdirSync(pages)
    for (let number = 0; number < 1_200; number += 1)
      writeFileSync(
        join(pages, `page-${number}.md`),
        `---\norder: ${number}\n---\n${'text '.repeat(100)}`,
      )
    const stopping = new AbortController()
    let batches = 0
    const database = new Proxy(on.database, {
      get: (target, key) => {
        const value: unknown = Reflect.get(target, key, target)
        if (key !== 'transaction')
          return typeof value === 'function' ? (value.bind(target) as unknown) : value
        return async (work: Parameters<typeof target.transaction>[0]) => {
          batches += 1
          // The type and the first batches are written; then Ctrl-C is pressed.
          if (batches === 4) stopping.abort()
          return target.transaction(work)
        }
      },
    })
    const interrupted = await stoa(
      { ...on, site: { ...on.site, database } },
      ['--json', 'import', 'markdown', pages],
      stopping.signal,
    )
    const report = JSON.parse(interrupted.stdout) as ReportDocument
    assert.deepEqual([interrupted.status, report.finished], [130, false])
    const { made } = report.counts['pages']!
    assert.ok(made > 0 && made < 1_200, `${made} pages`)
    const rest = JSON.parse(
      (await stoa(on, ['--json', 'import', 'markdown', pages])).stdout,
    ) as ReportDocument
    assert.deepEqual(rest.counts['pages'], {
      made: 1_200 - made,
      changed: 0,
      unchanged: made,
      refused: 0,
    })
  },
)

test('export and import as commands', { skip: databaseMissing }, async () => {
  await using db = await testDatabase()
  await using on = importing(db)
  await on.content.types.save(
    on.database,
    { name: 'note', label: 'Note', fields: [{ name: 'text', kind: 'text' }] },
    { expected: null, allowLoss: false },
  )
  await on.content.entries.create(on.call, 'note', { locale: null, fields: { text: 'x' } })
  const target = join(folder, 'export.tar.gz')
  const exported = await stoa(on, ['--json', 'export', target])
  assert.deepEqual(
    [exported.status, (JSON.parse(exported.stdout) as ReportDocument).counts['entries']?.made],
    [0, 1],
  )
  const back = await stoa(on, ['import', target])
  assert.equal(back.status, 0)
  assert.match(back.stdout, /entries +0 +0 +1 +0/)
})

test(
  'search verify and reindex: a status, and the numbers',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase()
    await using on = importing(db)
    const fields = [{ name: 'title', kind: 'text', searchable: true }] as const
    const type = { name: 'page', label: 'Page', fields }
    await on.content.types.save(on.database, type, { expected: null, allowLoss: false })
    const call = { db: on.database, authority: on.site.access.systemIdentity.authority }
    await on.content.entries.create(call, 'page', { locale: null, fields: { title: 'Stoa' } })
    const right = await stoa(on, ['--json', 'search', 'verify'])
    assert.deepEqual(
      [right.status, JSON.parse(right.stdout)],
      [0, { checked: 1, wrong: 0, wrongByType: {} }],
    )
    await on.database.run(sql<object>(`update stoa.version set search = null`))
    assert.equal((await stoa(on, ['search', 'verify'])).status, 1)
    const made = await stoa(on, ['search', 'reindex'])
    assert.equal(made.status, 0)
    assert.match(made.stderr, /1 of 1 versions were made anew/)
    assert.equal((await stoa(on, ['search', 'verify'])).status, 0)
  },
)
