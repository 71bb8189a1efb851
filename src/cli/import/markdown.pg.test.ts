import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after, test } from 'node:test'
import { isDeepStrictEqual } from 'node:util'
import { importMarkdown } from '#cli/import/markdown.ts'
import type { MarkdownOptions } from '#cli/import/markdown.ts'
import { openPageSource } from '#cli/import/page-source.ts'
import type { ReportDocument } from '#cli/import/report.ts'
import { sql } from '#database/database.ts'
import type { Database } from '#database/database.ts'
import { realData } from '#test/support/data.ts'
import { databaseMissing, testDatabase } from '#test/support/database.ts'
import { importing } from '#test/support/importing.ts'
import type { Importing } from '#test/support/importing.ts'

const folder = mkdtempSync(join(tmpdir(), 'stoa-markdown-'))
after(() => rmSync(folder, { recursive: true }))
const going = new AbortController().signal
const options: MarkdownOptions = {
  type: 'page',
  localesFromFolders: null,
  publish: true,
  prune: false,
  dryRun: false,
  siteUrl: null,
}

function pages(name: string, files: Readonly<Record<string, string | null>>): string {
  for (const [path, text] of Object.entries(files)) {
    const place = join(folder, name, path)
    mkdirSync(dirname(place), { recursive: true })
    if (text === null) rmSync(place)
    else writeFileSync(place, text)
  }
  return join(folder, name)
}

async function run(
  on: Importing,
  path: string,
  more: Partial<MarkdownOptions> = {},
  signal = going,
): Promise<ReportDocument> {
  await using source = await openPageSource(path, going)
  assert.ok(source !== null)
  const report = on.report()
  await importMarkdown(source, on, { ...options, ...more }, { report, output: on.output, signal })
  return report.document()
}

const everything = sql<Record<string, unknown>>(`
  select v.entry_id, v.locale, v.number, v.is_latest, v.is_published, v.data, v.filter,
    (select json_agg(json_build_array(r.perspective, r.path, r.target_id)
                     order by r.perspective, r.path, r.target_id)
     from stoa.reference r where r.entry_id = v.entry_id and r.locale = v.locale) as refs,
    (select json_agg(json_build_array(u.field, u.locale, u.value) order by u.field, u.locale)
     from stoa.unique_draft_value u where u.entry_id = v.entry_id) as claims
  from stoa.version v order by v.entry_id, v.locale, v.number`)
const locales = sql<{ code: string; fallback: string | null }>(
  'select code, fallback from stoa.locale order by code',
)

/** All content without its dates. */
async function contentOf(database: Database): Promise<unknown[]> {
  return database.run(everything)
}

test(
  'pages with locales, front matter, links and odd files; again: nothing; changed, removed, pruned',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase()
    await using on = importing(db)
    const path = pages('site', {
      'en/index.md':
        '---\ntitle: Home\norder: 1\ntype: landing\n---\nSee [guide](/en/guides/start/#a), ' +
        '[other](./other.md), [gone](/en/gone/) and `[code](/en/other/)`.\n',
      'en/guides/start.mdx': '---\ntitle: Start\norder: 2\n---\n<Card href="/other">x</Card>\n',
      'en/other.md': '# A heading\n\ntext',
      'fr/index.md':
        '---\ntitle: Accueil\norder: 1\ntype: landing\n---\n[guide](/fr/guides/start/)\n',
      'en/broken.md': '---\ntitle: [\n---\n',
      'en/guides/index.md': '',
      'en/guides.md': 'the same page as guides/index.md',
      'en/readme.txt': 'no page',
    })
    const first = await run(on, path)
    assert.deepEqual(first.counts['pages'], { made: 5, changed: 0, unchanged: 0, refused: 2 })
    assert.deepEqual(first.counts['entries'], { made: 4, changed: 0, unchanged: 0, refused: 0 })
    assert.deepEqual(
      first.refused.map(({ where, reason }) => `${where}: ${reason.slice(0, 30)}`),
      [
        'en/broken.md: The front matter is not YAML: ',
        'en/guides/index.md: Another file is the page "guid',
      ],
    )
    assert.deepEqual(
      first.remarks.map(({ what, where }) => `${what} ${where}`),
      ['type page', `files ${path}`, 'link en/index.md:1'],
    )
    assert.deepEqual(await on.database.run(locales), [
      { code: 'en', fallback: null },
      { code: 'fr', fallback: 'en' },
    ])

    const read = {
      locale: 'fr',
      perspective: 'published' as const,
      fields: null,
      include: ['links'],
    }
    const { entry, included } = await on.content.entries.get(on.call, 'page', 'index', read)
    const fields = JSON.parse(entry.fieldsJson) as Record<string, unknown>
    assert.deepEqual(
      [entry.locale, entry.status, fields['title'], fields['pageType'], fields['body']],
      ['fr', 'published', 'Accueil', 'landing', '[guide](/fr/guides/start/)\n'],
    )
    assert.deepEqual(
      [...included.values()].map((one) => (JSON.parse(one.fieldsJson) as { title: string }).title),
      ['Start'],
    )
    const other = await on.content.entries.get(on.call, 'page', 'other', {
      ...read,
      locale: 'en',
      include: [],
    })
    assert.equal((JSON.parse(other.entry.fieldsJson) as { title: string }).title, 'A heading')

    const before = await contentOf(on.database)
    const second = await run(on, path)
    assert.deepEqual(second.counts['pages'], { made: 0, changed: 0, unchanged: 5, refused: 2 })
    assert.deepEqual(await contentOf(on.database), before)

    pages('site', {
      'en/other.md': '# Another heading',
      'fr/index.md': null,
      'en/guides/start.mdx': null,
      'en/index.md': '---\ntitle: Home\norder: 1\ntype: landing\n---\n',
    })
    const third = await run(on, path)
    assert.deepEqual(third.counts['pages'], { made: 0, changed: 2, unchanged: 1, refused: 2 })
    assert.deepEqual(
      third.remarks
        .filter(({ what }) => what === 'removed page')
        .map(({ where }) => where)
        .sort(),
      ['fr index', 'guides/start'],
    )
    const pruned = await run(on, path, { prune: true })
    assert.deepEqual(pruned.counts['removed pages'], {
      made: 0,
      changed: 2,
      unchanged: 0,
      refused: 0,
    })
    await assert.rejects(
      on.content.entries.get(on.call, 'page', 'guides/start', { ...read, include: [] }),
      /no such entry/,
    )
    assert.equal(
      (await on.content.entries.get(on.call, 'page', 'index', { ...read, include: [] })).entry
        .locale,
      'en',
    )
    assert.deepEqual((await run(on, path, { prune: true })).counts['removed pages'], undefined)
  },
)

