import assert from 'node:assert/strict'
import { sql } from '#database/database.ts'
import type { Persona, Site, SiteResponse } from '#test/support/site.ts'

/**
 * A row for every route: a request, and the status that each caller gets. `stranger` is an author
 * to whom the entry does not belong; `author` owns it. A test fails for a route without a row, and
 * for a row without a route.
 */
export type Who = 'anonymous' | 'stranger' | 'author' | 'editor' | 'administrator'
export const everyone: readonly Who[] = [
  'anonymous',
  'stranger',
  'author',
  'editor',
  'administrator',
]
type Statuses = readonly [
  anonymous: number,
  stranger: number,
  author: number,
  editor: number,
  administrator: number,
]
/**
 * The entry that a request is about, created for every request, and owned by the author where
 * `own`. It is published, and has a newer draft.
 */
export type World = { readonly site: Site; readonly id: string; readonly own: boolean }
export type RouteRequest = {
  readonly url: string
  readonly body?: unknown
  readonly headers?: Readonly<Record<string, string>>
}
type Row = {
  readonly statuses: Statuses
  readonly ask: (world: World) => RouteRequest | Promise<RouteRequest>
}

const all = (status: number): Statuses => [status, status, status, status, status]
const administrators = (status: number): Statuses => [401, 403, 403, 403, status]
const editors = (status: number): Statuses => [401, 403, 403, status, status]
const owners = (status: number): Statuses => [401, 403, status, status, status]
const signedIn = (status: number): Statuses => [401, status, status, status, status]

const row = (statuses: Statuses, ask: Row['ask'] | string): Row => ({
  statuses,
  ask: typeof ask === 'string' ? () => ({ url: ask }) : ask,
})
const note =
  (suffix: string, body?: unknown) =>
  ({ id }: World): RouteRequest => ({
    url: `/api/content/note/${id}${suffix}`,
    ...(body === undefined ? {} : { body }),
  })

let counter = 0
export const unique = (prefix: string): string => `${prefix}${(counter += 1)}`

/** Sends a request that must succeed; `route` is its method and URL. */
export async function made(
  site: Site,
  route: string,
  body?: unknown,
  as: Persona = 'administrator',
): Promise<SiteResponse> {
  const [method = '', url = ''] = route.split(' ')
  const response = await site.request(method, url, { as, ...(body === undefined ? {} : { body }) })
  assert.ok(response.status < 300, `${route}: ${response.text}`)
  return response
}

const release = async ({ site, id }: World, filled = true): Promise<string> => {
  const { json } = await made(site, 'POST /api/releases', { name: unique('r') })
  if (filled)
    await made(site, `POST /api/releases/${json.data.id}/items`, {
      items: [{ entryId: id, locale: 'en', action: 'publish', version: 2 }],
    })
  return json.data.id
}
const insertJob = sql<{ id: string }>(
  `insert into stoa.job (kind, payload, state) values ('test', 'null', 'parked') returning id`,
)
const job = async ({ site }: World): Promise<string> => (await site.database.run(insertJob))[0]!.id
const user = async ({ site }: World): Promise<string> =>
  (
    await made(site, 'POST /api/users', {
      email: `${unique('u')}@example.org`,
      name: 'U',
      password: 'correct horse battery',
      roles: ['author'],
    })
  ).json.data.id

const tus = { 'tus-resumable': '1.0.0' }
const fileForm = {
  headers: { 'content-type': 'multipart/form-data; boundary=part' },
  body:
    '--part\r\ncontent-disposition: form-data; name="file"; filename="file.txt"\r\n\r\n' +
    'hello\r\n--part--\r\n',
}
const asset = async ({ site }: World): Promise<string> => {
  const { status, json } = await site.request('POST', '/api/assets', fileForm)
  assert.equal(status, 201)
  return json.data[0].id
}
const upload = async (site: Site): Promise<string> =>
  (await site.request('POST', '/api/uploads', { headers: { ...tus, 'upload-length': '3' } }))
    .headers['location'] ?? ''

