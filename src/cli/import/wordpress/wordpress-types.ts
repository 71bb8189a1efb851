import type { ContentType, Field } from '#content/content-type.ts'

/** A WordPress site becomes one content type for each of these. */
export const wordpressKinds = ['author', 'category', 'tag', 'attachment', 'page', 'post'] as const
export type WordpressKind = (typeof wordpressKinds)[number]

/** Names of the types, under a prefix where the site has types of these names for other things. */
export function typeNames(prefix: string): Record<WordpressKind, string> {
  return Object.fromEntries(wordpressKinds.map((kind) => [kind, `${prefix}${kind}`])) as Record<
    WordpressKind,
    string
  >
}

const originalUrl: Field = {
  name: 'originalUrl',
  label: 'Original address',
  kind: 'text',
  lengthMax: 2_000,
}
const slug: Field = { name: 'slug', label: 'Slug', kind: 'slug', localized: true }

/** Returns the definitions, each of which refers only to itself, to earlier ones, or by name. */
export function wordpressTypes(names: Record<WordpressKind, string>): ContentType[] {
  return [
    {
      name: names.author,
      label: 'Author',
      titleField: 'name',
      fields: [
        { name: 'name', label: 'Name', kind: 'text' },
        { name: 'slug', label: 'Slug', kind: 'slug' },
        { name: 'firstName', label: 'First name', kind: 'text' },
        { name: 'lastName', label: 'Last name', kind: 'text' },
      ],
    },
    termType(names.category, 'Category', [refer('parent', 'Parent', names.category)]),
    termType(names.tag, 'Tag', []),
    attachmentType(names.attachment),
    {
      name: names.page,
      label: 'Page',
      titleField: 'title',
      fields: [
        ...entryFields(names),
        refer('parent', 'Parent', names.page),
        { name: 'menuOrder', label: 'Order', kind: 'number', integer: true, filterable: true },
        { name: 'template', label: 'Template', kind: 'text' },
      ],
    },
    {
      name: names.post,
      label: 'Post',
      titleField: 'title',
      fields: [
        ...entryFields(names),
        { ...refer('categories', 'Categories', names.category), many: true },
        { ...refer('tags', 'Tags', names.tag), many: true },
        { name: 'sticky', label: 'Sticky', kind: 'boolean', filterable: true },
        { name: 'format', label: 'Format', kind: 'text', filterable: true, lengthMax: 100 },
      ],
    },
  ]
}

type ReferenceField = Extract<Field, { kind: 'reference' }>

function refer(name: string, label: string, type: string): ReferenceField {
  return { name, label, kind: 'reference', types: [type], onDelete: 'unset', filterable: true }
}

function termType(name: string, label: string, more: readonly Field[]): ContentType {
  return {
    name,
    label,
    titleField: 'name',
    fields: [
      { name: 'name', label: 'Name', kind: 'text', localized: true },
      slug,
      { name: 'description', label: 'Description', kind: 'text', localized: true },
      ...more,
    ],
  }
}

function attachmentType(name: string): ContentType {
  return {
    name,
    label: 'Attachment',
    titleField: 'title',
    fields: [
      { name: 'title', label: 'Title', kind: 'text', localized: true },
      slug,
      { name: 'file', label: 'File', kind: 'asset', onDelete: 'restrict', filterable: true },
      { name: 'alt', label: 'Alternative text', kind: 'text', localized: true },
      { name: 'caption', label: 'Caption', kind: 'text', localized: true },
      { name: 'description', label: 'Description', kind: 'text', localized: true },
      originalUrl,
    ],
  }
}

function entryFields(names: Record<WordpressKind, string>): Field[] {
  return [
    { name: 'title', label: 'Title', kind: 'text', localized: true },
    slug,
    { name: 'body', label: 'Body', kind: 'richText', localized: true },
    { name: 'excerpt', label: 'Excerpt', kind: 'text', localized: true },
    refer('author', 'Author', names.author),
    { name: 'featuredImage', label: 'Featured image', kind: 'asset', onDelete: 'unset' },
    { name: 'commentsOpen', label: 'Takes comments', kind: 'boolean' },
    {
      name: 'comments',
      label: 'Comments',
      help: 'As they were in WordPress when the site was imported, approved ones only.',
      kind: 'json',
    },
    originalUrl,
  ]
}
