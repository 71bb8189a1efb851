import type { Authority, AuthorityOf, ContentAction, Grant } from '#content/authority.ts'
import type { Precondition } from '#content/content.ts'
import type { Queryable } from '#database/database.ts'

/**
 * Permissions besides those on content. `assets.read` is for the list in the API; the bytes of an
 * asset are public by their unguessable id.
 */
export const systemPermissions = [
  'types.write',
  'locales.write',
  'releases.write',
  'assets.read',
  'assets.write',
  'users.manage',
  'roles.manage',
  'tokens.manage',
  'audit.read',
  'cluster.manage',
] as const
export type SystemPermission = (typeof systemPermissions)[number]

/**
 * A role as the database keeps it. `*` as type means every type; a grant for the type itself goes
 * before it.
 */
export type Role = {
  readonly name: string
  readonly label: string
  readonly content: readonly ({
    readonly type: string
    readonly actions: readonly ContentAction[]
  } & Grant & {
      /** Only entries that the user created. Becomes part of the filter. */
      readonly own?: boolean
    })[]
  readonly system: readonly SystemPermission[]
  /**
   * Built-in roles (`administrator`, `editor`, `author`, `anonymous`) cannot be deleted;
   * `administrator` cannot be changed.
   */
  readonly builtIn: boolean
}

export type User = {
  readonly id: string
  readonly email: string
  readonly name: string
  readonly roles: readonly string[]
  readonly state: 'active' | 'disabled'
  readonly createdAt: string
  readonly lastLoginAt: string | null
}

export type ApiToken = {
  readonly id: string
  readonly name: string
  readonly roles: readonly string[]
  readonly createdAt: string
  /** The user or API token that made it; null: the command line, or a user who is gone. */
  readonly createdBy: { readonly kind: 'user' | 'token'; readonly id: string } | null
  readonly expiresAt: string | null
  readonly lastUsedAt: string | null
  /** The first characters, to recognise it by; the token itself is shown once, when it is made. */
  readonly hint: string
}

/** The caller of a request, with everything that decides what they may do. */
export type Identity = {
  readonly authority: Authority
  readonly user: User | null
  readonly roles: readonly string[]
  /**
   * Set for a session by cookie: writes must repeat it in `X-CSRF-Token`; `requireCsrf` (csrf.ts)
   * checks it.
   */
  readonly csrfToken: string | null
  /** When the session or API token ends at the latest; null: never. */
  readonly expiresAt: string | null
  /**
   * For how many milliseconds this could not be confirmed, the database being away or slow; null:
   * it holds.
   */
  readonly staleMs: number | null
  /** A hash of everything that is allowed: it changes when rights do. */
  readonly rightsHash: string
  /** The origin of the request, for the audit log. */
  readonly origin: Origin
  can(permission: SystemPermission): boolean
  /** Throws `PermissionError`. */
  require(permission: SystemPermission): void
  /** Everything that is allowed, to show; decisions ask `authority` and `can`. */
  describe(): Permissions
}

export type Origin = { readonly address: string | null; readonly requestId: string | null }

export type Permissions = {
  readonly system: readonly SystemPermission[]
  readonly content: readonly ({ readonly type: string; readonly action: ContentAction } & Grant)[]
}

/** A bearer goes before a cookie. */
export type Credentials = {
  readonly bearer: string | null
  readonly sessionCookie: string | null
  readonly origin?: Origin
}

/** `fresh`: from the database, whatever is in memory. */
export type IdentifyOptions = { readonly fresh?: boolean }

/**
 * `cookie` is the value of the session cookie; `expiresAt` its absolute end (it also ends when idle
 * for long).
 */
export type Login = {
  readonly cookie: string
  readonly csrfToken: string
  readonly expiresAt: string
  /** A browser keeps it: it distinguishes the owner's devices (device-cookie.ts). */
  readonly deviceCookie: string
  readonly user: User
}

export type FirstAdministratorInput = {
  readonly secret: string
  readonly email: string
  readonly name: string
  readonly password: string
  readonly agent: string
  readonly origin?: Origin
}

export type LoginInput = {
  readonly email: string
  readonly password: string
  /** The client's IP address, for throttling. */
  readonly address: string
  readonly agent: string
  readonly requestId?: string | null
  /** The session that the browser still had; it ends with the login. */
  readonly sessionCookie?: string | null
  readonly deviceCookie?: string | null
}

/**
 * Users, roles, sessions and API tokens; errors in access/errors.ts. Methods that take `by` check
 * its permission themselves (`PermissionError`) and refuse to give, change or take over more than
 * `by` may do (`EscalationError`); `list` and `get` do not: the caller asks `identity.require(…)`
 * first. `db` is the pool or the caller's transaction.
 */
