import type { Access, Identity, Origin } from '#access/access.ts'
import { authorityNow } from '#access/authority-of.ts'
import { auditLog } from '#access/audit.ts'
import { firstAdministrator } from '#access/first-administrator.ts'
import type { AccessOptions, AccessContext } from '#access/access-context.ts'
import { KnownIdentity, systemIdentity } from '#access/identity.ts'
import { loginOf, passwordProver } from '#access/login.ts'
import { PasswordHasher } from '#access/password.ts'
import { anonymousActor, anonymousRole, BoundAuthority } from '#access/permissions.ts'
import { RoleCache } from '#access/role-cache.ts'
import { roleStore } from '#access/role-store.ts'
import { sessionStore } from '#access/session-store.ts'
import { LoginThrottle } from '#access/throttle.ts'
import { tokenStore } from '#access/token-store.ts'
import { userStore } from '#access/user-store.ts'

/** Needs no stopping: it has no timers and holds nothing but the database that it was given. */
export function createAccess(options: AccessOptions): Access {
  const { database, clock, secret } = options
  const logger = options.logger.child({ part: 'access' })
  const cache = options.cache ?? null
  const context: AccessContext = {
    database,
    clock,
    logger,
    secret,
    cache,
    hasher: new PasswordHasher(clock, options.passwordCost),
    roleCache: new RoleCache({ database, cache }),
  }
  const log = auditLog(context)
  const throttle = new LoginThrottle(context)
  const sessions = sessionStore(context, log)
  const provePassword = passwordProver(context, throttle)
  const tokens = tokenStore(context, log)
  let anonymousAuthority: BoundAuthority | null = null
  return {
    identify: ({ bearer, sessionCookie, origin }, { fresh = false } = {}) => {
      if (bearer !== null) return tokens.identify(bearer, origin, fresh)
      return sessionCookie === null
        ? anonymous(context, origin, fresh)
        : sessions.identify(sessionCookie, origin, fresh)
    },
    peek: ({ bearer, sessionCookie }, cacheNowMs) => {
      if (bearer !== null) return tokens.peek(bearer, cacheNowMs)
      if (sessionCookie !== null) return sessions.peek(sessionCookie, cacheNowMs)
      const permissions = context.roleCache.peekAnonymous(cacheNowMs)
      if (permissions === null) return null
      if (anonymousAuthority?.permissions !== permissions)
        anonymousAuthority = new BoundAuthority(anonymousActor, permissions)
      return anonymousAuthority
    },
    authorityOf: authorityNow(context),
    login: loginOf(context, log, sessions, provePassword),
    logout: (db, cookie) => sessions.logout(db, cookie),
    logoutEverywhere: (db, by, userId) => sessions.logoutEverywhere(db, by, userId),
    ...firstAdministrator(context, log, sessions),
    users: userStore(context, log, sessions, provePassword),
    roles: roleStore(context, log),
    tokens: tokens.tokens,
    audit: (db, by, entry) => log.audit(db, by, entry),
    auditLog: (page) => log.auditLog(page),
    prune: async () => ({
      sessions: await sessions.prune(),
      throttles: await throttle.prune(),
      audit: await log.prune(),
    }),
    systemIdentity,
  }
}

async function anonymous(
  context: AccessContext,
  origin: Origin | undefined,
  fresh: boolean,
): Promise<Identity> {
  const { permissions, staleMs } = await context.roleCache.anonymous({ fresh })
  return new KnownIdentity({
    authority: new BoundAuthority(anonymousActor, permissions),
    roles: [anonymousRole],
    staleMs,
    origin,
  })
}
