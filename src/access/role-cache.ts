import { LRUCache } from 'lru-cache'
import { staleMsOf } from '#cache/cache.ts'
import type { Cache } from '#cache/cache.ts'
import type { FillContext } from '#cache/fill.ts'
import type { Role } from '#access/access.ts'
import { anonymousRole, PermissionSet } from '#access/permissions.ts'
import { roleOf } from '#access/role-row.ts'
import type { RoleRow } from '#access/role-row.ts'
import { sql } from '#database/database.ts'
import type { Database } from '#database/database.ts'
import { DatabaseTimeoutError, DatabaseUnavailableError } from '#database/errors.ts'
import type { Clock } from '#lib/clock.ts'
import type { Logger } from '#lib/logger.ts'

/**
 * Roles in memory, compiled. With the cluster's cache they are an entry of it, dropped by the
 * change feed. Without one:
 *
 * Users and API tokens: the statement that finds them also tells the roles' revision, so a changed
 * role holds from the next request on, on every node (for API tokens within a moment, see
 * token-memo.ts). Anonymous requests ask nothing, so they may see roles up to `anonymousStaleMs`
 * old; while the database cannot be reached, up to `anonymousOutageMs`.
 */
export const anonymousStaleMs = 1_000
export const anonymousOutageMs = 300_000

/**
 * After a role or API token was saved here, anonymous requests and tokens on this node are looked
 * up each time, so that the writer sees it at once.
 */
const watchAfterSaveMs = 2_000

/** Distinct sets of roles kept compiled; a set costs a few kilobytes. */
const setsMax = 1_000

type Loaded = {
  readonly revision: string
  readonly startedMs: number
  readonly roles: ReadonlyMap<string, Role>
  readonly sets: LRUCache<string, PermissionSet>
  readonly anonymous: PermissionSet
}

const load = sql<{ revision: string; roles: string }>(`
  select (select revision from stoa.role_revision)::text as revision,
    coalesce((select json_agg(json_build_object('name', name, 'label', label, 'content', content, 'system', system, 'built_in', built_in)) from stoa.role), '[]'::json) as roles`)

export class RoleCache {
  readonly #database: Database
  readonly #clock: Clock
  readonly #logger: Logger
  #loaded: Loaded | null = null
  #loading: Promise<Loaded> | null = null
  #watchUntilMs = Number.NEGATIVE_INFINITY
  readonly #cache: Cache | null

  constructor({
    database,
    clock,
    logger,
    cache,
  }: {
    readonly database: Database
    readonly clock: Clock
    readonly logger: Logger
    readonly cache: Cache | null
  }) {
    this.#database = database
    this.#clock = clock
    this.#logger = logger
    this.#cache = cache
  }

  /** What `names` allow together, as part of a value that the cluster's cache will keep. */
  async permissionsIn(context: FillContext, names: readonly string[]): Promise<PermissionSet> {
    return setOf(await context.get(rolesKey, readRoles, { bytesOf: rolesBytes }), names)
  }

  /** What the anonymous role allows, if that is in the cluster's cache and fresh. */
  peekAnonymous(cacheNowMs: number): PermissionSet | null {
    const loaded = this.#cache?.peek(rolesKey, cacheNowMs) as Loaded | undefined
    return loaded?.anonymous ?? null
  }

  /**
   * What `names` allow together, by roles at least as new as `revision`. A name without a role
   * allows nothing.
   */
  async permissions(names: readonly string[], revision: string): Promise<PermissionSet> {
    let loaded = this.#loaded
    if (loaded?.revision !== revision) loaded = await (this.#loading ?? this.#load())
    // What was under way may have begun before `revision` was read; what begins now is at least as
    // new.
    if (loaded?.revision !== revision) loaded = await this.#load()
    return setOf(loaded, names)
  }

  /** `staleMs`: as of an identity. */
  async anonymous({
    fresh,
  }: {
    readonly fresh: boolean
  }): Promise<{ readonly permissions: PermissionSet; readonly staleMs: number | null }> {
    if (fresh) return { permissions: (await this.#load()).anonymous, staleMs: null }
    if (this.#cache === null) return { permissions: await this.#anonymousAlone(), staleMs: null }
    const cached = await this.#cache.get(rolesKey, readRoles, { bytesOf: rolesBytes })
    return { permissions: cached.value.anonymous, staleMs: staleMsOf(cached) }
  }

  async #anonymousAlone(): Promise<PermissionSet> {
    const nowMs = this.#clock.monotonicMs()
    const loaded = this.#loaded
    if (loaded !== null && nowMs - loaded.startedMs < anonymousStaleMs && !this.isWatched(nowMs))
      return loaded.anonymous
    try {
      return (await (this.isWatched(nowMs) ? this.#load() : (this.#loading ?? this.#load())))
        .anonymous
    } catch (error) {
      const away =
        error instanceof DatabaseUnavailableError || error instanceof DatabaseTimeoutError
      if (!away || loaded === null || nowMs - loaded.startedMs > anonymousOutageMs) throw error
      this.#logger.warn(
        { err: error, ageMs: nowMs - loaded.startedMs },
        'roles could not be read; anonymous requests go by older ones',
      )
      return loaded.anonymous
    }
  }

  /** A role, or an API token, is being saved on this node. */
  watch(): void {
    this.#watchUntilMs = this.#clock.monotonicMs() + watchAfterSaveMs
  }

  isWatched(nowMs: number): boolean {
    return nowMs < this.#watchUntilMs
  }

  #load(): Promise<Loaded> {
    const startedMs = this.#clock.monotonicMs()
    const loading = this.#read(startedMs).finally(() => {
      if (this.#loading === loading) this.#loading = null
    })
    this.#loading = loading
    return loading
  }

  async #read(startedMs: number): Promise<Loaded> {
    const [row] = await this.#database.run(load)
    if (row === undefined) throw new Error('a select without from gave no row')
    const known = this.#loaded
    if (known !== null && known.revision === row.revision) {
      const renewed = { ...known, startedMs: Math.max(known.startedMs, startedMs) }
      this.#loaded = renewed
      return renewed
    }
    const loaded = loadedOf(row, startedMs)
    if (known === null || startedMs >= known.startedMs) this.#loaded = loaded
    return loaded
  }
}

const rolesKey = 'access:roles'
/** Roughly what a compiled role takes, in bytes. */
const roleBytes = 4_000

async function readRoles(context: FillContext): Promise<Loaded> {
  context.collection('role')
  const [row] = await context.read(load)
  if (row === undefined) throw new Error('a select without from gave no row')
  return loadedOf(row, 0)
}

function rolesBytes(loaded: Loaded): number {
  return loaded.roles.size * roleBytes
}

function loadedOf(
  row: { readonly revision: string; readonly roles: string },
  startedMs: number,
): Loaded {
  const roles = new Map(
    (JSON.parse(row.roles) as RoleRow[]).map((each) => [each.name, roleOf(each)]),
  )
  const anonymous = roles.get(anonymousRole)
  return {
    revision: row.revision,
    startedMs,
    roles,
    sets: new LRUCache({ max: setsMax }),
    anonymous: new PermissionSet(anonymous === undefined ? [] : [anonymous]),
  }
}

function setOf(loaded: Loaded, names: readonly string[]): PermissionSet {
  const key = names.length === 1 ? names[0]! : names.toSorted().join(' ')
  let set = loaded.sets.get(key)
  if (set === undefined) {
    set = new PermissionSet(names.flatMap((name) => loaded.roles.get(name) ?? []))
    loaded.sets.set(key, set)
  }
  return set
}
