import type { ContentType, Field } from '#content/content-type.ts'

/** What becomes of a WordPress site: one content type for each of these. */
export const wordpressKinds = ['author', 'category', 'tag', 'attachment', 'page', 'post'] as const
export type WordpressKind = (typeof wordpressKinds)[number]

/** Names of the types, under a prefix where the site has types of these names for other things. */
export function typeNames(prefix: string): Record<WordpressKind, string> {
  return Object.fromEntries(wordpressKinds.map((kind) => [kind, `${prefix}${kind}`])) as Record<
    WordpressKind,
    string
  >
}

/**
 * The definitions, in an order in which each refers only to itself, to earlier ones, or by name
 * alone.
 */
export function wordpressTypes(names: Record<WordpressKind, string>): ContentType[] {
  const originalUrl: Field = {
    name: 'originalUrl',
    label: 'Original address',
    kind: 'text',
    lengthMax: 2_000,
  }
  const slug: Field = { name: 'slug', label: 'Slug', kind: 'slug', localized: true }
  const refer = (name: string, label: string, type: WordpressKind, many = false): Field => ({
    name,
    label,
    kind: 'reference',
    types: [names[type]],
    onDelete: 'unset',
    filterable: true,
    ...(many ? { many } : {}),
  })
  const term = (kind: 'category' | 'tag', label: string, more: readonly Field[]): ContentType => ({
    name: names[kind],
    label,
    titleField: 'name',
    fields: [
      { name: 'name', label: 'Name', kind: 'text', localized: true },
      slug,
      { name: 'description', label: 'Description', kind: 'text', localized: true },
      ...more,
    ],
  })
  const entry: readonly Field[] = [
    { name: 'title', label: 'Title', kind: 'text', localized: true },
    slug,
    { name: 'body', label: 'Body', kind: 'richText', localized: true },
    { name: 'excerpt', label: 'Excerpt', kind: 'text', localized: true },
    refer('author', 'Author', 'author'),
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
    term('category', 'Category', [refer('parent', 'Parent', 'category')]),
    term('tag', 'Tag', []),
    {
      name: names.attachment,
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
    },
    {
      name: names.page,
      label: 'Page',
      titleField: 'title',
      fields: [
        ...entry,
        refer('parent', 'Parent', 'page'),
        { name: 'menuOrder', label: 'Order', kind: 'number', integer: true, filterable: true },
        { name: 'template', label: 'Template', kind: 'text' },
      ],
    },
    {
      name: names.post,
      label: 'Post',
      titleField: 'title',
      fields: [
        ...entry,
        refer('categories', 'Categories', 'category', true),
        refer('tags', 'Tags', 'tag', true),
        { name: 'sticky', label: 'Sticky', kind: 'boolean', filterable: true },
        { name: 'format', label: 'Format', kind: 'text', filterable: true, lengthMax: 100 },
      ],
    },
  ]
}
