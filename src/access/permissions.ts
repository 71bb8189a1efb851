import { createHash } from 'node:crypto'
import type { Permissions, Role, SystemPermission } from '#access/access.ts'
import { systemPermissions } from '#access/access.ts'
import type { Authority, ContentAction, Grant } from '#content/authority.ts'
import { contentActions } from '#content/authority.ts'
import type { Filter } from '#content/query/query.ts'
import type { Actor } from '#lib/actor.ts'

/** The one role that the program itself defines: everything, also what a later version adds. */
export const administratorRole = 'administrator'
export const anonymousRole = 'anonymous'
export const anonymousActor: Actor = { kind: 'anonymous', id: null, name: 'anonymous' }

/**
 * One way to be allowed: entries that match `filter` (null: all) and, with `own`, that the actor
 * created.
 */
type Alternative = { readonly filter: Filter | null; readonly own: boolean }

/**
 * Several grants together. Null: without limit. Alternatives are written as canonical JSON, each
 * once.
 */
type Rule = {
  readonly alternatives: ReadonlyMap<string, Alternative> | null
  readonly fields: ReadonlySet<string> | null
}

/** Rules of one action: for types that a role names, and for all others. */
type ActionRules = {
  readonly byType: ReadonlyMap<string, Rule | null>
  readonly others: Rule | null
}

const everything: Rule = { alternatives: null, fields: null }

/**
 * The permissions of a set of roles, independent of their holders; made once per distinct set.
 *
 * Within one role, grants for a type itself go before its grants for `*`, action by action. Between
 * grants that apply, and between roles, any that allows is enough: filters are or-ed and fields
 * united, each by itself.
 */
export class PermissionSet {
  /** Has the role that grows with the program: more than any list of permissions. */
  readonly administrator: boolean
  readonly system: ReadonlySet<SystemPermission>
  readonly #actions: ReadonlyMap<ContentAction, ActionRules>
  /** A hash of everything that decides what can be read; part of cache keys. */
  readonly readHash: string
  /** The grants for reading depend on the actor. */
  readonly readsOwn: boolean
  /** A hash of all that is allowed: equal hashes allow the same. */
  readonly hash: string

  constructor(roles: readonly Role[]) {
    const all = roles.some((role) => role.name === administratorRole)
    this.administrator = all
    this.system = new Set(all ? systemPermissions : roles.flatMap((role) => role.system))
    this.#actions = new Map(
      contentActions.map((action) => [
        action,
        all ? { byType: new Map(), others: everything } : rulesOf(action, roles),
      ]),
    )
    const readable = (['read', 'readDraft'] as const).map((action) =>
      canonicalRules(this.#actions.get(action)!),
    )
    this.readHash = hashOf(readable)
    this.hash = hashOf([
      all,
      [...this.system].sort(),
      contentActions.map((action) => canonicalRules(this.#actions.get(action)!)),
    ])
    this.readsOwn = (['read', 'readDraft'] as const).some((action) =>
      usesOwn(this.#actions.get(action)!),
    )
  }

  rule(action: ContentAction, type: string): Rule | null {
    const rules = this.#actions.get(action)
    if (rules === undefined) return null
    const named = rules.byType.get(type)
    return named === undefined ? rules.others : named
  }

  /** Types that some role names, for this action. */
  typesNamed(action: ContentAction): Iterable<string> {
    return this.#actions.get(action)?.byType.keys() ?? []
  }

  /**
   * True when everything that `other` allows is allowed here too. Filters are compared as written,
   * not by meaning: a narrower filter that is written otherwise counts as more. That errs on the
   * safe side.
   */
  covers(other: PermissionSet): boolean {
    if (other.administrator && !this.administrator) return false
    for (const permission of other.system) if (!this.system.has(permission)) return false
    for (const action of contentActions) {
      // '*' is no type's name, so it asks for the rule of all the types that neither names.
      for (const type of ['*', ...this.typesNamed(action), ...other.typesNamed(action)]) {
        if (!coversRule(this.rule(action, type), other.rule(action, type))) return false
      }
    }
    return true
  }
}

function hashOf(rules: unknown): string {
  return createHash('sha256').update(JSON.stringify(rules)).digest('base64url').slice(0, 22)
}

function rulesOf(action: ContentAction, roles: readonly Role[]): ActionRules {
  const grants = roles.map((role) => role.content.filter((grant) => grant.actions.includes(action)))
  const others = union(grants.flatMap((ofRole) => ofRole.filter((grant) => grant.type === '*')))
  const names = new Set(grants.flat().map((grant) => grant.type))
  names.delete('*')
  const byType = new Map<string, Rule | null>()
  for (const name of [...names].sort()) {
    const applying = grants.flatMap((ofRole) => {
      const specific = ofRole.filter((grant) => grant.type === name)
      return specific.length > 0 ? specific : ofRole.filter((grant) => grant.type === '*')
    })
    byType.set(name, union(applying))
  }
  return { byType, others }
}

function union(grants: Role['content']): Rule | null {
  if (grants.length === 0) return null
  let alternatives: Map<string, Alternative> | null = new Map()
  let fields: Set<string> | null = new Set()
  for (const grant of grants) {
    const alternative: Alternative = { filter: grant.filter, own: grant.own === true }
    if (alternative.filter === null && !alternative.own) alternatives = null
    alternatives?.set(canonical(alternative), alternative)
    if (grant.fields === null) fields = null
    for (const field of grant.fields ?? []) fields?.add(field)
  }
  return { alternatives, fields }
}

function coversRule(mine: Rule | null, theirs: Rule | null): boolean {
  if (theirs === null) return true
  if (mine === null) return false
  if (mine.alternatives !== null) {
    if (theirs.alternatives === null) return false
    for (const key of theirs.alternatives.keys()) if (!mine.alternatives.has(key)) return false
  }
  if (mine.fields !== null) {
    if (theirs.fields === null) return false
    for (const field of theirs.fields) if (!mine.fields.has(field)) return false
  }
  return true
}

/**
 * JSON with sorted keys, so that equal meanings that differ only in the order of keys are equal
 * texts.
 */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_key, inner: unknown) =>
    typeof inner === 'object' && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([left], [right]) => (left < right ? -1 : 1)))
      : inner,
  )
}

