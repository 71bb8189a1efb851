import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import sharp from 'sharp'
import type { ReportDocument } from '#cli/import/report.ts'
import { fateOf } from '#cli/import/wordpress/wordpress-survey.ts'
import { readWxr } from '#cli/import/wordpress/wxr.ts'
import { importWordpress } from '#cli/import/wordpress/wordpress.ts'
import type { WordpressOptions } from '#cli/import/wordpress/wordpress.ts'
import { sql } from '#database/database.ts'
import { systemClock } from '#lib/clock.ts'
import { realData } from '#test/support/data.ts'
import { databaseMissing, testDatabase } from '#test/support/database.ts'
import { importing } from '#test/support/importing.ts'
import type { Importing } from '#test/support/importing.ts'

const folder = mkdtempSync(join(tmpdir(), 'stoa-wordpress-'))
after(() => rmSync(folder, { recursive: true }))
const options: WordpressOptions = {
  locale: null,
  prefix: null,
  publish: true,
  dryRun: false,
  mediaDir: null,
  download: false,
  allowPrivate: false,
  bytesMax: 10_000_000,
}

async function run(
  on: Importing,
  path: string,
  more: Partial<WordpressOptions> = {},
): Promise<ReportDocument> {
  const report = on.report()
  await importWordpress(
    path,
    { ...on, clock: systemClock },
    { ...options, ...more },
    { report, output: on.output, signal: new AbortController().signal },
  )
  return report.document()
}

const published = { locale: null, perspective: 'published' as const, fields: null, include: [] }
const draft = { ...published, perspective: 'draft' as const }

async function fieldsOf(
  on: Importing,
  type: string,
  slug: string,
  options: typeof draft | typeof published = published,
): Promise<Record<string, unknown>> {
  return JSON.parse(
    (await on.content.entries.get(on.call, type, slug, options)).entry.fieldsJson,
  ) as Record<string, unknown>
}

function item(id: number, kind: string, more: string): string {
  return `<item><title>Title ${id}</title><link>https://example.org/item-${id}/</link>
    <dc:creator>ann</dc:creator><wp:post_id>${id}</wp:post_id><wp:post_type>${kind}</wp:post_type>
    <wp:post_date_gmt>2012-01-0${id % 10} 10:00:00</wp:post_date_gmt>
      <wp:post_name>same</wp:post_name>${more}</item>`
}

function site(items: string): string {
  const path = join(folder, 'site.xml')
  writeFileSync(
    path,
    `<rss xmlns:wp="w" xmlns:dc="d" xmlns:content="c" xmlns:excerpt="e"><channel><title>T</title><link>https://example.org</link>
    <wp:category><wp:category_nicename>child</wp:category_nicename>
      <wp:category_parent>top</wp:category_parent><wp:cat_name>Child</wp:cat_name></wp:category>
    <wp:category><wp:category_nicename>top</wp:category_nicename><wp:cat_name>Top</wp:cat_name>
      </wp:category>${items}</channel></rss>`,
  )
  return path
}

