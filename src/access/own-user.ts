import type { Access, Identity, User } from '#access/access.ts'
import type { AuditLog } from '#access/audit.ts'
import { EscalationError, LoginFailedError, PasswordRefusedError } from '#access/errors.ts'
import type { AccessContext } from '#access/access-context.ts'
import type { ProvePassword } from '#access/login.ts'
import { checkPassword } from '#access/password.ts'
import { endSessionsOf } from '#access/session-store.ts'
import type { Sessions } from '#access/session-store.ts'
import { checkedUser } from '#access/user-input.ts'
import { lockedUser, readUser, writeUser } from '#access/user-row.ts'
import { sql } from '#database/database.ts'

const passwordOf = sql<{ password_hash: string }>(
  `select password_hash from stoa.user where id = $1`,
)

/** Users change themselves, without any permission. */
export function ownUser(
  context: AccessContext,
  log: AuditLog,
  sessions: Sessions,
  provePassword: ProvePassword,
): Access['users']['updateOwn'] {
  const { database, hasher } = context

  /**
   * The hash of the next password, and the one that the current password was proven against;
   * guessing is throttled like a login.
   */
  const newOwnPassword = async (
    own: User,
    by: Identity,
    password: { readonly current: string; readonly next: string },
  ): Promise<{ proven: string; next: string }> => {
    checkPassword(password.next, own.email)
    if (password.next === password.current)
      throw new PasswordRefusedError('This is the password that you have already.')
    const [row] = await database.run(passwordOf, [own.id])
    // The caller is signed in: strangers' attempts at the account do not count against them.
    const client = {
      email: own.email,
      address: by.origin.address ?? '',
      device: `session of ${own.id}`,
      knownNetwork: true,
    }
    const { right } = await provePassword(client, password.current, row?.password_hash ?? null)
    if (!right || row === undefined) throw new LoginFailedError()
    return {
      proven: row.password_hash,
      next: await hasher.hash(password.next, { key: own.id, known: true }),
    }
  }

  return async (db, by, input) => {
    const own = by.user
    if (own === null)
      throw new EscalationError(
        'Only a user who is signed in has a name and a password of their own.',
      )
    const { name } = checkedUser(input.name === undefined ? {} : { name: input.name })
    const hashes =
      input.password === undefined ? null : await newOwnPassword(own, by, input.password)
    const passwordHash = hashes?.next ?? null
    const user = await db.transaction(async (tx) => {
      const now = await lockedUser(tx, own.id)
      // An administrator may have disabled the user meanwhile.
      const [stored] = await tx.run(passwordOf, [own.id])
      if (now.state !== 'active' || (hashes !== null && stored?.password_hash !== hashes.proven))
        throw new LoginFailedError()
      await writeUser(tx, own.id, { name, passwordHash })
      if (passwordHash !== null) await endSessionsOf(tx, own.id)
      const changed = Object.entries({ name, password: passwordHash ?? undefined })
        .filter(([, value]) => value !== undefined)
        .map(([key]) => key)
      if (changed.length > 0)
        await log.audit(tx, by, {
          action: 'user.update',
          subject: `user:${own.id}`,
          facts: { changed, own: true },
        })
      return readUser(tx, own.id)
    })
    if (passwordHash === null) return { user, login: null }
    return {
      user,
      login: await sessions.start(db, {
        user,
        passwordHash,
        origin: by.origin,
        agent: input.agent,
        replaces: null,
      }),
    }
  }
}
