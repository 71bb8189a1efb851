import type { Access, Credentials, Identity } from '#access/access.ts'
import type { Authority } from '#content/authority.ts'
import type { ChangeFeed } from '#change-feed/feed.ts'
import type { Clock } from '#lib/clock.ts'
import type { Logger } from '#lib/logger.ts'
import { StoaError } from '#lib/stoa-error.ts'
import { timedOut, withTimeout } from '#lib/timeout.ts'
import type { EventStream } from '#events/event-stream.ts'

/** Readers that are identified by the database at the same time. */
const identifiedMax = 8
const identifyMs = 5_000

/** The collections of which any change may change what a reader may read. */
const accessCollections: ReadonlySet<string> = new Set([
  'role',
  'user',
  'user_role',
  'session',
  'api_token',
  'api_token_role',
])

export function changesAccess(collection: string): boolean {
  return accessCollections.has(collection)
}

/** A caller who holds one credential; all of the anonymous are one. */
export class EventReader {
  readonly key: string
  readonly credentials: Credentials
  readonly streams = new Set<EventStream>()
  authority: Authority
  expiresAtMs: number
  /** Nothing gets to its streams before it has been identified again. */
  isStale = true

  constructor(key: string, credentials: Credentials, identity: Identity) {
    this.key = key
    this.credentials = credentials
    this.authority = identity.authority
    this.expiresAtMs = expiryOf(identity)
  }
}

export function readerKey({ bearer, sessionCookie }: Credentials): string {
  if (bearer !== null) return `bearer ${bearer}`
  return sessionCookie === null ? 'anonymous' : `session ${sessionCookie}`
}

function expiryOf({ expiresAt }: Identity): number {
  return expiresAt === null ? Number.POSITIVE_INFINITY : Date.parse(expiresAt)
}

/** Finds out again who the readers are. It fails closed: who cannot be identified gets no more. */
export class ReaderCheck {
  readonly #access: Access
  readonly #feed: ChangeFeed
  readonly #clock: Clock
  readonly #logger: Logger

  constructor(parts: {
    readonly access: Access
    readonly feed: ChangeFeed
    readonly clock: Clock
    readonly logger: Logger
  }) {
    this.#access = parts.access
    this.#feed = parts.feed
    this.#clock = parts.clock
    this.#logger = parts.logger
  }

  isExpired({ expiresAtMs }: EventReader): boolean {
    return expiresAtMs <= this.#clock.nowMs()
  }

  /** Identifies these again; returns those that are no reader any more. */
  async refresh(readers: readonly EventReader[]): Promise<EventReader[]> {
    const unknown: EventReader[] = []
    for (const reader of readers) {
      const authority = this.#access.peek(reader.credentials, this.#feed.nowMs())
      if (authority === null) unknown.push(reader)
      else this.#found(reader, authority)
    }
    const gone: EventReader[] = []
    for (let at = 0; at < unknown.length; at += identifiedMax) {
      const some = unknown.slice(at, at + identifiedMax)
      const known = await Promise.all(some.map((reader) => this.#identify(reader)))
      gone.push(...some.filter((_, place) => known[place] === false))
    }
    return gone
  }

  async #identify(reader: EventReader): Promise<boolean> {
    try {
      const identity = await withTimeout(this.#access.identify(reader.credentials), identifyMs)
      if (identity === timedOut || identity.staleMs !== null) return false
      reader.expiresAtMs = expiryOf(identity)
      this.#found(reader, identity.authority)
      return true
    } catch (error) {
      if (!(error instanceof StoaError)) throw error
      this.#logger.debug({ err: error }, 'a reader of events could not be identified again')
      return false
    }
  }

  #found(reader: EventReader, authority: Authority): void {
    reader.authority = authority
    reader.isStale = false
  }
}
