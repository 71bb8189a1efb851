import { readdir, readFile } from 'node:fs/promises'
import { parsePage } from '#lib/front-matter.ts'
import type { Site } from '#node/site.ts'
import type { ContentType } from '#content/content-type.ts'
import { sql } from '#database/database.ts'

/** The guide: Stoa's own documentation is its starter content. */
const folder = new URL('../../docs/guide/', import.meta.url)

/** "star" in ASCII: of nodes that start together, one creates the content. */
const lockKey = 0x73746172

const lock = sql<{ locked: string }>(`select pg_advisory_xact_lock($1)::text as locked`)

const pageType: ContentType = {
  name: 'page',
  label: 'Page',
  description: 'The starter content: Stoa’s own guide.',
  titleField: 'title',
  fields: [
    {
      name: 'title',
      kind: 'text',
      required: true,
      localized: true,
      filterable: true,
      searchable: true,
    },
    { name: 'slug', kind: 'slug', from: 'title', localized: true },
    { name: 'summary', kind: 'text', localized: true, searchable: true },
    { name: 'order', kind: 'number', integer: true, filterable: true },
    { name: 'body', kind: 'markdown', localized: true, searchable: true },
  ],
}

/**
 * Fills a database that has no content type yet with the guide, published; any other is left as it
 * is. Returns how many entries it made.
 */
export async function createStarterContent({
  database,
  content,
  access,
  logger,
}: Site): Promise<number> {
  if ((await content.types.list(database)).length > 0) return 0
  const pages = await readPages()
  const made = await database.transaction(async (tx) => {
    await tx.run(lock, [lockKey])
    if ((await content.types.list(tx)).length > 0) return 0
    await content.types.save(tx, pageType, { expected: null, allowLoss: false })
    const call = { db: tx, authority: access.systemIdentity.authority }
    for (const fields of pages)
      await content.entries.create(call, pageType.name, { locale: null, fields, publish: true })
    return pages.length
  })
  if (made > 0)
    logger.info(
      { entries: made },
      'the database was empty: the guide was put in as starter content (STOA_STARTER=false ' +
        'leaves it empty)',
    )
  return made
}

async function readPages(): Promise<Record<string, unknown>[]> {
  const names = (await readdir(folder)).filter((name) => name.endsWith('.md')).sort()
  const pages = await Promise.all(
    names.map(async (name) => {
      const parsed = parsePage(await readFile(new URL(name, folder), 'utf8'))
      if (!parsed.ok) throw new Error(`docs/guide/${name}: ${parsed.reason}`)
      const { frontMatter, body } = parsed.page
      const links = body.replace(
        /\]\(\.\/([a-z-]+)\.md\)/g,
        (_link, page: string) => `](/read/${pageType.name}/${page})`,
      )
      return { ...frontMatter, slug: name.slice(0, -'.md'.length), body: links.trim() }
    }),
  )
  return pages
}
