import type { Change } from '#change-feed/change.ts'
import { runPoll } from '#change-feed/poll.ts'
import { formatSnapshot } from '#change-feed/snapshot.ts'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'
import type { Edge } from '#http-cache/http-cache.ts'
import {
  addEdges,
  addPurge,
  forgetOtherEdges,
  forgetPurges,
  movePosition,
  nothing,
  positionIn,
} from '#http-cache/purge-store.ts'
import type { NewPurge, Position } from '#http-cache/purge-store.ts'
import { allTag, isTagged, tagsOfChange } from '#http-cache/tags.ts'

/** Past this in one reading, everything is purged. */
const changesMax = 30_000
/** Transactions of one reading that are named; past it the snapshot stands for them. */
const xidsMax = 100

/** The plans of a table that was just trimmed take it for empty. */
const byIndex = sql<object>(`set local enable_seqscan = off`)

export type ChangeReading = {
  readonly edges: readonly Edge[]
  /** True if any change of an entry may hide it from readers, since a filter decides for them. */
  readonly changesHide: () => Promise<boolean>
}

/** `added`: purges. `position`: up to here; null: nothing could be read. */
export type ChangesRead = {
  readonly added: number
  readonly position: Position | null
  /** See `ChangeReading.changesHide`; null: it was not asked for. */
  readonly hides: boolean | null
}

/**
 * Reads the changes since the last position, exactly, as the change feed does, and turns them into
 * purges: in one transaction with the new position, so that each change is purged, whichever node
 * does it. Where changes are missing, because none was read for too long or another epoch began,
 * everything is purged.
 *
 * `last`: this job's last reading; null: it is the first of the job.
 */
export async function readChanges(
  tx: Queryable,
  reading: ChangeReading,
  last: ChangesRead | null,
): Promise<ChangesRead> {
  await tx.run(byIndex)
  const ids = reading.edges.map(({ id }) => id)
  const added = last === null ? await addEdges(tx, reading.edges) : []
  const position = last?.position ?? (await positionIn(tx))
  const result = await runPoll(tx, position?.snapshot ?? null, changesMax)
  // The next poll of the change feed names the epoch.
  if (result.epoch === null) return { added: 0, position: null, hides: null }
  const { epoch, changes } = result
  const upTo = formatSnapshot(result.snapshot)
  const read = { epoch, snapshot: result.snapshot }
  await movePosition(tx, epoch, upTo)
  const isBehind =
    position === null ||
    position.epoch !== epoch ||
    result.keptFrom > position.snapshot.xmin ||
    changes.length > changesMax
  const fresh = isBehind ? ids : added
  if (fresh.length > 0) {
    await forgetOtherEdges(tx, ids)
    await forgetPurges(tx, fresh)
    await addPurge(tx, fresh, everything(epoch, upTo))
  }
  const known = ids.filter((id) => !fresh.includes(id))
  const isNews = changes.some(({ collection }) => isTagged(collection))
  if (known.length === 0 || position === null || !isNews)
    return { added: fresh.length, position: read, hides: null }
  const areRoles = changes.some(({ collection }) => collection === 'role')
  const hides = (areRoles ? null : last?.hides) ?? (await reading.changesHide())
  const purges = purgesOf(changes, {
    epoch,
    after: formatSnapshot(position.snapshot),
    upTo,
    hides,
  })
  for (const purge of purges) await addPurge(tx, known, purge)
  return { added: fresh.length + purges.length, position: read, hides }
}

function everything(epoch: string, upTo: string): NewPurge {
  const tags = { fine: [allTag], wide: [], coarse: [allTag], hard: true }
  return { ...tags, epoch, after: nothing, upTo, xids: null }
}

type Span = {
  readonly epoch: string
  readonly after: string
  readonly upTo: string
  readonly hides: boolean
}

/** One purge of what was changed, and one of what is not to be seen any more. */
function purgesOf(changes: readonly Change[], { hides, ...span }: Span): NewPurge[] {
  return [true, false].flatMap((hard) => {
    const fine = new Set<string>()
    const wide = new Set<string>()
    const coarse = new Set<string>()
    const xids = new Set<string>()
    for (const change of changes) {
      const tags = tagsOfChange(change)
      if (tags === null || (tags.hard || hides) !== hard) continue
      for (const tag of tags.fine) fine.add(tag)
      for (const tag of tags.wide) wide.add(tag)
      for (const tag of tags.coarse) coarse.add(tag)
      xids.add(String(change.xid))
    }
    if (fine.size === 0) return []
    return [
      {
        ...span,
        hard,
        fine: [...fine],
        wide: [...wide],
        coarse: [...coarse],
        xids: xids.size > xidsMax ? null : [...xids],
      },
    ]
  })
}
