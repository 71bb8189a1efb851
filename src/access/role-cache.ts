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

/** Distinct sets of roles kept compiled; a set costs a few kilobytes. */
const setsMax = 1_000
const rolesKey = 'access:roles'
/** Roughly what a compiled role takes, in bytes. */
const roleBytes = 4_000

type Roles = {
  readonly byName: ReadonlyMap<string, Role>
  readonly sets: LRUCache<string, PermissionSet>
  readonly anonymous: PermissionSet
}

const readAll = sql<RoleRow>(`select name, label, content, system, built_in from stoa.role`)

/** All roles, compiled, as one value of the cache that the change feed drops. */
export class RoleCache {
  readonly #database: Database
  readonly #cache: Cache | null

  constructor({ database, cache }: { readonly database: Database; readonly cache: Cache | null }) {
    this.#database = database
    this.#cache = cache
  }

  /** The permissions of `names` together, as part of a value that the cache will keep. */
  async permissionsIn(context: FillContext, names: readonly string[]): Promise<PermissionSet> {
    return permissionsOf(await context.get(rolesKey, load, { bytesOf: rolesBytes }), names)
  }

  /** The permissions of the anonymous role, if they are in memory and fresh. */
  peekAnonymous(cacheNowMs: number): PermissionSet | null {
    const roles = this.#cache?.peek(rolesKey, cacheNowMs) as Roles | undefined
    return roles?.anonymous ?? null
  }

  /**
   * The permissions of `names` together, as the database has them now. A name without a role allows
   * nothing.
   */
  async permissions(names: readonly string[]): Promise<PermissionSet> {
    return permissionsOf(compiled(await this.#database.run(readAll)), names)
  }

  /** `staleMs`: as of an identity. */
  async anonymous({
    fresh,
  }: {
    readonly fresh: boolean
  }): Promise<{ readonly permissions: PermissionSet; readonly staleMs: number | null }> {
    if (fresh || this.#cache === null)
      return { permissions: await this.permissions([anonymousRole]), staleMs: null }
    const cached = await this.#cache.get(rolesKey, load, { bytesOf: rolesBytes })
    return { permissions: cached.value.anonymous, staleMs: staleMsOf(cached) }
  }
}

async function load(context: FillContext): Promise<Roles> {
  context.collection('role')
  return compiled(await context.run(readAll))
}

function rolesBytes(roles: Roles): number {
  return roles.byName.size * roleBytes
}

function compiled(rows: readonly RoleRow[]): Roles {
  const byName = new Map(rows.map((row) => [row.name, roleOf(row)]))
  const anonymous = byName.get(anonymousRole)
  return {
    byName,
    sets: new LRUCache({ max: setsMax }),
    anonymous: new PermissionSet(anonymous === undefined ? [] : [anonymous]),
  }
}

function permissionsOf(roles: Roles, names: readonly string[]): PermissionSet {
  const key = names.length === 1 ? names[0]! : names.toSorted().join(' ')
  let set = roles.sets.get(key)
  if (set === undefined) {
    set = new PermissionSet(names.flatMap((name) => roles.byName.get(name) ?? []))
    roles.sets.set(key, set)
  }
  return set
}
