import type { Call } from '#content/content.ts'
import { ForbiddenError } from '#content/errors.ts'
import { ConstraintError } from '#database/errors.ts'
import { StoaError } from '#lib/stoa-error.ts'

/** Returns the call if the caller may do everything with the type; throws `ForbiddenError`. */
export function requireEverything(call: Call, type: string): Call {
  for (const action of ['create', 'update', 'publish', 'readDraft'] as const) {
    const grant = call.authority.grant(action, type)
    if (grant === null || grant.filter !== null || grant.fields !== null)
      throw new ForbiddenError(
        'Only a caller who may do everything with a type can export it, restore it, or save it ' +
          'by the batch.',
        { type },
      )
  }
  return call
}

/**
 * Runs a batch as one. A refusal that shows only while it is written (a unique value that another
 * entry took, another locale that would become too large) fails the batch; its halves are tried
 * again, until the one item that is to blame is alone and `refuse` makes its outcome.
 */
export async function inHalves<Item, Outcome>(
  items: readonly Item[],
  run: (items: readonly Item[]) => Promise<Outcome[]>,
  refuse: (error: StoaError) => Outcome,
): Promise<Outcome[]> {
  if (items.length === 0) return []
  try {
    return await run(items)
  } catch (error) {
    const isRefusal =
      error instanceof StoaError &&
      (error instanceof ConstraintError || !error.code.startsWith('E_DATABASE_'))
    if (!isRefusal) throw error
    if (items.length === 1) return [refuse(error)]
    const middle = Math.ceil(items.length / 2)
    const first = await inHalves(items.slice(0, middle), run, refuse)
    return [...first, ...(await inHalves(items.slice(middle), run, refuse))]
  }
}
