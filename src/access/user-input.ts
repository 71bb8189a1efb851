import { domainToASCII } from 'node:url'
import { AccessInputError } from '#access/errors.ts'
import type { InputProblem } from '#access/errors.ts'
import { roleNamePattern } from '#access/role-input.ts'

/** RFC 5321 §4.5.3.1: what fits into a mail command. */
const emailLengthMax = 254
const nameLengthMax = 200
export const rolesPerHolderMax = 32

const emailPattern = /^[^\s@\p{Cc}\p{Cs}]{1,64}@([^\s@\p{Cc}\p{Cs}]{1,253})$/u
// One line, no control characters and nothing that turns the direction of writing round.
const namePattern = /^[^\p{Cc}\p{Cs}\p{Zl}\p{Zp}\u202a-\u202e\u2066-\u2069]+$/u

/**
 * The form in which emails are kept and compared: NFKC, lower case, the domain in ASCII. Null: not
 * an email.
 */
export function normaliseEmail(text: string): string | null {
  const match = emailPattern.exec(text.trim().normalize('NFKC').toLowerCase())
  if (match === null) return null
  const domain = domainToASCII(match[1]!)
  if (domain === '') return null
  const email = match[0].slice(0, match[0].lastIndexOf('@') + 1) + domain
  return email.length <= emailLengthMax ? email : null
}

/**
 * Throws `AccessInputError` with every problem at once, and returns the values as they are kept.
 */
export function checkedUser<
  Input extends {
    readonly email?: string
    readonly name?: string
    readonly roles?: readonly string[]
  },
>(input: Input): Input {
  const problems: InputProblem[] = []
  const email = input.email === undefined ? undefined : normaliseEmail(input.email)
  if (email === null) problems.push({ path: '/email', message: 'is not an email address.' })
  const name = input.name === undefined ? undefined : checkedName(input.name, problems)
  const roles = input.roles === undefined ? undefined : checkedRoles(input.roles, problems)
  if (problems.length > 0) throw new AccessInputError(problems)
  return {
    ...input,
    ...(typeof email === 'string' ? { email } : {}),
    ...(name === undefined ? {} : { name }),
    ...(roles === undefined ? {} : { roles }),
  }
}

export function checkedName(name: string, problems: InputProblem[]): string {
  const kept = name.trim().normalize('NFC')
  if (kept === '' || kept.length > nameLengthMax || !namePattern.test(kept)) {
    problems.push({
      path: '/name',
      message: `must be one line of 1 to ${nameLengthMax} characters.`,
    })
  }
  return kept
}

export function checkedRoles(
  roles: readonly string[],
  problems: InputProblem[],
): readonly string[] {
  const kept = [...new Set(roles)].sort()
  for (const role of kept)
    if (!roleNamePattern.test(role))
      problems.push({ path: '/roles', message: 'has a name that no role can have.' })
  if (kept.length > rolesPerHolderMax)
    problems.push({ path: '/roles', message: `must be at most ${rolesPerHolderMax}.` })
  return kept
}