function canonicalRule(rule: Rule | null): unknown {
  if (rule === null) return null
  return [
    rule.alternatives === null ? null : [...rule.alternatives.keys()].sort(),
    rule.fields === null ? null : [...rule.fields].sort(),
  ]
}

function canonicalRules(rules: ActionRules): unknown {
  return [
    canonicalRule(rules.others),
    [...rules.byType].map(([type, rule]) => [type, canonicalRule(rule)]),
  ]
}

function usesOwn(rules: ActionRules): boolean {
  return [rules.others, ...rules.byType.values()].some((rule) =>
    [...(rule?.alternatives?.values() ?? [])].some((alternative) => alternative.own),
  )
}

/** A permission set in the hands of one actor: `own` becomes a filter on the creator. */
export class BoundAuthority implements Authority {
  readonly actor: Actor
  readonly permissions: PermissionSet
  readonly key: string
  readonly #grants = new Map<Rule, Grant | null>()

  constructor(actor: Actor, permissions: PermissionSet) {
    this.actor = actor
    this.permissions = permissions
    this.key = permissions.readsOwn
      ? `${permissions.readHash}:${actor.id ?? ''}`
      : permissions.readHash
  }

  grant(action: ContentAction, type: string): Grant | null {
    const rule = this.permissions.rule(action, type)
    if (rule === null) return null
    let grant = this.#grants.get(rule)
    if (grant === undefined) {
      grant = bind(rule, this.actor.id)
      this.#grants.set(rule, grant)
    }
    return grant
  }

  /** Everything that is allowed, `*` for the types that no role names. */
  describe(): Permissions {
    const content = contentActions.flatMap((action) =>
      ['*', ...this.permissions.typesNamed(action)].flatMap((type) => {
        const grant = this.grant(action, type)
        return grant === null ? [] : [{ type, action, ...grant }]
      }),
    )
    return { system: [...this.permissions.system].sort(), content }
  }
}

function bind(rule: Rule, actorId: string | null): Grant | null {
  const fields = rule.fields === null ? null : [...rule.fields]
  if (rule.alternatives === null) return { filter: null, fields }
  const filters: Filter[] = []
  for (const { filter, own } of rule.alternatives.values()) {
    if (!own) filters.push(filter!)
    // An actor without an id owns nothing.
    else if (actorId !== null) filters.push(ownedBy(actorId, filter))
  }
  if (filters.length === 0) return null
  return { filter: filters.length === 1 ? filters[0]! : { op: 'or', filters }, fields }
}

function ownedBy(actorId: string, filter: Filter | null): Filter {
  const mine: Filter = { op: 'compare', field: 'createdBy', test: { is: 'eq', value: actorId } }
  return filter === null ? mine : { op: 'and', filters: [mine, filter] }
}
