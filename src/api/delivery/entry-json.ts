import type { EntryView } from '#content/content.ts'

/**
 * The JSON text of an entry. Its fields are spliced in as the database keeps them, never parsed.
 * Nothing else in it needs escaping: ids, names of types and locales, and timestamps are of shapes
 * that the database and the model hold.
 */
export function entryJson(entry: EntryView): string {
  return (
    `{"id":"${entry.id}","type":"${entry.type}","locale":"${entry.locale}","version":${entry.version},"status":"${entry.status}"` +
    `,"createdAt":"${entry.createdAt}","updatedAt":"${entry.updatedAt}","publishedAt":${quoted(entry.publishedAt)}` +
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

/** `{"id":{…}}`; empty text where nothing was included. */
export function includedJson(included: ReadonlyMap<string, EntryView>): string {
  let text = ''
  for (const [id, entry] of included) text += `${text === '' ? '' : ','}"${id}":${entryJson(entry)}`
  return `{${text}}`
}
