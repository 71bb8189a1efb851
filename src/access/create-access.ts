import type { Access, Identity, Origin } from '#access/access.ts'
import { authorityNow } from '#access/authority-of.ts'
import { auditLog } from '#access/audit.ts'
import { firstAdministrator } from '#access/first-administrator.ts'
import type { AccessOptions, AccessContext } from '#access/access-context.ts'
import { KnownIdentity, systemIdentity } from '#access/identity.ts'
import { loginOf, passwordProver } from '#access/login.ts'
import { PasswordHasher } from '#access/password.ts'
import { anonymousRole, BoundAuthority } from '#access/permissions.ts'
import { RoleCache } from '#access/role-cache.ts'
import { roleStore } from '#access/role-store.ts'
import { sessionStore } from '#access/session-store.ts'
import { LoginThrottle } from '#access/throttle.ts'
import { tokenStore } from '#access/token-store.ts'
import { userStore } from '#access/user-store.ts'
import type { Actor } from '#lib/actor.ts'

const anonymousActor: Actor = { kind: 'anonymous', id: null, name: 'anonymous' }

/** Needs no stopping: it has no timers and holds nothing but the database that it was given. */
export function createAccess(options: AccessOptions): Access {
  const { database, clock, secret } = options
  const logger = options.logger.child({ part: 'access' })
  const cache = options.cache ?? null
  const ground: AccessContext = {
    database,
    clock,
    logger,
    secret,
    cache,
    hasher: new PasswordHasher(clock, options.passwordCost),
    roleCache: new RoleCache({ database, clock, logger, cache }),
  }
  const log = auditLog(ground)
  const throttle = new LoginThrottle(ground)
  const sessions = sessionStore(ground, log)
  const provePassword = passwordProver(ground, throttle)
  const tokens = tokenStore(ground, log)
  let anonymousAuthority: BoundAuthority | null = null
  return {
    identify: ({ bearer, sessionCookie, origin }, { fresh = false } = {}) => {
      if (bearer !== null) return tokens.identify(bearer, origin, fresh)
      return sessionCookie === null
        ? anonymous(ground, origin, fresh)
        : sessions.identify(sessionCookie, origin, fresh)
    },
    peek: ({ bearer, sessionCookie }, cacheNowMs) => {
      if (bearer !== null) return tokens.peek(bearer, cacheNowMs)
      if (sessionCookie !== null) return sessions.peek(sessionCookie, cacheNowMs)
      const permissions = ground.roleCache.peekAnonymous(cacheNowMs)
      if (permissions === null) return null
      if (anonymousAuthority?.permissions !== permissions)
        anonymousAuthority = new BoundAuthority(anonymousActor, permissions)
      return anonymousAuthority
    },
    authorityOf: authorityNow(ground),
    login: loginOf(ground, log, sessions, provePassword),
    logout: (cookie) => sessions.logout(cookie),
    logoutEverywhere: (db, by, userId) => sessions.logoutEverywhere(db, by, userId),
    ...firstAdministrator(ground, log),
    users: userStore(ground, log, sessions, provePassword),
    roles: roleStore(ground, log),
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
  ground: AccessContext,
  origin: Origin | undefined,
  fresh: boolean,
): Promise<Identity> {
  const { permissions, staleMs } = await ground.roleCache.anonymous({ fresh })
  return new KnownIdentity({
    authority: new BoundAuthority(anonymousActor, permissions),
    roles: [anonymousRole],
    staleMs,
    origin,
  })
}
