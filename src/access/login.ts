import type { Access, Login, LoginInput, Origin } from '#access/access.ts'
import type { AccessContext } from '#access/access-context.ts'
import type { AuditLog } from '#access/audit.ts'
import { deviceOf } from '#access/device-cookie.ts'
import { LoginFailedError, ThrottledError } from '#access/errors.ts'
import { RefusalAudit } from '#access/refusal-audit.ts'
import type { Sessions } from '#access/session-store.ts'
import { networkOf } from '#access/throttle.ts'
import type { Attempt, LoginThrottle, SignInClient } from '#access/throttle.ts'
import { normaliseEmail } from '#access/user-input.ts'
import { userColumns, userOf } from '#access/user-row.ts'
import type { UserRow } from '#access/user-row.ts'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'

const candidate = sql<UserRow & { password_hash: string }>(
  `select ${userColumns}, u.password_hash from stoa.user u where u.email = $1`,
)
const renewHash = sql<{ id: string }>(
  `update stoa.user set password_hash = $3 where id = $1 and password_hash = $2 returning id`,
)
const addressesOf = sql<{ address: string }>(
  `select distinct address from stoa.session where user_id = $1`,
)

/** The outcome of a proof; `isNotable`: the audit log is to have the refusal. */
type Proof = { readonly right: boolean; readonly isNotable: boolean }

/** Checks a password against the stored hash (null: there is no such user), throttled. */
export type ProvePassword = (
  client: SignInClient,
  password: string,
  stored: string | null,
) => Promise<Proof>

export function passwordProver(context: AccessContext, throttle: LoginThrottle): ProvePassword {
  return async (client, password, stored) => {
    const attempt = await throttle.attempt(client)
    const right = await verify(context, attempt, { client, password, stored })
    if (right) await attempt.succeeded()
    return { right, isNotable: attempt.isNotable }
  }
}

type Guess = {
  readonly client: SignInClient
  readonly password: string
  readonly stored: string | null
}

async function verify(
  { hasher }: AccessContext,
  attempt: Attempt,
  { client, password, stored }: Guess,
): Promise<boolean> {
  const known = client.device !== null || client.knownNetwork
  const key = client.device ?? networkOf(client.address)
  try {
    return await hasher.verify(password, stored, { key, known })
  } catch (error) {
    // There was no room to verify it: that is no failure of the caller.
    if (error instanceof ThrottledError) await attempt.withdrawn()
    throw error
  }
}

/**
 * The user is read again when their hash was renewed between reading and starting the session; a
 * third time would be no accident.
 */
const readsMax = 2

/**
 * Unknown emails, wrong passwords and disabled users take the same way, the same time and the same
 * response.
 */
export function loginOf(
  context: AccessContext,
  log: AuditLog,
  sessions: Sessions,
  provePassword: ProvePassword,
): Access['login'] {
  const refusals = new RefusalAudit(context, log)
  const tryOnce = async (db: Queryable, input: LoginInput): Promise<Login | null> => {
    const origin: Origin = { address: input.address, requestId: input.requestId ?? null }
    const email = normaliseEmail(input.email)
    const [row] = email === null ? [] : await context.database.run(candidate, [email])
    const client = await clientOf(context, input, row?.id ?? null)
    const { right, isNotable } = await provePassword(
      client,
      input.password,
      row?.password_hash ?? null,
    )
    if (!right || row === undefined || row.state !== 'active') {
      if (isNotable) await refusals.record(origin, row?.id ?? null, reasonOf(row, right))
      throw new LoginFailedError()
    }
    const passwordHash = await renewedHash(context, row.id, row.password_hash, input.password)
    return sessions.start(db, {
      user: userOf(row),
      passwordHash,
      origin,
      agent: input.agent,
      replaces: input.sessionCookie ?? null,
    })
  }

  return async (db, input) => {
    for (let reads = 1; reads <= readsMax; reads += 1) {
      const login = await tryOnce(db, input)
      if (login !== null) return login
    }
    throw new LoginFailedError()
  }
}

async function clientOf(
  { database, secret }: AccessContext,
  { address, email, deviceCookie = null }: LoginInput,
  userId: string | null,
): Promise<SignInClient> {
  const addresses = await database.run(addressesOf, [userId])
  return {
    address,
    email: normaliseEmail(email) ?? email,
    device: deviceOf(deviceCookie, userId, secret),
    knownNetwork: addresses.some((row) => networkOf(row.address) === networkOf(address)),
  }
}

function reasonOf(row: UserRow | undefined, right: boolean): string {
  if (row === undefined) return 'unknown email'
  return right ? 'disabled' : 'wrong password'
}

/**
 * The hash that is stored now: a new one when the old was made with other parameters than today's.
 */
async function renewedHash(
  { hasher, database }: AccessContext,
  userId: string,
  stored: string,
  password: string,
): Promise<string> {
  if (!hasher.outdated(stored)) return stored
  const next = await hasher.hash(password, { key: userId, known: true })
  const [kept] = await database.run(renewHash, [userId, stored, next])
  return kept === undefined ? stored : next
}