const states = `${item(
  1,
  'post',
  `<wp:status>publish</wp:status><content:encoded>
  <![CDATA[See <a href="https://example.org/item-2/">it</a>
  <script>x</script> [gallery] <img src="/wp-content/uploads/2012/01/a-300x200.png">]]>
  </content:encoded><category domain="category" nicename="child">Child</category>
  <category domain="post_tag" nicename="new">New</category><wp:is_sticky>1</wp:is_sticky>
  <wp:postmeta><wp:meta_key>_thumbnail_id</wp:meta_key><wp:meta_value>9</wp:meta_value>
  </wp:postmeta><wp:comment><wp:comment_id>5</wp:comment_id>
  <wp:comment_author>Bob</wp:comment_author>
  <wp:comment_author_email>bob@example.org</wp:comment_author_email>
  <wp:comment_approved>1</wp:comment_approved><wp:comment_content><![CDATA[<b>Hi</b>
  <script>y</script>]]></wp:comment_content></wp:comment><wp:comment>
  <wp:comment_id>6</wp:comment_id><wp:comment_approved>0</wp:comment_approved></wp:comment>`,
)}
  ${item(2, 'post', '<wp:status>draft</wp:status>')}
  ${item(
    3,
    'post',
    `<wp:status>publish</wp:status><wp:post_password>secret</wp:post_password>
    <content:encoded>hidden</content:encoded>`,
  ).replace('https://example.org/item-3/', 'javascript:alert(1)')}
  ${item(4, 'post', '<wp:status>private</wp:status>')}
  ${item(5, 'post', '<wp:status>trash</wp:status>')}
  ${item(6, 'post', '<wp:status>future</wp:status>').replace('2012-01-06', '2040-01-06')}
  ${item(7, 'page', '<wp:status>publish</wp:status><wp:post_parent>8</wp:post_parent>')}
  ${item(8, 'page', '<wp:status>publish</wp:status><wp:post_parent>999</wp:post_parent>')}
  ${item(
    9,
    'attachment',
    `<wp:status>inherit</wp:status>
    <wp:attachment_url>https://example.org/wp-content/uploads/2012/01/a.png</wp:attachment_url>`,
  )}
  ${item(
    10,
    'attachment',
    `<wp:status>inherit</wp:status>
    <wp:attachment_url>http://127.0.0.1:1/b.png</wp:attachment_url>`,
  )}
  ${item(11, 'nav_menu_item', '<wp:status>publish</wp:status>')}
  ${item(12, 'product', '<wp:status>publish</wp:status>')}`

test(
  'every state, kind and relation of a small site; again: nothing',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase()
    await using on = importing(db)
    const media = join(folder, 'uploads')
    mkdirSync(join(media, '2012/01'), { recursive: true })
    writeFileSync(
      join(media, '2012/01/a.png'),
      await sharp({ create: { width: 8, height: 6, channels: 3, background: 'red' } })
        .png()
        .toBuffer(),
    )
    const path = site(states)
    const first = await run(on, path, { mediaDir: media, download: true })
    const counted = Object.fromEntries(
      Object.entries(first.counts).map(([what, { made, refused }]) => [
        what,
        `${made} made, ${refused} refused`,
      ]),
    )
    assert.deepEqual(counted, {
      locales: '0 made, 0 refused',
      types: '6 made, 0 refused',
      posts: '5 made, 1 refused',
      pages: '2 made, 0 refused',
      attachments: '2 made, 0 refused',
      'attachment files': '1 made, 1 refused',
      authors: '1 made, 0 refused',
      categories: '2 made, 0 refused',
      tags: '1 made, 0 refused',
      comments: '1 made, 1 refused',
      'menu items': '0 made, 1 refused',
      items: '0 made, 1 refused',
      schedules: '1 made, 0 refused',
    })
    assert.match(
      first.refused.find(({ what }) => what === 'attachment files')!.reason,
      /private network/,
    )

    const post = await fieldsOf(on, 'post', 'same')
    const linked = (await on.content.entries.get(on.call, 'post', 'same-2', draft)).entry
    const body = JSON.stringify(post['body'])
    assert.ok(
      body.includes(`"entry":"${linked.id}"`) &&
        body.includes(`"asset":"${String(post['featuredImage'])}"`) &&
        body.includes('[gallery]') &&
        !body.includes('script'),
    )
    assert.deepEqual(
      [post['sticky'], post['comments']],
      [true, [{ id: '5', author: 'Bob', kind: 'comment', text: 'Hi' }]],
    )
    assert.ok(!JSON.stringify(post).includes('bob@example.org'))
    const view = (await on.content.entries.get(on.call, 'post', 'same', published)).entry
    assert.deepEqual(
      [view.createdAt, view.publishedAt, view.firstPublishedAt],
      Array(3).fill('2012-01-01T10:00:00.000Z'),
    )
    for (const slug of ['same-2', 'same-3', 'same-4', 'same-6'])
      await assert.rejects(
        on.content.entries.get(on.call, 'post', slug, published),
        /no such entry/,
        slug,
      )
    const hidden = await fieldsOf(on, 'post', 'same-3', draft)
    assert.deepEqual(
      [hidden['title'], hidden['originalUrl'], post['originalUrl']],
      ['Title 3', undefined, 'https://example.org/item-1/'],
    )
    const page = await on.content.entries.get(on.call, 'page', 'same', {
      ...published,
      include: ['parent'],
    })
    assert.equal([...page.included.values()].length, 1)
    const [waiting] = await on.content.schedule.list(
      on.call,
      'post',
      (await on.content.entries.get(on.call, 'post', 'same-6', draft)).entry.id,
    )
    assert.deepEqual([waiting?.dueAt, waiting?.state], ['2040-01-06T10:00:00.000Z', 'waiting'])

    const versions = sql<{ versions: string; assets: string; schedules: string }>(
      'select (select count(*) from stoa.version) as versions, (select count(*) from ' +
        'stoa.asset) as assets, (select count(*) from stoa.schedule) as schedules',
    )
    const before = await on.database.run(versions)
    const second = await run(on, path, { mediaDir: media, download: true })
    assert.deepEqual(
      Object.values(second.counts).map(({ made, changed }) => made + changed),
      Object.values(second.counts).map(() => 0),
    )
    assert.deepEqual(await on.database.run(versions), before)
  },
)

test(
  'a type in the way gives the types other names; a chosen prefix that does not help is refused',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase()
    await using on = importing(db)
    await on.content.types.save(
      on.database,
      { name: 'page', label: 'Page', fields: [{ name: 'body', kind: 'markdown' }] },
      { expected: null, allowLoss: false },
    )
    const report = await run(on, site(item(1, 'page', '<wp:status>publish</wp:status>')))
    assert.match(report.remarks.find(({ what }) => what === 'types')!.reason, /named wp-…/)
    assert.equal((await fieldsOf(on, 'wp-page', 'same'))['title'], 'Title 1')
    await assert.rejects(
      run(on, site(item(1, 'page', '')), { prefix: '' }),
      /Choose another --prefix/,
    )
  },
)

test('what was scheduled for a time that has come is published with it', () => {
  const future = { status: 'future', password: '', date: '', dateGmt: '2020-01-01 00:00:00' }
  assert.deepEqual(fateOf(future, Date.parse('2021-01-01')), {
    is: 'publish',
    at: '2020-01-01T00:00:00.000Z',
  })
  assert.equal(fateOf({ ...future, password: 'x' }, Date.parse('2021-01-01')).is, 'draft')
  assert.equal(fateOf({ ...future, dateGmt: '' }, 0).is, 'draft')
  assert.equal(fateOf({ ...future, status: 'something' }, 0).is, 'draft')
})

const real = realData('themeunittestdata.wordpress.xml')
test(
  'the theme unit test data, without a network; again: nothing',
  { skip: databaseMissing === false ? real.skip : databaseMissing },
  async () => {
    await using db = await testDatabase()
    await using on = importing(db)
    const first = await run(on, real.path)
    const counted = Object.fromEntries(
      Object.entries(first.counts).map(([what, { made, refused }]) => [what, [made, refused]]),
    )
    assert.deepEqual(counted, {
      locales: [0, 0],
      types: [6, 0],
      menus: [0, 6],
      'menu items': [0, 70],
      authors: [3, 0],
      categories: [68, 0],
      tags: [114, 0],
      attachments: [37, 0],
      'attachment files': [0, 37],
      posts: [58, 0],
      pages: [21, 0],
      comments: [30, 3],
      schedules: [1, 0],
    })
    const status = sql<{ type: string; published: string; drafts: string }>(
      `select type, count(*) filter (where is_published) as published, count(*) filter (where ` +
        `not is_published) as drafts from stoa.version where type in ('post', 'page') group by ` +
        `type order by type`,
    )
    assert.deepEqual(await on.database.run(status), [
      { type: 'page', published: '21', drafts: '0' },
      { type: 'post', published: '55', drafts: '3' },
    ])
    assert.equal(
      (await fieldsOf(on, 'post', 'markup-title-with-markup'))['title'],
      'Markup: Title With Markup',
    )
    await assert.rejects(
      on.content.entries.get(on.call, 'post', 'template-password-protected', published),
      /no such entry/,
    )
    assert.ok(
      !JSON.stringify(await on.database.run(sql('select data from stoa.version'))).includes(
        '<script',
      ),
    )
    const second = await run(on, real.path)
    assert.deepEqual(
      Object.values(second.counts).map(({ made, changed }) => made + changed),
      Object.values(second.counts).map(() => 0),
    )
    assert.equal(
      (
        await on.database.run(sql<{ top: number }>('select max(number) as top from stoa.version'))
      )[0]?.top,
      1,
    )
  },
)

/** A site with an author, a category and a page whose names every site has. */
function ordinarySite(name: string, url: string, more = ''): string {
  const path = join(folder, `${name}.xml`)
  writeFileSync(
    path,
    `<rss xmlns:wp="w" xmlns:dc="d" xmlns:content="c"><channel><title>T</title>
      <wp:base_blog_url>${url}</wp:base_blog_url>
    <wp:author><wp:author_login>admin</wp:author_login>
      <wp:author_display_name>Admin of ${name}</wp:author_display_name></wp:author>
    <wp:category><wp:category_nicename>uncategorized</wp:category_nicename>
      <wp:cat_name>Uncategorized</wp:cat_name></wp:category>
    <item><title>About ${name}</title><link>${url}/about/</link><dc:creator>admin</dc:creator>
      <wp:post_id>1</wp:post_id><wp:post_type>post</wp:post_type>
      <wp:post_name>about</wp:post_name><wp:status>publish</wp:status>
      <category domain="category" nicename="uncategorized">Uncategorized</category>${more}</item>
      </channel></rss>`,
  )
  return path
}

const everyEntry = sql<{ type: string; slug: string; author: string | null }>(
  `select e.type, v.filter ->> 'slug' as slug, v.filter ->> 'author' as author
   from stoa.entry e left join stoa.version v on v.entry_id = e.id and v.is_latest order by 1, 2`,
)

test(
  'a second site leaves the first alone, and the same site under https is the same site',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase()
    await using on = importing(db)
    await run(on, ordinarySite('one', 'http://one.example'))
    const first = await on.database.run(everyEntry)
    const same = await run(on, ordinarySite('one', 'https://www.one.example/'))
    assert.deepEqual(same.counts['posts'], { made: 0, changed: 1, unchanged: 0, refused: 0 })
    assert.deepEqual(await on.database.run(everyEntry), first)

    const second = await run(on, ordinarySite('two', 'https://two.example'))
    assert.deepEqual(second.refused, [])
    const both = await on.database.run(everyEntry)
    for (const row of first) assert.ok(both.some((one) => one.slug === row.slug))
    assert.equal(both.length, first.length * 2)
    assert.ok(
      both.every((row) => row.slug !== null && (row.type !== 'post' || row.author !== null)),
    )
    assert.deepEqual(
      (await fieldsOf(on, 'post', 'about'))['title'],
      'About one',
      'the slug of the first site stays its own',
    )
    const again = await run(on, ordinarySite('two', 'https://two.example'))
    assert.deepEqual(again.counts['posts'], { made: 0, changed: 0, unchanged: 1, refused: 0 })
  },
)

test(
  'what an export has and Stoa has not is counted and named',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase()
    await using on = importing(db)
    const meta = (key: string): string =>
      `<wp:postmeta><wp:meta_key>${key}</wp:meta_key><wp:meta_value>1</wp:meta_value></wp:postmeta>`
    const report = await run(
      on,
      ordinarySite(
        'lossy',
        'https://lossy.example',
        `${meta('price')}${meta('_edit_last')}
        <category domain="language" nicename="de">Deutsch</category>
          <category domain="tag" nicename="red">Red</category>
      <content:encoded><![CDATA[[caption id="x"]a[/caption] <img src="data:image/png;base64,AA">
        <img src="data:x" data-src="/real.png"> <a href="#part">down</a> [sic] <form><input>
        </form>]]></content:encoded>`,
      ),
    )
    assert.deepEqual(report.leftOut.map(({ what, where }) => `${what}: ${where}`).toSorted(), [
      'custom fields: price',
      'shortcodes: caption',
      'taxonomies: language',
      'texts: <form>',
      'texts: <input>',
      'texts: anchors that links in the text lead to',
      'texts: images without an address of the web (data: and the like)',
    ])
    const fields = await fieldsOf(on, 'post', 'about')
    assert.match(JSON.stringify(fields['body']), /"src":"\/real.png"/)
    assert.equal((fields['tags'] as unknown[]).length, 1)
  },
)

test(
  'a symbolic link in the media folder does not make a file of this machine an asset',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase()
    await using on = importing(db)
    const media = join(folder, 'linked-media')
    mkdirSync(media)
    writeFileSync(join(folder, 'secret.txt'), 'secret')
    symlinkSync(join(folder, 'secret.txt'), join(media, 'a.txt'))
    writeFileSync(join(folder, 'inside.txt'), 'inside')
    writeFileSync(join(media, 'real.txt'), 'inside')
    symlinkSync(join(media, 'real.txt'), join(media, 'b.txt'))
    const attachment = (id: number, name: string): string =>
      item(
        id,
        'attachment',
        `<wp:status>inherit</wp:status>
          <wp:attachment_url>https://example.org/wp-content/uploads/${name}</wp:attachment_url>`,
      )
    const path = site(attachment(1, 'a.txt') + attachment(2, 'b.txt'))
    const report = await run(on, path, { mediaDir: media })
    assert.deepEqual(
      report.refused.map(({ what, where }) => `${what} ${where}`),
      ['attachment files https://example.org/wp-content/uploads/a.txt'],
    )
    assert.deepEqual(report.counts['attachment files'], {
      made: 1,
      changed: 0,
      unchanged: 0,
      refused: 1,
    })
  },
)

test('an export in another encoding is read as that encoding', async () => {
  const text = (encoding: string): string =>
    `<?xml version="1.0" ` +
    `encoding="${encoding}"?><rss><channel><title>Café</title>
      <wp:base_blog_url>https://a.example</wp:base_blog_url></channel></rss>`
  const files: readonly (readonly [string, Buffer])[] = [
    ['latin1', Buffer.from(text('ISO-8859-1'), 'latin1')],
    ['utf16', Buffer.concat([Buffer.from([0xff, 0xfe]), Buffer.from(text('UTF-16'), 'utf16le')])],
    ['utf8', Buffer.from(`\uFEFF${text('UTF-8')}`)],
  ]
  for (const [name, bytes] of files) {
    const path = join(folder, `${name}.xml`)
    writeFileSync(path, bytes)
    for await (const record of readWxr(path))
      assert.equal(record.is === 'site' && record.title, 'Café', name)
  }
  const unknown = join(folder, 'unknown.xml')
  writeFileSync(unknown, text('EBCDIC-X'))
  await assert.rejects(readWxr(unknown).next(), /convert it to UTF-8/)
})
