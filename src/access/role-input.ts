import type { Role, SystemPermission } from '#access/access.ts'
import { systemPermissions } from '#access/access.ts'
import { AccessInputError } from '#access/errors.ts'
import type { InputProblem } from '#access/errors.ts'
import { checkFilter } from '#access/filter-input.ts'
import { anonymousRole } from '#access/permissions.ts'
import type { ContentAction } from '#content/authority.ts'
import { contentActions } from '#content/authority.ts'
import type { ContentType } from '#content/content-type.ts'

export const roleNamePattern = /^[a-z][a-z0-9-]{0,62}$/
const typePattern = /^(\*|[a-z][a-z0-9-]{0,62})$/
const fieldPattern = /^[a-z][A-Za-z0-9]{0,62}$/
const labelLengthMax = 200
const grantsMax = 500
const fieldsMax = 500

/** Anonymous callers may be given these; never drafts, and never changes to what is there. */
const anonymousActions: ReadonlySet<ContentAction> = new Set(['read', 'create'])
const anonymousPermissions: ReadonlySet<SystemPermission> = new Set(['assets.read'])

type Input = Omit<Role, 'builtIn'>
type Report = (path: string, message: string) => void

/**
 * Checks a role against the rules and against the types that exist (a role may name a type before
 * there is one). Throws `AccessInputError` with every problem at once; returns the role with every
 * default written out.
 */
export function checkRole(
  input: Input,
  types: readonly ContentType[],
  tooMany: number | null,
): Input {
  const problems: InputProblem[] = []
  const report: Report = (path, message) => void problems.push({ path, message })
  if (tooMany !== null) report('', `There are ${tooMany} roles already; delete one first.`)
  if (!roleNamePattern.test(input.name))
    report(
      '/name',
      'must begin with a small letter and have at most 63 small letters, digits and dashes.',
    )
  const label = input.label.trim().normalize('NFC')
  if (label === '' || label.length > labelLengthMax || /\p{Cc}|\p{Cs}/u.test(label))
    report('/label', `must be one line of 1 to ${labelLengthMax} characters.`)
  if (input.content.length > grantsMax) report('/content', `must have at most ${grantsMax} grants.`)
  for (const [index, permission] of input.system.entries()) {
    if (!systemPermissions.includes(permission))
      report(`/system/${index}`, `is not one of ${systemPermissions.join(', ')}.`)
    else if (input.name === anonymousRole && !anonymousPermissions.has(permission))
      report(`/system/${index}`, 'cannot be given to the anonymous role.')
  }
  const known = new Map(types.map((type) => [type.name, type]))
  const content = input.content.slice(0, grantsMax).map((grant, index) => {
    const at: Report = (path, message) => report(`/content/${index}${path}`, message)
    checkGrant(grant, known.get(grant.type) ?? null, input.name === anonymousRole, at)
    const filter =
      grant.filter === null
        ? null
        : checkFilter(grant.filter, grant.type, known.get(grant.type) ?? null, (path, message) =>
            at(`/filter${path}`, message),
          )
    const { type, fields, own } = grant
    const actions = contentActions.filter((action) => grant.actions.includes(action))
    return {
      type,
      actions,
      filter,
      fields: fields === null ? null : [...new Set(fields)].sort(),
      ...(own === true ? { own } : {}),
    }
  })
  if (problems.length > 0) throw new AccessInputError(problems)
  return { name: input.name, label, content, system: [...new Set(input.system)].sort() }
}

function checkGrant(
  grant: Role['content'][number],
  type: ContentType | null,
  anonymous: boolean,
  report: Report,
): void {
  if (!typePattern.test(grant.type)) report('/type', 'must be * or the name of a content type.')
  if (grant.actions.length === 0) report('/actions', 'must name at least one action.')
  for (const [index, action] of grant.actions.entries()) {
    if (!contentActions.includes(action))
      report(`/actions/${index}`, `is not one of ${contentActions.join(', ')}.`)
    else if (anonymous && !anonymousActions.has(action))
      report(`/actions/${index}`, 'cannot be given to the anonymous role.')
  }
  if (anonymous && grant.own === true)
    report('/own', 'means nothing for the anonymous role: an anonymous caller owns no entry.')
  if (grant.fields === null) return
  if (grant.fields.length > fieldsMax) report('/fields', `must be at most ${fieldsMax}.`)
  const names = type === null ? null : new Set(type.fields.map((field) => field.name))
  for (const [index, field] of grant.fields.entries()) {
    if (!fieldPattern.test(field)) report(`/fields/${index}`, 'is not the name of a field.')
    else if (names?.has(field) === false)
      report(`/fields/${index}`, `is not a field of ${grant.type}.`)
  }
}
