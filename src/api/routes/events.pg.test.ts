import assert from 'node:assert/strict'
import { test } from 'node:test'
import { sql } from '#database/database.ts'
import { databaseMissing as skip } from '#test/support/database.ts'
import { EventClient } from '#test/support/event-client.ts'
import { accepted, equals, grantOn } from '#test/support/role-client.ts'
import { testSite } from '#test/support/site.ts'
import type { Site } from '#test/support/site.ts'

/** `/api/events` over real connections. */

const article = {
  label: 'Article',
  fields: [
    { name: 'title', kind: 'text', required: true, filterable: true },
    { name: 'section', kind: 'text', filterable: true },
    { name: 'code', kind: 'text', filterable: true },
  ],
}
const truncate = sql(`truncate stoa.version cascade`)

type EventSite = AsyncDisposable & {
  readonly site: Site
  readonly origin: string
  follow(query?: string, headers?: Readonly<Record<string, string>>): Promise<EventClient>
  token(name: string, content: readonly object[]): Promise<Readonly<Record<string, string>>>
}

async function eventSite(config: object = {}): Promise<EventSite> {
  await using opened = new AsyncDisposableStack()
  const site = opened.use(await testSite({ config }))
  await accepted(site.request('PUT', '/api/types/article', { body: article }))
  site.forgetDocument()
  const origin = await site.server.listen({ port: 0, host: '127.0.0.1' })
  const closing = opened.move()
  return {
    site,
    origin,
    follow: (query = '', headers = {}) =>
      new EventClient(() => [`${origin}/api/events${query}`], headers).begun(),
    token: async (name, content) => {
      const body = { label: name, content, system: [] }
      await accepted(site.request('PUT', `/api/roles/${name}`, { body }))
      const made = site.request('POST', '/api/tokens', { body: { name, roles: [name] } })
      return { authorization: `Bearer ${(await accepted(made)).data.token}` }
    },
    [Symbol.asyncDispose]: () => closing.disposeAsync(),
  }
}

async function make(site: Site, fields: object, publish = true): Promise<string> {
  const body = { fields: { title: 'T', ...fields }, publish }
  return (await accepted(site.request('POST', '/api/content/article', { body }))).data.id
}

async function change(site: Site, id: string, fields: object, publish = true): Promise<void> {
  const body = { fields, publish }
  await accepted(site.request('PATCH', `/api/content/article/${id}`, { body }))
}

const act = (site: Site, id: string, action: string) =>
  accepted(site.request('POST', `/api/content/article/${id}/${action}`))

const actions = ({ events }: EventClient): string[] =>
  events.map(({ name, data }) => (name === 'entry' ? data.action : name))

test(
  'a client gets what enters, changes and leaves, with the token to see it by',
  { skip },
  async () => {
    await using it = await eventSite()
    await using all = await it.follow()
    await using drafts = await it.follow('?perspective=draft', {
      authorization: `Bearer ${it.site.tokens.get('administrator')}`,
    })
    await using news = await it.follow('?type=article&where[section][eq]=news')
    const id = await make(it.site, { section: 'news' })
    await change(it.site, id, { title: 'Draft' }, false)
    await act(it.site, id, 'publish')
    await change(it.site, id, { section: 'sport' })
    await act(it.site, id, 'unpublish')
    await all.until(({ events }) => events.length === 4, 'four events')
    await news.until(({ events }) => events.length === 3, 'three events')
    await drafts.until(({ events }) => events.length === 5, 'five events')
    assert.deepEqual(actions(all), ['entered', 'changed', 'changed', 'left'])
    assert.deepEqual(actions(news), ['entered', 'changed', 'left'])
    assert.deepEqual(actions(drafts), ['entered', 'changed', 'changed', 'changed', 'changed'])
    for (const { data } of all.events) {
      assert.equal(data.entry, id)
      const seen = await it.site.get(`/api/content/article/${id}`, {
        headers: { 'stoa-token': data.token },
      })
      assert.ok([200, 404].includes(seen.status))
      assert.ok(data.tags.length > 0)
    }
  },
)

