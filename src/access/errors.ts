import { StoaError } from '#lib/stoa-error.ts'

/** The session or API token that came with the request is wrong, expired or ended. */
export class UnauthenticatedError extends StoaError {
  readonly code = 'E_UNAUTHENTICATED'
}

/**
 * The email or the password is wrong, or the user is disabled: one text for all, which does not
 * show what emails exist.
 */
export class LoginFailedError extends StoaError {
  readonly code = 'E_LOGIN_FAILED'

  constructor() {
    super('The email or the password is wrong.')
  }
}

/** Too many attempts. `retryAfterS`: whole seconds until the next one is accepted. */
export class ThrottledError extends StoaError {
  readonly code = 'E_THROTTLED'
  readonly retryAfterS: number

  constructor(message: string, retryAfterS: number) {
    super(message, { retryAfterS })
    this.retryAfterS = retryAfterS
  }
}

/** A write with a session cookie did not repeat the session's CSRF token. */
export class CsrfError extends StoaError {
  readonly code = 'E_CSRF'

  constructor() {
    super("Repeat the session's csrfToken (GET /api/session) in the header X-CSRF-Token.")
  }
}

/** The caller lacks a permission that is not about content. */
export class PermissionError extends StoaError {
  readonly code = 'E_PERMISSION'

  constructor(permission: string) {
    super(`This needs the permission ${permission}; ask an administrator for a role that has it.`, {
      permission,
    })
  }
}

/** A caller tried to give, change or take over more than they may do themselves. */
export class EscalationError extends StoaError {
  readonly code = 'E_ESCALATION'
}

export class UserNotFoundError extends StoaError {
  readonly code = 'E_USER_NOT_FOUND'

  constructor(id: string) {
    super('There is no such user.', { id })
  }
}

export class RoleNotFoundError extends StoaError {
  readonly code = 'E_ROLE_NOT_FOUND'

  constructor(name: string) {
    super(`There is no role "${name}".`, { name })
  }
}

export class ApiTokenNotFoundError extends StoaError {
  readonly code = 'E_API_TOKEN_NOT_FOUND'

  constructor(id: string) {
    super('There is no such API token.', { id })
  }
}

export class EmailTakenError extends StoaError {
  readonly code = 'E_EMAIL_TAKEN'

  constructor(email: string) {
    super('Another user has this email.', { email })
  }
}

export class RoleInUseError extends StoaError {
  readonly code = 'E_ROLE_IN_USE'

  constructor(name: string) {
    super(`Users or API tokens have the role "${name}"; take it from them first.`, { name })
  }
}

export class RoleBuiltInError extends StoaError {
  readonly code = 'E_ROLE_BUILT_IN'
}

/** Without an active administrator no user could be let in again. */
export class LastAdministratorError extends StoaError {
  readonly code = 'E_LAST_ADMINISTRATOR'

  constructor() {
    super('This is the last active administrator; make another one first.')
  }
}

export type InputProblem = { readonly path: string; readonly message: string }

/** A user, role or API token is not shaped as it must be. `facts.problems` names each place. */
export class AccessInputError extends StoaError {
  readonly code = 'E_ACCESS_INPUT'

  constructor(problems: readonly InputProblem[]) {
    super(problems.map((problem) => `${problem.path}: ${problem.message}`).join(' '), { problems })
  }
}

/** The new password breaks a rule; the message says which. */
export class PasswordRefusedError extends StoaError {
  readonly code = 'E_PASSWORD_REFUSED'
}

/** The one-time secret for the first administrator is wrong, older than 24 h, replaced or used. */
export class FirstAdministratorError extends StoaError {
  readonly code = 'E_FIRST_ADMINISTRATOR'

  constructor() {
    super(
      'This link is wrong, was used or is too old. ' +
        'Start the node again for a new one, or run: stoa user create.',
    )
  }
}