export const rows: Readonly<Record<string, Row>> = {
  'GET /healthz/live': row(all(200), '/healthz/live'),
  'GET /healthz/ready': row(all(200), '/healthz/ready'),
  'GET /metrics': row(all(200), '/metrics'),
  'GET /api/cluster': row(administrators(200), '/api/cluster'),
  'GET /api/cluster/findings': row(administrators(200), '/api/cluster/findings'),
  'GET /api/events': row(all(200), '/api/events?follow=false'),
  'GET /openapi.json': row(all(200), '/openapi.json'),
  'GET /docs': row(all(200), '/docs'),
  'GET /docs/:page': row(all(200), '/docs/glossary'),
  'GET /docs/:group/:page': row(all(200), '/docs/reference/errors'),
  'GET /': row(all(200), '/'),
  'GET /reference': row(all(200), '/reference'),
  'GET /sign-in': row(all(200), '/sign-in'),
  'GET /first-administrator': row(all(200), '/first-administrator'),
  'GET /static/:name': row(all(200), '/static/style.css'),
  'GET /read/:type/:id': row(all(200), ({ id }) => ({ url: `/read/note/${id}` })),

  'GET /api/content/:type': row(all(200), '/api/content/note'),
  'GET /api/search': row(all(200), '/api/search?q=stoa'),
  'GET /api/search/suggestions': row(all(200), '/api/search/suggestions?q=sto'),
  'GET /api/content/:type/:id': row(all(200), note('')),
  'POST /api/content/:type': row(signedIn(201), () => ({
    url: '/api/content/note',
    body: { fields: { title: 'New' } },
  })),
  'PATCH /api/content/:type/:id': row(owners(200), note('', { fields: { title: 'Changed' } })),
  'PUT /api/content/:type/:id': row(owners(200), note('', { fields: { title: 'Replaced' } })),
  'DELETE /api/content/:type/:id': row(owners(200), note('')),
  'POST /api/content/:type/:id/publish': row(owners(200), note('/publish')),
  'POST /api/content/:type/:id/unpublish': row(owners(200), note('/unpublish')),
  'POST /api/content/:type/:id/archive': row(owners(200), note('/archive')),
  'POST /api/content/:type/:id/unarchive': row(owners(200), note('/unarchive')),
  'POST /api/content/:type/:id/restore': row(owners(200), note('/restore', { version: 1 })),
  'GET /api/content/:type/:id/locales': row(all(200), note('/locales')),
  'GET /api/content/:type/:id/versions': row(owners(200), note('/versions')),
  'GET /api/content/:type/:id/versions/:version': row(owners(200), note('/versions/2')),
  'POST /api/content/:type/:id/schedule': row(
    owners(201),
    note('/schedule', { action: 'unpublish', dueAt: '2040-01-01T00:00:00Z' }),
  ),
  'GET /api/content/:type/:id/schedule': row(owners(200), note('/schedule')),
  'DELETE /api/content/:type/:id/schedule/:scheduleId': row(owners(200), async ({ site, id }) => {
    const { json } = await made(site, `POST /api/content/note/${id}/schedule`, {
      action: 'unpublish',
      dueAt: '2040-01-01T00:00:00Z',
    })
    return { url: `/api/content/note/${id}/schedule/${json.data.id}` }
  }),

  'GET /api/types': row(all(200), '/api/types'),
  'GET /api/types/:name': row(all(200), '/api/types/note'),
  'PUT /api/types/:name': row(administrators(201), () => ({
    url: `/api/types/${unique('t')}`,
    body: { label: 'T', fields: [{ name: 'a', kind: 'text' }] },
  })),
  'DELETE /api/types/:name': row(administrators(204), async ({ site }) => {
    const name = unique('t')
    await made(site, `PUT /api/types/${name}`, {
      label: 'T',
      fields: [{ name: 'a', kind: 'text' }],
    })
    return { url: `/api/types/${name}` }
  }),
  'GET /api/receipts/:token': row(signedIn(404), '/api/receipts/none'),
  'GET /api/locales': row(all(200), '/api/locales'),
  'GET /api/locales/:code': row(all(200), '/api/locales/en'),
  'PUT /api/locales/:code': row(administrators(200), () => ({
    url: '/api/locales/fr',
    body: { fallback: 'en' },
  })),
  'DELETE /api/locales/:code': row(administrators(204), async ({ site }) => {
    await made(site, 'PUT /api/locales/nl', { fallback: 'en' })
    return { url: '/api/locales/nl' }
  }),

  'GET /api/releases': row(editors(200), '/api/releases'),
  'GET /api/releases/:id': row(editors(200), async (world) => ({
    url: `/api/releases/${await release(world)}`,
  })),
  'POST /api/releases': row(editors(201), () => ({
    url: '/api/releases',
    body: { name: 'Spring' },
  })),
  'DELETE /api/releases/:id': row(editors(204), async (world) => ({
    url: `/api/releases/${await release(world)}`,
  })),
  'POST /api/releases/:id/items': row(editors(200), async (world) => ({
    url: `/api/releases/${await release(world, false)}/items`,
    body: { items: [{ entryId: world.id, locale: 'en', action: 'publish', version: 2 }] },
  })),
  'DELETE /api/releases/:id/items/:entryId/:locale': row(editors(200), async (world) => ({
    url: `/api/releases/${await release(world)}/items/${world.id}/en`,
  })),
  'POST /api/releases/:id/publish': row(editors(200), async (world) => ({
    url: `/api/releases/${await release(world)}/publish`,
  })),
  'POST /api/releases/:id/undo': row(editors(200), async (world) => {
    const id = await release(world)
    await made(world.site, `POST /api/releases/${id}/publish`)
    return { url: `/api/releases/${id}/undo` }
  }),

  'GET /api/session': row(all(200), '/api/session'),
  'POST /api/session': row(all(401), () => ({
    url: '/api/session',
    body: { email: `${unique('x')}@example.org`, password: 'wrong' },
  })),
  'DELETE /api/session': row(signedIn(204), '/api/session'),
  'POST /api/first-administrator': row(all(403), () => ({
    url: '/api/first-administrator',
    body: { secret: 'x', email: 'a@example.org', name: 'A', password: 'correct horse battery' },
  })),
  // A token is no user, so it has no name to change.
  'PATCH /api/users/me': row([401, 403, 403, 403, 403], () => ({
    url: '/api/users/me',
    body: { name: 'Me' },
  })),
  'GET /api/users': row(administrators(200), '/api/users'),
  'GET /api/users/:id': row(administrators(200), async (world) => ({
    url: `/api/users/${await user(world)}`,
  })),
  'POST /api/users': row(administrators(201), () => ({
    url: '/api/users',
    body: {
      email: `${unique('n')}@example.org`,
      name: 'N',
      password: 'correct horse battery',
      roles: ['author'],
    },
  })),
  'PATCH /api/users/:id': row(administrators(200), async (world) => ({
    url: `/api/users/${await user(world)}`,
    body: { name: 'Renamed' },
  })),
  'DELETE /api/users/:id': row(administrators(204), async (world) => ({
    url: `/api/users/${await user(world)}`,
  })),
  'DELETE /api/users/:id/sessions': row(administrators(200), async (world) => ({
    url: `/api/users/${await user(world)}/sessions`,
  })),
  'GET /api/roles': row(administrators(200), '/api/roles'),
  'GET /api/roles/:name': row(administrators(200), '/api/roles/editor'),
  'PUT /api/roles/:name': row(administrators(200), () => ({
    url: `/api/roles/${unique('r')}`,
    body: { label: 'R', content: [], system: [] },
  })),
  'DELETE /api/roles/:name': row(administrators(204), async ({ site }) => {
    const name = unique('r')
    await made(site, `PUT /api/roles/${name}`, { label: 'R', content: [], system: [] })
    return { url: `/api/roles/${name}` }
  }),
  'GET /api/tokens': row(administrators(200), '/api/tokens'),
  'POST /api/tokens': row(administrators(201), () => ({
    url: '/api/tokens',
    body: { name: 'T', roles: ['author'] },
  })),
  'DELETE /api/tokens/:id': row(administrators(204), async ({ site }) => {
    const token = { name: 'T', roles: ['author'] }
    const { json } = await made(site, 'POST /api/tokens', token)
    return { url: `/api/tokens/${json.data.info.id}` }
  }),
  'GET /api/jobs': row(administrators(200), '/api/jobs'),
  'GET /api/jobs/:id': row(administrators(200), async (world) => ({
    url: `/api/jobs/${await job(world)}`,
  })),
  'POST /api/jobs/:id/retry': row(administrators(200), async (world) => ({
    url: `/api/jobs/${await job(world)}/retry`,
  })),
  'POST /api/jobs/:id/cancel': row(administrators(200), async (world) => ({
    url: `/api/jobs/${await job(world)}/cancel`,
  })),
  'GET /api/audit': row(administrators(200), '/api/audit'),

  'GET /api/assets': row(signedIn(200), '/api/assets'),
  'POST /api/assets': row(signedIn(201), () => ({ url: '/api/assets', ...fileForm })),
  'GET /api/assets/:id': row(signedIn(200), async (world) => ({
    url: `/api/assets/${await asset(world)}`,
  })),
  'PATCH /api/assets/:id': row(signedIn(200), async (world) => ({
    url: `/api/assets/${await asset(world)}`,
    body: { alt: { en: 'Seen' } },
  })),
  'DELETE /api/assets/:id': row(signedIn(204), async (world) => ({
    url: `/api/assets/${await asset(world)}`,
  })),
  'GET /assets/:id/:name': row(all(200), async (world) => ({
    url: `/assets/${await asset(world)}/file.txt`,
  })),
  'OPTIONS /api/uploads': row(all(204), '/api/uploads'),
  'POST /api/uploads': row(signedIn(201), () => ({
    url: '/api/uploads',
    headers: { ...tus, 'upload-length': '3' },
  })),
  // An upload is its maker's, here the administrator's; to others it does not exist.
  'PATCH /api/uploads/:id': row([401, 404, 404, 404, 204], async ({ site }) => ({
    url: await upload(site),
    headers: { ...tus, 'upload-offset': '0', 'content-type': 'application/offset+octet-stream' },
    body: 'abc',
  })),
  'DELETE /api/uploads/:id': row([401, 404, 404, 404, 204], async ({ site }) => ({
    url: await upload(site),
    headers: tus,
  })),
}