test('a client that comes again gets what it missed, and only that', { skip }, async () => {
  await using it = await eventSite()
  const first = await it.follow()
  await make(it.site, { section: 'a' })
  await first.until(({ events }) => events.length === 1, 'one event')
  await first[Symbol.asyncDispose]()
  const missed = [await make(it.site, { section: 'b' }), await make(it.site, { section: 'c' })]
  const url = `${it.origin}/api/events`
  await using second = new EventClient(() => [url], {}, first.lastEventId)
  await second.until(({ events }) => events.length === 2, 'two events')
  missed.push(await make(it.site, { section: 'd' }))
  await second.until(({ events }) => events.length === 3, 'three events')
  assert.deepEqual(
    second.events.map(({ data }) => data.entry),
    missed,
  )
  const { text, headers } = await it.site.get('/api/events?follow=false', {
    headers: { 'last-event-id': first.lastEventId },
  })
  assert.equal(headers['content-type'], 'text/event-stream')
  assert.deepEqual(
    [...text.matchAll(/"entry":"([^"]+)"/g)].map(([, id]) => id),
    missed,
  )
  assert.equal(text.match(/^id: /gm)?.length, 1, 'only the last event of a batch has the cursor')
})

test('a cursor that is not of this time begins anew', { skip }, async () => {
  await using it = await eventSite()
  await using before = await it.follow()
  const { lastEventId } = before
  const [epoch, snapshot] = lastEventId.split('/') as [string, string]
  const cursors = {
    unknown: 'nonsense',
    epoch: `${epoch.replace(/\d+$/, '999')}/${snapshot}`,
    behind: `${epoch}/1:1:`,
  }
  await it.site.database.run(sql(`update stoa.epoch set kept_from = '2'`))
  for (const [reason, cursor] of Object.entries(cursors)) {
    const { text } = await it.site.get('/api/events?follow=false', {
      headers: { 'last-event-id': cursor },
    })
    assert.match(text, new RegExp(`event: restart\\ndata: {"reason":"${reason}"}\\nid: `))
  }
  await using client = await it.follow()
  await it.site.database.run(truncate)
  await client.until(({ events }) => events.length === 1, 'a restart')
  assert.equal(client.events[0]?.data.reason, 'unrecorded')
})

test('nothing of an entry that is hidden from the caller is sent', { skip }, async () => {
  await using it = await eventSite()
  const headers = await it.token('reader', [
    grantOn('article', ['read'], { filter: equals('section', 'news'), fields: ['title'] }),
  ])
  await using reader = await it.follow('', headers)
  await using witness = await it.follow()
  const open = await make(it.site, { section: 'news', code: 'secret' })
  const hidden = await make(it.site, { section: 'sport' })
  await change(it.site, hidden, { title: 'Still hidden' })
  await change(it.site, open, { title: 'A draft' }, false)
  await change(it.site, open, { section: 'sport' })
  await change(it.site, open, { code: 'more' })
  await witness.until(({ events }) => events.length === 5, 'all five')
  await make(it.site, { section: 'news' })
  await reader.until(({ events }) => events.length === 3, 'three')
  assert.deepEqual(actions(reader), ['entered', 'left', 'entered'])
  assert.ok(reader.events.slice(0, 2).every(({ data }) => data.entry === open))
  // A tag is a hash of a value: those of fields that the caller may not see are not there.
  const [mine, theirs] = [reader, witness].map(({ events }) => new Set(events[0]!.data.tags))
  assert.ok([...mine!].every((tag) => theirs!.has(tag)))
  assert.equal(theirs!.size - mine!.size, 2, 'section and code')
  for (const query of [
    '?type=article&where[section][eq]=news',
    '?perspective=draft&type=article',
  ]) {
    const refused = await it.site.get(`/api/events${query}`, { as: 'anonymous', headers })
    assert.ok([400, 403].includes(refused.status), query)
  }
})

test('a right that is lost counts for the next event', { skip }, async () => {
  await using it = await eventSite()
  const grants = [grantOn('article', ['read'])]
  const narrow = [grantOn('article', ['read'], { filter: equals('section', 'news') })]
  const headers = await it.token('reader', grants)
  const other = await it.token('other', grants)
  await using reader = await it.follow('', headers)
  await using typed = await it.follow('?type=article', other)
  await make(it.site, { section: 'sport' })
  await reader.until(({ events }) => events.length === 1, 'the first')
  await accepted(
    it.site.request('PUT', '/api/roles/reader', {
      body: { label: 'reader', content: narrow, system: [] },
    }),
  )
  await make(it.site, { section: 'sport' })
  const last = await make(it.site, { section: 'news' })
  await reader.until(({ events }) => events.length === 2, 'the last')
  assert.equal(reader.events[1]?.data.entry, last)
  assert.equal(reader.connections, 1, 'the stream goes on')

  await typed.until(({ events }) => events.length === 3, 'all three')
  const { data } = (await it.site.get('/api/tokens')).json
  const { id } = data.find(({ name }: { name: string }) => name === 'other')
  await accepted(it.site.request('DELETE', `/api/tokens/${id}`))
  await make(it.site, { section: 'news' })
  await typed.until(({ statuses }) => statuses.includes(401), 'the stream ends')
  assert.equal(typed.events.length, 3)
})

