import { isIPv4, isIPv6 } from 'node:net'
import { ThrottledError } from '#access/errors.ts'
import { timestamp } from '#access/access-context.ts'
import type { AccessContext } from '#access/access-context.ts'
import { hashSecret } from '#access/secrets.ts'
import { sql } from '#database/database.ts'

/**
 * Login throttling, in the database so that it holds across nodes. Every attempt counts as a
 * failure before its password is looked at, in one statement, so that a thousand at once are not a
 * thousand guesses; a success takes it back. After `free` failures each further one closes the key
 * for 1 s, 2 s, 4 s … up to `blockMaxMs`; `windowMs` without an attempt forgets them. An account
 * opens at the next success, an address only by time: owning one account must not help to guess at
 * others.
 */
type Limit = { readonly free: number }
export const accountLimit: Limit = { free: 5 }
export const addressLimit: Limit = { free: 30 }
export const blockMaxMs = 15 * 60 * 1_000
export const windowMs = 60 * 60 * 1_000
/** 2^20 s is far past `blockMaxMs`: it only keeps the power from overflowing. */
const exponentMax = 20
/** Rows removed per call of `prune`. */
const prunedMax = 5_000

// An open key says -infinity, not "until now": the next attempt may come to a node whose clock is a
// bit behind.
const admit = sql<{ failures: number }>(`
  insert into stoa.login_throttle as t (key, failures, last_at, blocked_until) values ($1, 1, $2, '-infinity')
  on conflict (key) do update set
    failures = case when t.last_at < $3 then 1 else t.failures + 1 end,
    last_at = $2,
    blocked_until = case when t.last_at < $3 or t.failures + 1 < $4::int then '-infinity'
      else $2::timestamptz + least($5::float8, 1000 * power(2, least(t.failures + 1 - $4::int, ${exponentMax}))) * interval '1 millisecond' end
  where t.blocked_until <= $2
  returning failures`)

const blockedUntil = sql<{ blocked_until: string }>(
  `select blocked_until from stoa.login_throttle where key = $1`,
)
const forget = sql(`delete from stoa.login_throttle where key = $1`)
const takeBack = sql(`
  update stoa.login_throttle set failures = greatest(failures - 1, 0), blocked_until = case when failures - 1 < $2::int then '-infinity' else blocked_until end
  where key = $1`)
const prune = sql<{ count: number }>(`
  with gone as (delete from stoa.login_throttle where key in (select key from stoa.login_throttle where last_at < $1 and blocked_until < $2 limit ${prunedMax}) returning 1)
  select count(*)::int as count from gone`)

export type Attempt = {
  /** The password was right. */
  succeeded(): Promise<void>
  /** It was not looked at. */
  withdrawn(): Promise<void>
}

export class LoginThrottle {
  readonly #ground: Pick<AccessContext, 'database' | 'clock'>

  constructor(ground: Pick<AccessContext, 'database' | 'clock'>) {
    this.#ground = ground
  }

  /** Throws `ThrottledError` while the address or the account is closed. */
  async attempt(input: { readonly address: string; readonly email: string }): Promise<Attempt> {
    const addressKey = `address:${networkOf(input.address)}`
    const accountKey = `account:${hashSecret(input.email).toString('base64url')}`
    await this.#admit(addressKey, addressLimit)
    await this.#admit(accountKey, accountLimit)
    const back = (key: string, limit: Limit): Promise<unknown> =>
      this.#ground.database.run(takeBack, [key, limit.free])
    return {
      succeeded: async () => {
        await this.#ground.database.run(forget, [accountKey])
        await back(addressKey, addressLimit)
      },
      withdrawn: async () => {
        await back(accountKey, accountLimit)
        await back(addressKey, addressLimit)
      },
    }
  }

  async prune(): Promise<number> {
    const nowMs = this.#ground.clock.nowMs()
    const [row] = await this.#ground.database.run(prune, [
      timestamp(nowMs - windowMs),
      timestamp(nowMs),
    ])
    return row?.count ?? 0
  }

  async #admit(key: string, limit: Limit): Promise<void> {
    const nowMs = this.#ground.clock.nowMs()
    const admitted = await this.#ground.database.run(admit, [
      key,
      timestamp(nowMs),
      timestamp(nowMs - windowMs),
      limit.free,
      blockMaxMs,
    ])
    if (admitted.length > 0) return
    const [row] = await this.#ground.database.run(blockedUntil, [key])
    const until = row === undefined ? Number.NaN : Date.parse(row.blocked_until)
    // Not a number: it opened between the two statements.
    const leftMs = Number.isNaN(until) ? 0 : until - nowMs
    throw new ThrottledError(
      'Too many failed logins; wait, then try again.',
      Math.max(1, Math.ceil(leftMs / 1_000)),
    )
  }
}

/** What one customer of a provider gets: an IPv4 address, or the first 64 bits of an IPv6 one. */
export function networkOf(address: string): string {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1]
  if (mapped !== undefined && isIPv4(mapped)) return mapped
  if (!isIPv6(address)) return isIPv4(address) ? address : 'unknown'
  const [head = '', tail] = address.toLowerCase().replace(/%.*$/, '').split('::')
  const first = head === '' ? [] : head.split(':')
  const last = tail === undefined || tail === '' ? [] : tail.split(':')
  // An embedded IPv4 address at the end stands for two groups; it never reaches the first four.
  const groups = last.length + (last.at(-1)?.includes('.') === true ? 1 : 0)
  const zeros =
    tail === undefined
      ? []
      : Array.from({ length: Math.max(0, 8 - first.length - groups) }, () => '0')
  const network = [...first, ...zeros, ...last]
    .slice(0, 4)
    .map((group) => Number.parseInt(group, 16).toString(16))
  return `${network.join(':')}::/64`
}
