import type { ContentType } from '#content/content-type.ts'

export const category: ContentType = {
  name: 'category',
  label: 'Category',
  fields: [
    { name: 'name', kind: 'text', required: true },
    { name: 'parent', kind: 'reference', types: ['category'] },
  ],
}

export const article: ContentType = {
  name: 'article',
  label: 'Article',
  fields: [
    { name: 'title', kind: 'text', required: true, localized: true, filterable: true },
    { name: 'slug', kind: 'slug', from: 'title', localized: true },
    { name: 'body', kind: 'markdown', localized: true },
    { name: 'rank', kind: 'number', filterable: true },
    { name: 'sku', kind: 'text', unique: true },
    { name: 'category', kind: 'reference', types: ['category'], filterable: true },
  ],
}

export const types = [category, article]

export const put = (fields: Record<string, unknown>, locale: string | null = null) => ({
  locale,
  fields,
  merge: false,
})

export const patch = (fields: Record<string, unknown>, locale: string | null = null) => ({
  locale,
  fields,
  merge: true,
})

/** Publishes the latest version of each locale. */
export const all = { locales: null, version: null }