export interface Access {
  /**
   * Without credentials: the anonymous role. With wrong or expired ones: `UnauthenticatedError`,
   * after the primary database was asked.
   */
  identify(credentials: Credentials, options?: IdentifyOptions): Promise<Identity>
  /** The rights that an actor has now, read through `db`; null: gone, disabled or expired. */
  readonly authorityOf: AuthorityOf
  /**
   * What `identify` would find, if it is in memory and fresh; null: ask `identify`. `cacheNowMs`:
   * `Cache.nowMs`.
   */
  peek(
    credentials: Pick<Credentials, 'bearer' | 'sessionCookie'>,
    cacheNowMs: number,
  ): Authority | null
  login(db: Queryable, input: LoginInput): Promise<Login>
  logout(db: Queryable, sessionCookie: string): Promise<void>
  /**
   * Ends every session of a user: one's own, or with `users.manage` those of users who may do no
   * more than `by`. Returns how many there were.
   */
  logoutEverywhere(db: Queryable, by: Identity, userId: string): Promise<number>

  /**
   * A one-time link's secret for the first administrator; null when there is a user already. Valid
   * 24 h; asking again replaces it.
   */
  firstAdministratorSecret(): Promise<string | null>
  /** Signs the new administrator in. */
  createFirstAdministrator(db: Queryable, input: FirstAdministratorInput): Promise<Login>

  readonly users: {
    list(page: {
      readonly limit: number
      readonly after: string | null
    }): Promise<{ data: User[]; after: string | null }>
    get(id: string): Promise<User>
    /** By email, in any case; `UserNotFoundError`. */
    getByEmail(email: string): Promise<User>
    create(
      db: Queryable,
      by: Identity,
      input: {
        readonly email: string
        readonly name: string
        readonly password: string
        readonly roles: readonly string[]
      },
    ): Promise<User>
    /**
     * The last active administrator can neither be disabled nor lose the role. A new password ends
     * the user's sessions.
     */
    update(
      db: Queryable,
      by: Identity,
      id: string,
      input: {
        readonly email?: string
        readonly name?: string
        readonly password?: string
        readonly roles?: readonly string[]
        readonly state?: User['state']
      },
    ): Promise<User>
    delete(db: Queryable, by: Identity, id: string): Promise<void>
    /**
     * The caller's own name and password. A new password needs the current one, ends all sessions
     * and starts a new one, returned as `login`.
     */
    updateOwn(
      db: Queryable,
      by: Identity,
      input: {
        readonly name?: string
        readonly password?: { readonly current: string; readonly next: string }
        readonly agent: string
      },
    ): Promise<{ user: User; login: Login | null }>
  }
  readonly roles: {
    list(): Promise<Role[]>
    get(name: string): Promise<Role>
    save(
      db: Queryable,
      by: Identity,
      role: Omit<Role, 'builtIn'>,
      precondition?: Precondition<Role>,
    ): Promise<Role>
    delete(
      db: Queryable,
      by: Identity,
      name: string,
      precondition?: Precondition<Role>,
    ): Promise<void>
  }
  readonly tokens: {
    list(): Promise<ApiToken[]>
    /** A token can neither do more nor live longer than the token that makes it. */
    create(
      db: Queryable,
      by: Identity,
      input: {
        readonly name: string
        readonly roles: readonly string[]
        readonly expiresAt: string | null
      },
    ): Promise<{ token: string; info: ApiToken }>
    delete(db: Queryable, by: Identity, id: string): Promise<void>
  }
  /** Appends to the audit log, in the transaction of the change. */
  audit(db: Queryable, by: Identity, entry: AuditEntry): Promise<void>
  auditLog(page: {
    readonly limit: number
    readonly after: string | null
  }): Promise<{ data: AuditRecord[]; after: string | null }>
  /**
   * Removes what is over: sessions, throttle rows, audit rows past their age. Bounded work per
   * call; call it hourly on any node.
   */
  prune(): Promise<{
    readonly sessions: number
    readonly throttles: number
    readonly audit: number
  }>
  /** Does everything; for the CLI on the node's own machine and for tests. */
  readonly systemIdentity: Identity
}

export type AuditEntry = {
  readonly action: string
  readonly subject: string
  readonly facts: Readonly<Record<string, unknown>>
}
export type AuditRecord = AuditEntry & {
  readonly id: string
  readonly at: string
  readonly actor: Authority['actor']
} & Origin
