import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { ImportSourceError } from '#cli/import/errors.ts'
import { readWxr, wordpressTime } from '#cli/import/wordpress/wxr.ts'
import type { WxrRecord } from '#cli/import/wordpress/wxr.ts'
import { realData } from '#test/support/data.ts'

const folder = mkdtempSync(join(tmpdir(), 'stoa-wxr-'))
after(() => rmSync(folder, { recursive: true }))

async function read(path: string): Promise<WxrRecord[]> {
  const records: WxrRecord[] = []
  for await (const record of readWxr(path)) records.push(record)
  return records
}

function file(xml: string): string {
  const path = join(folder, 'export.xml')
  writeFileSync(path, xml)
  return path
}

test('a small export: site, author, terms, an item with all its parts', async () => {
  const records = await read(
    file(
      `<?xml version="1.0"?><rss xmlns:wp="w" xmlns:content="c"><channel>
    <title>Site &amp; more</title><link>https://example.org/</link><language>de</language>
      <wp:base_blog_url>https://example.org/blog/</wp:base_blog_url>
    <wp:author><wp:author_login>ann</wp:author_login><wp:author_display_name><![CDATA[Ann]]>
      </wp:author_display_name></wp:author>
    <wp:category><wp:category_nicename>child</wp:category_nicename>
      <wp:category_parent>top</wp:category_parent><wp:cat_name>Child</wp:cat_name></wp:category>
    <wp:tag><wp:tag_slug>%e6%97%a5</wp:tag_slug><wp:tag_name>日</wp:tag_name></wp:tag>
    <image><url>x</url></image>
    <item><title>A\u000B]]&gt;</title>
      <content:encoded><![CDATA[one]]> <![CDATA[two]]></content:encoded>
      <wp:post_id>7</wp:post_id><wp:post_type>post</wp:post_type>
      <wp:status>publish</wp:status>
      <category domain="post_tag" nicename="x"><![CDATA[X]]></category><wp:postmeta>
        <wp:meta_key>_thumbnail_id</wp:meta_key><wp:meta_value>9</wp:meta_value></wp:postmeta>
      <wp:comment><wp:comment_id>1</wp:comment_id><wp:comment_approved>1</wp:comment_approved>
        <wp:comment_content>Hi<b>!</b></wp:comment_content><wp:commentmeta>
        <wp:meta_key>k</wp:meta_key></wp:commentmeta></wp:comment></item>
  </channel></rss>`.replace('Hi<b>!</b>', '<![CDATA[Hi]]>'),
    ),
  )
  assert.deepEqual(
    records.map((record) => record.is),
    ['site', 'author', 'term', 'term', 'item'],
  )
  assert.deepEqual(records[0], {
    is: 'site',
    title: 'Site & more',
    url: 'https://example.org/blog',
    language: 'de',
  })
  assert.deepEqual(records[2], {
    is: 'term',
    term: { taxonomy: 'category', slug: 'child', name: 'Child', parent: 'top', description: '' },
  })
  assert.ok(records[3]?.is === 'term' && records[3].term.slug === '日')
  assert.ok(records[4]?.is === 'item')
  const { item } = records[4]
  assert.deepEqual(
    [item.id, item.kind, item.title, item.content, item.terms, item.meta.get('_thumbnail_id')],
    ['7', 'post', 'A]]>', 'one two', [{ taxonomy: 'post_tag', slug: 'x', name: 'X' }], '9'],
  )
  assert.deepEqual(
    item.comments.map(({ id, content, approved, kind }) => ({ id, content, approved, kind })),
    [{ id: '1', content: 'Hi', approved: true, kind: 'comment' }],
  )
})

test('what is no export is refused with what it is', async () => {
  await assert.rejects(read(file('<html><body/></html>')), /begins with <html>/)
  await assert.rejects(read(file('<rss><channel><item></channel></rss>')), ImportSourceError)
  await assert.rejects(read(file('<rss><channel><item>')), ImportSourceError)
  await assert.rejects(read(file('not XML at all')), ImportSourceError)
  await assert.rejects(read(file('')), ImportSourceError)
  await assert.rejects(read(join(folder, 'gone.xml')), /cannot be read/)
})

test('an entity bomb expands to nothing', async () => {
  const bomb =
    '<!DOCTYPE rss [<!ENTITY a "aaaaaaaaaa"><!ENTITY b ' +
    '"&a;&a;&a;&a;&a;&a;&a;&a;">]><rss><channel><title>&b;</title></channel></rss>'
  await assert.rejects(read(file(bomb)), ImportSourceError)
})

test('times of WordPress', () => {
  assert.deepEqual(
    ['2012-01-07 14:26:43', '0000-00-00 00:00:00', '2012-02-30 00:00:00', '', '2012-01-07'].map(
      wordpressTime,
    ),
    ['2012-01-07T14:26:43.000Z', null, null, null, null],
  )
})

const real = realData('themeunittestdata.wordpress.xml')
test('the theme unit test data: every record', { skip: real.skip }, async () => {
  const counts: Record<string, number> = {}
  for (const record of await read(real.path)) {
    const name = nameOf(record)
    counts[name] = (counts[name] ?? 0) + 1
  }
  assert.deepEqual(counts, {
    site: 1,
    author: 2,
    category: 69,
    post_tag: 110,
    nav_menu: 6,
    'post publish': 55,
    'page publish': 21,
    'attachment inherit': 37,
    'nav_menu_item publish': 70,
    'post future': 1,
    'post draft': 1,
    'post publish protected': 1,
  })
})

function nameOf(record: WxrRecord): string {
  if (record.is === 'term') return record.term.taxonomy
  if (record.is !== 'item') return record.is
  const { kind, status, password } = record.item
  return `${kind} ${status}${password === '' ? '' : ' protected'}`
}