test(
  'drafts stay drafts, a dry run writes nothing, an interrupted run says so and the next one ' +
    'completes it',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase()
    await using on = importing(db)
    const path = pages('small', { 'a.md': '---\ntags: [x, y]\n---\nA', 'b/c.md': '[a](/a)' })
    assert.deepEqual((await run(on, path, { dryRun: true })).counts['types'], {
      made: 1,
      changed: 0,
      unchanged: 0,
      refused: 0,
    })
    assert.deepEqual(await on.content.types.list(on.database), [])
    assert.equal((await run(on, path, {}, AbortSignal.abort())).finished, false)
    await run(on, path, { publish: false })
    const statuses = async (): Promise<unknown[]> =>
      (await contentOf(on.database)).map((row) => (row as { is_published: boolean }).is_published)
    assert.deepEqual(await statuses(), [false, false])
    const published = await run(on, path)
    assert.deepEqual([published.counts['pages']?.changed, await statuses()], [2, [true, true]])
  },
)

test(
  'a type that is there is extended; what its rules refuse is refused page by page',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase()
    await using on = importing(db)
    await on.content.types.save(
      on.database,
      {
        name: 'page',
        label: 'Seite',
        fields: [
          { name: 'order', kind: 'number', max: 10 },
          { name: 'code', kind: 'text', unique: true },
        ],
      },
      { expected: null, allowLoss: false },
    )
    const path = pages('strict', {
      'a.md': '---\norder: 1\ncode: x\n---\n',
      'b.md': '---\norder: 11\ncode: y\n---\n',
      'c.md': '---\norder: 2\ncode: x\n---\n',
      'd.md': '---\norder: 3\ncode: z\n---\n[c](/c)[b](b)',
    })
    const report = await run(on, path)
    assert.deepEqual(report.counts['pages'], { made: 2, changed: 0, unchanged: 0, refused: 2 })
    assert.deepEqual(
      report.refused.map(({ where, reason }) => `${where}: ${reason}`),
      [
        'b.md: /order: At most 10.',
        'c.md: Another entry has this value of the unique field "code". Choose another one.',
      ],
    )
    assert.equal((await on.content.types.get(on.database, 'page')).definition.label, 'Seite')
  },
)

