import { assetUrl } from '#api/delivery/asset-url.ts'
import type { EntryView, IncludedAsset, Page } from '#content/content.ts'

/**
 * The JSON text of an entry. Its fields are spliced in as the database keeps them, never parsed.
 * Nothing else in it needs escaping: ids, names of types and locales, and timestamps are of shapes
 * that the database and the model hold.
 */
export function entryJson(entry: EntryView): string {
  return (
    `{"id":"${entry.id}","type":"${entry.type}","locale":"${entry.locale}"` +
    `,"version":${entry.version},"status":"${entry.status}"` +
    `,"createdAt":"${entry.createdAt}","updatedAt":"${entry.updatedAt}"` +
    `,"publishedAt":${quoted(entry.publishedAt)}` +
    `,"firstPublishedAt":${quoted(entry.firstPublishedAt)},"fields":${entry.fieldsJson}}`
  )
}

function quoted(text: string | null): string {
  return text === null ? 'null' : `"${text}"`
}

export function entriesJson(entries: readonly EntryView[]): string {
  let text = '['
  for (let at = 0; at < entries.length; at += 1)
    text += at === 0 ? entryJson(entries[at]!) : `,${entryJson(entries[at]!)}`
  return `${text}]`
}

/** `{"id":{…}}`: entries and assets by id. */
export function includedJson({ included, assets }: Pick<Page, 'included' | 'assets'>): string {
  const entries = [...included].map(([id, entry]) => `"${id}":${entryJson(entry)}`)
  const files = [...assets].map(([id, asset]) => `"${id}":${includedAssetJson(asset)}`)
  return `{${[...entries, ...files].join(',')}}`
}

function includedAssetJson({ altJson, ...asset }: IncludedAsset): string {
  const rest = JSON.stringify({ ...asset, url: assetUrl(asset) }).slice(1)
  return `{"kind":"asset","alt":${altJson},${rest}`
}