test('events by tag are those of the responses that had the tag', { skip }, async () => {
  await using it = await eventSite()
  await using all = await it.follow()
  const id = await make(it.site, { section: 'news' })
  await all.until(({ events }) => events.length === 1, 'one event')
  const [tag] = all.events[0]!.data.tags
  await using tagged = await it.follow(`?tag=${tag}`)
  await make(it.site, { section: 'sport' })
  await change(it.site, id, { title: 'Other' })
  await tagged.until(({ events }) => events.length === 1, 'the one')
  assert.equal(tagged.events[0]?.data.entry, id)
})

test('bad questions are refused before a stream begins', { skip }, async () => {
  await using it = await eventSite()
  const cases: readonly [string, number, string][] = [
    ['?where[title][eq]=x', 400, 'E_QUERY_PARAMETER'],
    ['?perspective=release:x', 400, 'E_QUERY_PARAMETER'],
    ['?follow=perhaps', 400, 'E_QUERY_PARAMETER'],
    ['?sort=title', 400, 'E_QUERY_PARAMETER'],
    ['?type=nothing', 404, 'E_TYPE_NOT_FOUND'],
    ['?locale=xx', 404, 'E_LOCALE_NOT_FOUND'],
    ['?type=article&where[version][eq]=1', 400, 'E_QUERY_FIELD'],
    ['?type=article&where[status][eq]=changed', 400, 'E_QUERY_FIELD'],
    ['?type=article&where[title][lt]=', 200, ''],
    ['?type=article&where[nothing][eq]=1', 400, 'E_QUERY_FIELD'],
  ]
  for (const [query, status, code] of cases) {
    const response = await it.site.get(
      `/api/events${query}${query.includes('follow') ? '' : '&follow=false'}`,
    )
    assert.equal(response.status, status, `${query}: ${response.text}`)
    if (code !== '') assert.equal(response.json.code, code)
  }
})

test('one caller leaves places for others', { skip }, async () => {
  await using it = await eventSite({ eventStreamsMax: 2 })
  await using mine = await it.follow()
  const refused = await fetch(`${it.origin}/api/events`)
  assert.equal(refused.status, 503)
  await refused.body?.cancel()
  assert.ok(refused.headers.has('retry-after'))
  await using other = await it.follow('', {
    authorization: `Bearer ${it.site.tokens.get('author')}`,
  })
  mine.cut()
  await mine.until(({ connections }) => connections >= 2, 'it comes again')
  assert.equal(other.connections, 1)
})

test('a client that does not read is cut, and nothing is kept for it', { skip }, async () => {
  await using it = await eventSite()
  const { events, access } = it.site.server.api
  const credentials = { bearer: null, sessionCookie: null }
  let unread = 0
  let isCut = false
  const stream = await events.open(
    {
      credentials,
      identity: await access.identify(credentials),
      watched: {
        key: '',
        watch: { type: null, perspective: 'published', locale: null, read: null },
        tags: [],
      },
      lastEventId: null,
    },
    {
      write: ({ text }) => void (unread += text.length * 1_000),
      unreadBytes: () => unread,
      end: () => undefined,
      destroy: () => void (isCut = true),
    },
  )
  await using witness = await it.follow()
  for (const section of ['a', 'b']) await make(it.site, { section })
  await witness.until((client) => client.events.length === 2, 'both')
  assert.ok(isCut)
  assert.equal(events.streams, 1)
  stream[Symbol.dispose]()
  assert.equal(events.streams, 1, 'it is gone already')
})

test('a node that drains ends its streams', { skip }, async () => {
  await using it = await eventSite()
  const client = await it.follow()
  const cut = new Promise<void>((resolve) => {
    const timer = setInterval(() => {
      if (it.site.server.api.events.streams > 0) return
      clearInterval(timer)
      resolve()
    }, 5)
  })
  it.site.server.beginDrain()
  await cut
  await client.until(({ connections }) => connections > 1, 'it comes again')
  await client[Symbol.asyncDispose]()
})
