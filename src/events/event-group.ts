import type { Authority } from '#content/authority.ts'
import type { Snapshot } from '#change-feed/snapshot.ts'
import { visible } from '#change-feed/snapshot.ts'
import type { Epoch } from '#change-feed/epoch.ts'
import { formatToken } from '#change-feed/token.ts'
import type { Change } from '#change-feed/change.ts'
import type { EntryWatch, VisibleChange, UnreadWatch } from '#content/content.ts'
import type { TransactionChange } from '#events/entry-changes.ts'
import { eventText } from '#events/frame.ts'
import type { EventStream } from '#events/event-stream.ts'
import { tagsOfChange } from '#http-cache/tags.ts'

/** The question of a client. Equal keys ask for the same. */
export type Watched = {
  readonly key: string
  readonly watch: UnreadWatch
  /** Only events with one of these; empty: all. */
  readonly tags: readonly string[]
}

export type GroupEvent = { readonly xid: number; readonly text: string }

/** The streams that get the same: each event is checked and written once for all of them. */
export class EventGroup {
  readonly key: string
  readonly authority: Authority
  readonly watched: Watched
  readonly streams = new Set<EventStream>()
  /** The model may have changed since the watch was opened. */
  isStale = false
  watch: EntryWatch
  readonly #tags: ReadonlySet<string>

  constructor(authority: Authority, watched: Watched, watch: EntryWatch) {
    this.key = groupKey(authority, watched)
    this.authority = authority
    this.watched = watched
    this.watch = watch
    this.#tags = new Set(watched.tags)
  }

  /** Returns the events that the changes are for this group. */
  eventsOf(changes: readonly TransactionChange[], epoch: Epoch): GroupEvent[] {
    const events: GroupEvent[] = []
    for (const change of changes) {
      const seen = this.watch.evaluate(change)
      if (seen === null) continue
      const tags = tagsOf(change, seen)
      if (this.#tags.size > 0 && !tags.all.some((tag) => this.#tags.has(tag))) continue
      events.push({ xid: change.xid, text: textOf(change, seen, { epoch, tags: tags.shown }) })
    }
    return events
  }
}

/** The rights are part of it, since they decide which events a stream gets. */
export function groupKey(authority: Authority, { key }: Watched): string {
  return `${authority.key} ${key}`
}

/** Those that a client which has seen `snapshot` does not know. */
export function unseen(events: readonly GroupEvent[], snapshot: Snapshot): GroupEvent[] {
  return events.filter(({ xid }) => !visible(snapshot, xid))
}

/**
 * The tags of the HTTP cache, made only of what this reader may see of the rows: a tag is a hash
 * of a value, which could be guessed.
 */
function tagsOf(
  { xid, id, locale }: TransactionChange,
  { action, before, after }: VisibleChange,
): { readonly shown: readonly string[]; readonly all: readonly string[] } {
  const operations = { entered: 'insert', changed: 'update', left: 'delete' } as const
  const operation: Change['operation'] = operations[action]
  const key = `${id}/${locale}`
  const tags = tagsOfChange({ xid, collection: 'version', key, operation, before, after })
  if (tags === null) return { shown: [], all: [] }
  return { shown: tags.fine, all: [...tags.fine, ...tags.wide, ...tags.coarse] }
}

function textOf(
  change: TransactionChange,
  { action }: VisibleChange,
  { epoch, tags }: { readonly epoch: Epoch; readonly tags: readonly string[] },
): string {
  const { xid, number, type, id, locale, perspective } = change
  return eventText('entry', {
    id: `${xid}.${number}`,
    action,
    type,
    entry: id,
    locale,
    perspective,
    token: formatToken({ epoch, xid }),
    tags,
  })
}