const real = realData('astro-docs.tar.gz')
test(
  'the documentation of Astro: every page an entry with its locales; a second run makes no version',
  { skip: databaseMissing === false ? real.skip : databaseMissing },
  async () => {
    await using db = await testDatabase()
    await using on = importing(db)
    const first = await run(on, real.path)
    assert.deepEqual(first.counts['pages'], { made: 2_569, changed: 0, unchanged: 0, refused: 0 })
    const count = sql<{ locale: string; pages: string; published: string; top: number }>(
      'select locale, count(distinct entry_id) as pages, count(*) filter (where is_published) ' +
        'as published, max(number) as top from stoa.version group by locale order by locale',
    )
    const counted = await on.database.run(count)
    const pagesOf = Object.fromEntries(counted.map((row) => [row.locale, Number(row.pages)]))
    assert.deepEqual(pagesOf, {
      ar: 9,
      de: 60,
      en: 420,
      es: 283,
      fr: 420,
      hi: 9,
      it: 46,
      ja: 144,
      ko: 419,
      pl: 20,
      'pt-br': 193,
      ru: 156,
      'zh-cn': 368,
      'zh-tw': 22,
    })
    assert.ok(counted.every((row) => row.published === row.pages && row.top === 1))
    assert.equal(
      (await on.database.run(sql<{ n: string }>('select count(*) as n from stoa.entry')))[0]?.n,
      '420',
    )
    assert.equal(
      (
        await on.database.run(
          sql<{ n: string }>(
            `select count(*) as n from stoa.reference where perspective = 'published' and ` +
              `path = 'links'`,
          ),
        )
      )[0]?.n,
      '7291',
    )
    const second = await run(on, real.path)
    assert.deepEqual(second.counts['pages'], { made: 0, changed: 0, unchanged: 2_569, refused: 0 })
    assert.deepEqual(await on.database.run(count), counted)
  },
)

/** Runs the command itself in a process of its own. */
function command(url: string, args: readonly string[]): ReturnType<typeof spawn> {
  const env = {
    ...process.env,
    STOA_DATABASE_URL: url,
    STOA_DATA: join(folder, new URL(url).pathname),
    STOA_SECRET: 'x'.repeat(64),
  }
  return spawn(process.execPath, ['bin/stoa.js', '--json', 'import', 'markdown', ...args], {
    env,
    stdio: ['ignore', 'pipe', 'inherit'],
  })
}

async function ended(
  child: ReturnType<typeof spawn>,
): Promise<{ status: number | null; stdout: string }> {
  let stdout = ''
  child.stdout?.on('data', (chunk) => (stdout += String(chunk)))
  const status = await new Promise<number | null>((resolve) =>
    child.once('exit', (code) => resolve(code)),
  )
  return { status, stdout }
}

test(
  'killed in the middle and run again ends as if nothing had happened',
  { skip: databaseMissing },
  async () => {
    const files: Record<string, string> = {}
    for (let number = 0; number < 1_500; number += 1) {
      for (const locale of ['en', 'de'])
        files[`${locale}/part-${number % 7}/page-${number}.md`] =
          `---\ntitle: ${locale} ${number}\norder: ` +
          `${number}\n---\n[next](../page-${number + 7}/) ${'text '.repeat(200)}`
    }
    const path = pages('many', files)
    await using whole = await testDatabase()
    await using broken = await testDatabase()
    const uninterrupted = await ended(command(whole.url, [path]))
    assert.equal(uninterrupted.status, 0)
    assert.deepEqual((JSON.parse(uninterrupted.stdout) as ReportDocument).counts['pages'], {
      made: 3_000,
      changed: 0,
      unchanged: 0,
      refused: 0,
    })

    const killed = command(broken.url, [path])
    const over = ended(killed)
    const versions = sql<{ n: string }>('select count(*) as n from stoa.version')
    let written = 0
    while (written === 0) {
      assert.equal(killed.exitCode, null, 'the import ended before it wrote anything')
      await new Promise((resolve) => void setTimeout(resolve, 10))
      written = Number((await broken.database.run(versions))[0]!.n)
    }
    killed.kill('SIGKILL')
    await over
    written = Number((await broken.database.run(versions))[0]!.n)
    assert.ok(
      written > 0 && written < 3_000,
      `killed too late to show anything: ${written} of 3,000 pages`,
    )
    const again = await ended(command(broken.url, [path]))
    assert.equal(again.status, 0)
    assert.deepEqual((JSON.parse(again.stdout) as ReportDocument).counts['pages'], {
      made: 3_000 - written,
      changed: 0,
      unchanged: written,
      refused: 0,
    })
    assert.deepEqual(await contentOf(broken.database), await contentOf(whole.database))
  },
)

