import { isIPv4, isIPv6 } from 'node:net'
import { ThrottledError } from '#access/errors.ts'
import { timestamp } from '#access/access-context.ts'
import type { AccessContext } from '#access/access-context.ts'
import { hashSecret } from '#access/secrets.ts'
import { sql } from '#database/database.ts'

/**
 * Sign-in throttling, in the database so that it holds across nodes. Failures are counted by keys:
 *
 * - a device that has signed in to the account before has a key of its own, and no other;
 * - everything else is counted by network, and by network and account together;
 * - and by account, unless the account has a session from this network.
 *
 * So a stranger closes an account for the stranger's own network, and for the owner at most on a
 * new device in a new network. Every attempt counts as a failure before its password is verified,
 * in one statement, so that a thousand at once are not a thousand guesses; a success takes it back,
 * and so does an attempt that another key refuses. After `free` failures each further one closes
 * the key for 1 s, 2 s, 4 s … up to `blockMaxMs`; `windowMs` without an attempt forgets them.
 */
type Limit = { readonly free: number }
export const deviceLimit: Limit = { free: 10 }
export const pairLimit: Limit = { free: 5 }
export const networkLimit: Limit = { free: 30 }
export const accountLimit: Limit = { free: 100 }
export const blockMaxMs = 15 * 60 * 1_000
export const windowMs = 60 * 60 * 1_000
/** 2^20 s is far past `blockMaxMs`: it only keeps the power from overflowing. */
const exponentMax = 20
/** Rows removed per call of `prune`. */
const prunedMax = 50_000

// An open key says -infinity, not "until now": the next attempt may come to a node whose clock is
// a bit behind.
const admit = sql<{ failures: number }>(`
  insert into stoa.login_throttle as t (key, failures, last_at, blocked_until)
  values ($1, 1, $2, '-infinity')
  on conflict (key) do update set
    failures = case when t.last_at < $3 then 1 else t.failures + 1 end,
    last_at = $2,
    blocked_until = case when t.last_at < $3 or t.failures + 1 < $4::int then '-infinity'
      else $2::timestamptz + interval '1 millisecond'
        * least($5::float8, 1000 * power(2, least(t.failures + 1 - $4::int, ${exponentMax}))) end
  where t.blocked_until <= $2
  returning failures`)

const blockedUntil = sql<{ blocked_until: string }>(
  `select blocked_until from stoa.login_throttle where key = $1`,
)
const forget = sql(`delete from stoa.login_throttle where key = $1`)
const takeBack = sql(`
  update stoa.login_throttle set failures = greatest(failures - 1, 0),
    blocked_until = case when failures - 1 < $2::int then '-infinity' else blocked_until end
  where key = $1`)
const prune = sql<{ count: number }>(`
  with gone as (
    delete from stoa.login_throttle where key in (
      select key from stoa.login_throttle
      where last_at < $1 and blocked_until < $2 limit ${prunedMax}
    ) returning 1
  )
  select count(*)::int as count from gone`)

/** An attempt to sign in to an account. */
export type SignInClient = {
  readonly address: string
  readonly email: string
  /** A device from which the account has signed in before. */
  readonly device: string | null
  /** The account has a session from this network. */
  readonly knownNetwork: boolean
}

type Count = { readonly key: string; readonly limit: Limit; readonly failures: number }

export type Attempt = {
  /** A failure is the first of its kind, or closes a key: then the audit log has it. */
  readonly isNotable: boolean
  succeeded(): Promise<void>
  /** The password was not verified. */
  withdrawn(): Promise<void>
}

export class LoginThrottle {
  readonly #context: Pick<AccessContext, 'database' | 'clock'>

  constructor(context: Pick<AccessContext, 'database' | 'clock'>) {
    this.#context = context
  }

  /** Throws `ThrottledError` while a key of the attempt is closed. */
  async attempt(client: SignInClient): Promise<Attempt> {
    const device = client.device === null ? null : `device:${client.device}`
    // A device that has used up its own budget is a stranger.
    const own = device === null ? null : await this.#count(device, deviceLimit)
    const counts = own === null ? await this.#countStranger(client) : [own]
    const back = async (counted: readonly Count[]): Promise<void> => {
      for (const { key, limit } of counted)
        await this.#context.database.run(takeBack, [key, limit.free])
    }
    return {
      isNotable: counts.some(
        ({ limit, failures }) =>
          limit !== networkLimit && (failures === 1 || failures === limit.free),
      ),
      succeeded: async () => {
        // One account of one's own must not help to guess at others from the same network.
        const closed = counts.filter(({ limit }) => limit === pairLimit || limit === deviceLimit)
        for (const { key } of closed) await this.#context.database.run(forget, [key])
        await back(counts.filter((count) => !closed.includes(count)))
      },
      withdrawn: () => back(counts),
    }
  }

  async prune(): Promise<number> {
    const nowMs = this.#context.clock.nowMs()
    const [row] = await this.#context.database.run(prune, [
      timestamp(nowMs - windowMs),
      timestamp(nowMs),
    ])
    return row?.count ?? 0
  }

  async #countStranger({ address, email, knownNetwork }: SignInClient): Promise<readonly Count[]> {
    const network = networkOf(address)
    const account = hashSecret(email).toString('base64url')
    // The network comes last: attempts at a closed account must not close it for others.
    const keys: (readonly [string, Limit])[] = [
      [`pair:${network}:${account}`, pairLimit],
      ...(knownNetwork ? [] : [[`account:${account}`, accountLimit] as const]),
      [`network:${network}`, networkLimit],
    ]
    const counts: Count[] = []
    for (const [key, limit] of keys) {
      const count = await this.#count(key, limit)
      if (count === null) {
        // An attempt that is refused is no guess.
        for (const counted of counts)
          await this.#context.database.run(takeBack, [counted.key, counted.limit.free])
        throw await this.#closed(key)
      }
      counts.push(count)
    }
    return counts
  }

  /** Counts a failure; null while the key is closed. */
  async #count(key: string, limit: Limit): Promise<Count | null> {
    const nowMs = this.#context.clock.nowMs()
    const [row] = await this.#context.database.run(admit, [
      key,
      timestamp(nowMs),
      timestamp(nowMs - windowMs),
      limit.free,
      blockMaxMs,
    ])
    return row === undefined ? null : { key, limit, failures: row.failures }
  }

  async #closed(key: string): Promise<ThrottledError> {
    const [row] = await this.#context.database.run(blockedUntil, [key])
    const until = row === undefined ? Number.NaN : Date.parse(row.blocked_until)
    // Not a number: it opened between the two statements.
    const leftMs = Number.isNaN(until) ? 0 : until - this.#context.clock.nowMs()
    return new ThrottledError(
      'Too many failed sign-ins; wait, then try again.',
      Math.max(1, Math.ceil(leftMs / 1_000)),
    )
  }
}

/**
 * The addresses that one customer of a provider has: an IPv4 address, or the first 56 bits of an
 * IPv6 address.
 */
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
    .map((group) => Number.parseInt(group, 16))
  // The fourth group counts half: providers give their customers 56 bits or more.
  const prefix = network.map((group, at) => (at < 3 ? group : group & 0xff00).toString(16))
  return `${prefix.join(':')}::/56`
}
