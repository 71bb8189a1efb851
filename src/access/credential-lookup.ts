import type { AccessContext } from '#access/access-context.ts'
import { staleMsOf } from '#cache/cache.ts'
import type { Cache } from '#cache/cache.ts'
import type { FillContext } from '#cache/fill.ts'

/** Roughly what the cache keeps of one session or API token, in bytes. */
const foundBytes = 2_000

/**
 * `ended`: for good. `doubtful`: by what this node has in memory; the primary database may know of
 * a later use, or of a change that a standby does not show yet.
 */
export type Validity = 'valid' | 'doubtful' | 'ended'

/** How to find what a session cookie or an API token stands for. */
export type CredentialSource<Found> = {
  readonly key: string
  readonly fill: (context: FillContext) => Promise<Found | null>
  readonly readPrimary: () => Promise<Found | null>
  readonly validity: (found: Found) => Validity
}

/** `staleMs`: as of an identity. */
export type LookUp<Found> = { readonly found: Found; readonly staleMs: number | null }

/**
 * What a credential stands for: from memory, or loaded through the cache. Before a caller is
 * refused the primary is asked, since the load may have come from a standby that lags. Null: the
 * credential is not valid.
 */
export async function lookUp<Found>(
  { cache }: Pick<AccessContext, 'cache'>,
  source: CredentialSource<Found>,
  { fresh }: { readonly fresh: boolean },
): Promise<LookUp<Found> | null> {
  if (cache !== null && !fresh) {
    const cached = await lookUpCached(cache, source)
    const validity = cached === null ? 'doubtful' : source.validity(cached.found)
    if (validity === 'valid') return cached
    if (validity === 'ended') return null
  }
  const found = await source.readPrimary()
  return found === null || source.validity(found) !== 'valid' ? null : { found, staleMs: null }
}

/** Ends a fill whose result must not be kept: unknown credentials would fill the memory. */
class UnknownCredential extends Error {}

async function lookUpCached<Found>(
  cache: Cache,
  { key, fill }: CredentialSource<Found>,
): Promise<LookUp<Found> | null> {
  const load = async (context: FillContext): Promise<Found> => {
    const found = await fill(context)
    if (found === null) throw new UnknownCredential()
    return found
  }
  try {
    const cached = await cache.get(key, load, { bytesOf: () => foundBytes })
    return { found: cached.value, staleMs: staleMsOf(cached) }
  } catch (error) {
    if (error instanceof UnknownCredential) return null
    throw error
  }
}
