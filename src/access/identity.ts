import { isIP } from 'node:net'
import type { Identity, Origin, Permissions, SystemPermission, User } from '#access/access.ts'
import { EscalationError, PermissionError } from '#access/errors.ts'
import { administratorRole, BoundAuthority, PermissionSet } from '#access/permissions.ts'
import { roleOf } from '#access/role-row.ts'
import { systemActor } from '#lib/actor.ts'

/** The address if it is one: a proxy can put anything into X-Forwarded-For. */
export function addressOf(origin: Origin): string | null {
  return origin.address !== null && isIP(origin.address) !== 0 ? origin.address : null
}

export const noOrigin: Origin = { address: null, requestId: null }

type Facts = {
  readonly authority: BoundAuthority
  readonly roles: readonly string[]
  readonly user?: User
  readonly csrfToken?: string
  readonly expiresAt?: string | null
  readonly staleMs?: number | null
  readonly origin?: Origin | undefined
}

export class KnownIdentity implements Identity {
  readonly authority: BoundAuthority
  readonly roles: readonly string[]
  readonly user: User | null
  readonly csrfToken: string | null
  readonly expiresAt: string | null
  readonly staleMs: number | null
  readonly origin: Origin

  constructor(facts: Facts) {
    this.authority = facts.authority
    this.roles = facts.roles
    this.user = facts.user ?? null
    this.csrfToken = facts.csrfToken ?? null
    this.expiresAt = facts.expiresAt ?? null
    this.staleMs = facts.staleMs ?? null
    this.origin = facts.origin ?? noOrigin
  }

  get rightsHash(): string {
    return this.authority.permissions.hash
  }

  can(permission: SystemPermission): boolean {
    return this.authority.permissions.system.has(permission)
  }

  require(permission: SystemPermission): void {
    if (!this.can(permission)) throw new PermissionError(permission)
  }

  describe(): Permissions {
    return this.authority.describe()
  }
}

const administrator = new PermissionSet([
  roleOf({ name: administratorRole, label: '', content: [], system: [], built_in: true }),
])

export const systemIdentity: Identity = new KnownIdentity({
  authority: new BoundAuthority(systemActor, administrator),
  roles: [administratorRole],
})

/**
 * Throws `EscalationError` unless `by` may do all that `wanted` allows. `what` continues "This …
 * more than you may do yourself".
 */
export function requireCovers(by: Identity, wanted: PermissionSet, what: string): void {
  if (!(by.authority instanceof BoundAuthority))
    throw new Error('an identity that this part did not make')
  if (!by.authority.permissions.covers(wanted)) {
    throw new EscalationError(
      `This ${what} more than you may do yourself; ask a user whose roles cover it.`,
    )
  }
}
