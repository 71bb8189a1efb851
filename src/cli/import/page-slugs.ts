import { derivedId } from '#cli/import/derived-id.ts'
import { makeSlug } from '#content/validation/slug.ts'

/** Returns the id of the entry for a page path. The same page of the same type always has it. */
export function pageId(type: string, path: string): string {
  return derivedId('markdown', type, path)
}

/**
 * Slugs for page paths: `guides/images` becomes `guides-images`. A page keeps the slug that it has.
 * New paths that would share a slug, or want one that is taken, get a few characters of their id,
 * so that a slug depends on what was there before and not on the order of the files.
 *
 * @param ids entry ids by path
 * @param slugs slugs of existing entries by id
 */
export function slugsOf(
  ids: ReadonlyMap<string, string>,
  slugs: ReadonlyMap<string, string>,
): Map<string, string> {
  const taken = new Set(slugs.values())
  const result = new Map<string, string>()
  const bySlug = new Map<string, string[]>()
  for (const [path, id] of ids) {
    const kept = slugs.get(id)
    if (kept !== undefined) {
      result.set(path, kept)
      continue
    }
    const slug = makeSlug(path)
    bySlug.set(slug, [...(bySlug.get(slug) ?? []), path])
  }
  for (const [slug, paths] of bySlug) {
    const isFree = slug !== '' && paths.length === 1 && !taken.has(slug)
    for (const path of paths)
      result.set(
        path,
        isFree ? slug : `${slug === '' ? 'page' : slug}-${ids.get(path)!.slice(0, 8)}`,
      )
  }
  return result
}