test(
  'front matter with words of ours, days that do not exist and a great many keys',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase()
    await using on = importing(db)
    const keys = Array.from({ length: 150 }, (_, at) => `key${at}: [a]\n`)
    const path = pages('words', {
      'a.md':
        '---\nconstructor: C\nnot: N\ntoString: T\ndate: 2026-02-28\nother: 2026-02-28\n---\n',
      'b.md': '---\ndate: "2026-02-30"\n---\n',
      'c.md': `---\n${keys.join('')}---\n`,
    })
    const report = await run(on, path)
    assert.deepEqual(
      report.refused.map(({ where, reason }) => `${where}: ${reason.slice(0, 42)}`),
      ['c.md: The pages have too many different front-ma'],
    )
    assert.deepEqual(report.counts['pages'], { made: 2, changed: 0, unchanged: 0, refused: 1 })
    const read = {
      locale: 'en',
      perspective: 'published' as const,
      fields: ['pageConstructor', 'pageNot', 'pageToString', 'date', 'other'],
      include: [],
    }
    const fields = async (slug: string): Promise<unknown> =>
      JSON.parse((await on.content.entries.get(on.call, 'page', slug, read)).entry.fieldsJson)
    assert.deepEqual(await fields('a'), {
      pageConstructor: 'C',
      pageNot: 'N',
      pageToString: 'T',
      date: '2026-02-28',
      other: '2026-02-28T00:00:00.000Z',
    })
    assert.deepEqual(await fields('b'), { date: '2026-02-30' })
  },
)

test(
  'a file name is the same page in either form of Unicode',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase()
    await using on = importing(db)
    const composed = 'caf\u00e9'
    const path = pages('forms', {
      [`${composed.normalize('NFD')}.md`]: '# Here',
      'a.md': `[to](./${composed}.md) and [to](caf%C3%A9)`,
    })
    assert.deepEqual((await run(on, path)).remarks, [])
    const again = pages('composed', {
      [`${composed}.md`]: '# Here',
      'a.md': `[to](./${composed}.md) and [to](caf%C3%A9)`,
    })
    assert.deepEqual((await run(on, again)).counts['pages'], {
      made: 0,
      changed: 0,
      unchanged: 2,
      refused: 0,
    })
  },
)

test(
  'what its front matter keeps from readers stays a draft, is scheduled, or is withdrawn',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase()
    await using on = importing(db)
    const path = pages('fates', {
      'open.md': '---\ntitle: Open\ndraft: false\n---\n',
      'later.md': '---\ntitle: Later\n---\n',
      'toml.md': '+++\ntitle = "Secret"\ndraft = true\n+++\n',
      'json.md': '{ "title": "Secret", "published": false }\n',
      'future.md': '---\ntitle: Future\ndate: 2099-01-01\n---\n',
      '_drafts/note.md': '# Secret',
      'passing.md': '---\ntitle: Passing\nexpiryDate: 2099-01-01\n---\n',
    })
    const report = await run(on, path)
    assert.deepEqual(report.counts['pages'], { made: 7, changed: 0, unchanged: 0, refused: 0 })
    assert.deepEqual(report.counts['schedules'], { made: 2, changed: 0, unchanged: 0, refused: 0 })
    assert.equal(report.remarks.filter(({ what }) => what === 'draft').length, 3)
    const published = sql<{ path: string }>(
      `select filter ->> 'path' as path from stoa.version where is_published order by 1`,
    )
    const paths = async (): Promise<string[]> =>
      (await on.database.run(published)).map((row) => row.path)
    assert.deepEqual(await paths(), ['later', 'open', 'passing'])
    const again = await run(on, path)
    assert.deepEqual(again.counts['schedules'], { made: 0, changed: 0, unchanged: 2, refused: 0 })

    pages('fates', { 'later.md': '---\ntitle: Later\ndraft: true\n---\n' })
    const third = await run(on, path)
    assert.deepEqual(third.counts['withdrawn pages'], {
      made: 0,
      changed: 1,
      unchanged: 0,
      refused: 0,
    })
    assert.deepEqual(await paths(), ['open', 'passing'])
  },
)

test(
  'an import that leaves something out names it, and a page stays itself beside new files',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase()
    await using on = importing(db)
    const path = pages('whole', {
      'docs/a.md': '# A\n![pic](./a.png) [paper](/files/paper.pdf) [[B]]',
      'docs/b.md': '# B',
    })
    symlinkSync(join(path, 'docs/b.md'), join(path, 'docs/c.md'))
    const first = await run(on, path)
    assert.deepEqual(
      first.leftOut.map(({ what, where }) => `${what} ${where}`),
      ['link docs/c.md', 'file docs/a.md:2', 'file docs/a.md:2'],
    )
    const before = await contentOf(on.database)
    pages('whole', { 'README.md': '# Read me', 'en/x.md': '# X' })
    const second = await run(on, path)
    assert.deepEqual(second.counts['pages'], { made: 2, changed: 0, unchanged: 2, refused: 0 })
    const after = await contentOf(on.database)
    for (const version of before) assert.ok(after.some((one) => isDeepStrictEqual(one, version)))
  },
)
