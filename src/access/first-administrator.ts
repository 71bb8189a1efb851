import type { Access } from '#access/access.ts'
import type { AuditLog } from '#access/audit.ts'
import { FirstAdministratorError, LoginFailedError } from '#access/errors.ts'
import { timestamp } from '#access/access-context.ts'
import type { AccessContext } from '#access/access-context.ts'
import { noOrigin } from '#access/identity.ts'
import { checkPassword } from '#access/password.ts'
import { administratorRole } from '#access/permissions.ts'
import type { Sessions } from '#access/session-store.ts'
import { hashSecret, looksLikeSecret, newSecret } from '#access/secrets.ts'
import { checkedUser } from '#access/user-input.ts'
import { insertUser } from '#access/user-store.ts'
import { sql } from '#database/database.ts'

export const secretLifetimeMs = 24 * 60 * 60 * 1_000

const anyUser = sql<{ found: boolean }>(`select exists (select from stoa.user) as found`)
const offer = sql(`
  insert into stoa.first_administrator (secret_hash, expires_at) values ($1, $2)
  on conflict (only_one) do update
    set secret_hash = excluded.secret_hash, expires_at = excluded.expires_at`)
const valid = sql<{ found: boolean }>(
  `select exists (
     select from stoa.first_administrator where secret_hash = $1 and expires_at > $2
   ) as found`,
)
// The second of two transactions with the same secret waits for the first here, and then finds
// nothing.
const use = sql<{ used: boolean }>(
  `delete from stoa.first_administrator where secret_hash = $1 and expires_at > $2
   returning true as used`,
)

export function firstAdministrator(
  context: AccessContext,
  log: AuditLog,
  sessions: Sessions,
): Pick<Access, 'firstAdministratorSecret' | 'createFirstAdministrator'> {
  const { database, clock, hasher } = context
  const now = (): string => timestamp(clock.nowMs())
  return {
    firstAdministratorSecret: async () => {
      const [row] = await database.run(anyUser)
      if (row?.found === true) return null
      const secret = newSecret()
      await database.run(offer, [hashSecret(secret), timestamp(clock.nowMs() + secretLifetimeMs)])
      return secret
    },
    createFirstAdministrator: async (
      db,
      { secret, email, name, password, agent, origin = noOrigin },
    ) => {
      const hash = hashSecret(secret)
      // A wrong secret costs no password hash.
      const [known] = looksLikeSecret(secret) ? await database.run(valid, [hash, now()]) : []
      if (known?.found !== true) throw new FirstAdministratorError()
      const checked = checkedUser({ email, name })
      checkPassword(password, checked.email)
      const passwordHash = await hasher.hash(password, { key: 'first administrator', known: true })
      const user = await db.transaction(async (tx) => {
        const used = await tx.run(use, [hash, now()])
        const [row] = await tx.run(anyUser)
        if (used.length === 0 || row?.found === true) throw new FirstAdministratorError()
        const user = await insertUser(tx, {
          ...checked,
          passwordHash,
          roles: [administratorRole],
          nowMs: clock.nowMs(),
        })
        const actor = { kind: 'user', id: user.id, name: user.name } as const
        await log.record(tx, actor, origin, {
          action: 'user.createFirst',
          subject: `user:${user.id}`,
          facts: { email: user.email },
        })
        return user
      })
      const login = await sessions.start(db, {
        user,
        passwordHash,
        origin,
        agent,
        replaces: null,
      })
      // Another administrator has changed the user already: then they sign in by themselves.
      if (login === null) throw new LoginFailedError()
      return login
    },
  }
}
