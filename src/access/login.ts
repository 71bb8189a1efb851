import type { Access, Login, LoginInput, Origin } from '#access/access.ts'
import type { AuditLog } from '#access/audit.ts'
import { LoginFailedError, ThrottledError } from '#access/errors.ts'
import type { AccessContext } from '#access/access-context.ts'
import type { Sessions } from '#access/session-store.ts'
import type { LoginThrottle } from '#access/throttle.ts'
import { normaliseEmail } from '#access/user-input.ts'
import { userColumns, userOf } from '#access/user-row.ts'
import type { UserRow } from '#access/user-row.ts'
import { sql } from '#database/database.ts'

const candidate = sql<UserRow & { password_hash: string }>(
  `select ${userColumns}, u.password_hash from stoa.user u where u.email = $1`,
)
const renewHash = sql<{ id: string }>(
  `update stoa.user set password_hash = $3 where id = $1 and password_hash = $2 returning id`,
)

const nobody = { kind: 'anonymous', id: null, name: 'anonymous' } as const

/**
 * Whether `password` is the one stored (null: there is no such user), throttled by account and
 * address.
 */
export type ProvePassword = (input: {
  readonly email: string
  readonly password: string
  readonly stored: string | null
  readonly address: string
}) => Promise<boolean>

export function passwordProver(ground: AccessContext, throttle: LoginThrottle): ProvePassword {
  return async ({ email, password, stored, address }) => {
    const attempt = await throttle.attempt({ address, email })
    try {
      const right = await ground.hasher.verify(password, stored)
      if (right) await attempt.succeeded()
      return right
    } catch (error) {
      // Turned away unheard: that is no failure of the one who asked.
      if (error instanceof ThrottledError) await attempt.withdrawn()
      throw error
    }
  }
}

/**
 * Looked at again when a hash was renewed between the look and the session; a third time would be
 * no accident.
 */
const looksMax = 2

/**
 * Unknown emails, wrong passwords and disabled users take the same way, the same time and the same
 * answer.
 */
export function loginOf(
  ground: AccessContext,
  log: AuditLog,
  sessions: Sessions,
  provePassword: ProvePassword,
): Access['login'] {
  const { database } = ground

  const look = async (
    input: LoginInput,
    origin: Origin,
    email: string | null,
  ): Promise<Login | null> => {
    const [row] = email === null ? [] : await database.run(candidate, [email])
    const stored = row?.password_hash ?? null
    const right = await provePassword({
      email: email ?? input.email,
      password: input.password,
      stored,
      address: input.address,
    })
    if (!right || row === undefined || row.state !== 'active') {
      const facts = {
        reason: row === undefined ? 'unknown email' : right ? 'disabled' : 'wrong password',
      }
      const subject = row === undefined ? 'user:unknown' : `user:${row.id}`
      await log.record(database, nobody, origin, { action: 'session.refuse', subject, facts })
      throw new LoginFailedError()
    }
    const passwordHash = await renewed(ground, row.id, row.password_hash, input.password)
    return sessions.start({
      user: userOf(row),
      passwordHash,
      origin,
      agent: input.agent,
      replaces: input.sessionCookie ?? null,
    })
  }

  return async (input) => {
    const origin: Origin = { address: input.address, requestId: input.requestId ?? null }
    const email = normaliseEmail(input.email)
    for (let looks = 1; looks <= looksMax; looks += 1) {
      const login = await look(input, origin, email)
      if (login !== null) return login
    }
    throw new LoginFailedError()
  }
}

/**
 * The hash that is stored now: a new one when the old was made with other parameters than today's.
 */
async function renewed(
  ground: AccessContext,
  userId: string,
  stored: string,
  password: string,
): Promise<string> {
  if (!ground.hasher.outdated(stored)) return stored
  const next = await ground.hasher.hash(password)
  const [kept] = await ground.database.run(renewHash, [userId, stored, next])
  return kept === undefined ? stored : next
}
