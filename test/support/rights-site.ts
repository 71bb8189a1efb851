import { accepted, equals } from '#test/support/role-client.ts'
import { testSite } from '#test/support/site.ts'
import type { Site, SiteJson } from '#test/support/site.ts'

/** A site with articles, for tests of rights over HTTP. */

const article = {
  label: 'Article',
  fields: [
    { name: 'title', kind: 'text', required: true, localized: true },
    { name: 'section', kind: 'text', filterable: true },
    { name: 'code', kind: 'text', unique: true },
    { name: 'notes', kind: 'text', localized: true },
    { name: 'tag', kind: 'reference', types: ['tag'], onDelete: 'unset' },
    { name: 'topic', kind: 'reference', types: ['tag'] },
    { name: 'parent', kind: 'reference', types: ['article'], onDelete: 'cascade' },
    { name: 'cover', kind: 'reference', types: ['tag'], onDelete: 'unset' },
  ],
}

export const tag = { label: 'Tag', fields: [{ name: 'name', kind: 'text', required: true }] }

export const news = equals('section', 'news')

export const all = ['read', 'readDraft', 'create', 'update', 'publish', 'archive', 'delete']

export async function rightsSite(): Promise<Site> {
  const site = await testSite()
  await accepted(site.request('PUT', '/api/types/tag', { body: tag }))
  await accepted(site.request('PUT', '/api/types/article', { body: article }))
  await accepted(site.request('PUT', '/api/locales/de', { body: { fallback: 'en' } }))
  // Everything published is public by default; these tests are about what is hidden.
  await accepted(
    site.request('PUT', '/api/roles/anonymous', {
      body: { label: 'Anonymous', content: [], system: [] },
    }),
  )
  site.forgetDocument()
  return site
}

export async function make(site: Site, fields: object, options: object = {}): Promise<string> {
  const body = { fields: { title: 'Kept from you', ...fields }, ...options }
  return (await accepted(site.request('POST', '/api/content/article', { body }))).data.id
}

export const url = (id: string, suffix = ''): string => `/api/content/article/${id}${suffix}`

export async function draftOf(site: Site, id: string, query = ''): Promise<SiteJson> {
  return (await accepted(site.get(url(id, `?perspective=draft${query}`)))).data
}
