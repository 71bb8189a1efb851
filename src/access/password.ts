import { argon2, randomBytes, timingSafeEqual } from 'node:crypto'
import { promisify } from 'node:util'
import { PasswordRefusedError, ThrottledError } from '#access/errors.ts'
import { commonPasswords } from '#access/common-passwords.ts'
import { FairQueue } from '#access/fair-queue.ts'
import type { QueueClient } from '#access/fair-queue.ts'
import type { Clock } from '#lib/clock.ts'

/**
 * Password rules and hashing. Rules are NIST SP 800-63B-4 §3.1.1: length instead of composition,
 * NFKC, a list of the commonest. Hashes are argon2id (RFC 9106) with OWASP's first choice of
 * parameters, kept as PHC strings.
 */
export const passwordLengthMin = 12
export const passwordLengthMax = 256

/** The cost of one hash: memory in KiB, and passes over it. */
export type PasswordCost = { readonly memoryKiB: number; readonly passes: number }
export const defaultPasswordCost: PasswordCost = { memoryKiB: 19_456, passes: 2 }

/**
 * Hashes that run at once: they bound memory (times 19 MiB) and leave half of libuv's four threads
 * to files and names.
 */
const hashesAtOnceMax = 2

const saltBytes = 16
const hashBytes = 32
const phcPattern =
  /^\$argon2id\$v=19\$m=(\d{1,8}),t=(\d{1,4}),p=1\$([A-Za-z0-9+/]{11,86})\$([A-Za-z0-9+/]{16,172})$/

const deriveAsync = promisify(argon2)

/** One text for passwords that look the same but were typed on different keyboards. */
function normalise(password: string): string {
  return password.normalize('NFKC')
}

/** Throws `PasswordRefusedError`. `known` are the user's own email and name. */
export function checkPassword(password: string, email: string): void {
  const text = normalise(password)
  const length = Array.from(text).length
  if (length < passwordLengthMin)
    throw new PasswordRefusedError(`A password has at least ${passwordLengthMin} characters.`)
  if (length > passwordLengthMax)
    throw new PasswordRefusedError(`A password has at most ${passwordLengthMax} characters.`)
  const lower = text.toLowerCase()
  if (lower === email) throw new PasswordRefusedError('A password must not be the email.')
  if (commonPasswords.has(lower) || new Set(lower).size <= 2) {
    throw new PasswordRefusedError(
      'This password is one of the first to be tried in an attack; choose another.',
    )
  }
}

/** Hashes and verifies, a few at a time, in turn for each client. */
export class PasswordHasher {
  readonly #cost: PasswordCost
  /** Verified for unknown users, so that they take as long as known ones. */
  readonly #dummy: string
  readonly #queue: FairQueue

  constructor(clock: Clock, cost: PasswordCost = defaultPasswordCost) {
    this.#cost = cost
    this.#dummy = phc(cost, randomBytes(saltBytes), randomBytes(hashBytes))
    this.#queue = new FairQueue({ clock, placesMax: hashesAtOnceMax, busy })
  }

  async hash(password: string, client: QueueClient): Promise<string> {
    const salt = randomBytes(saltBytes)
    const derived = await this.#derive(password, client, {
      salt,
      cost: this.#cost,
      length: hashBytes,
    })
    return phc(this.#cost, salt, derived)
  }

  /** `stored` null (no such user) costs the same and is false. */
  async verify(password: string, stored: string | null, client: QueueClient): Promise<boolean> {
    const match = phcPattern.exec(stored ?? this.#dummy)
    if (match === null)
      throw new Error('a stored password hash is not in the form that this program writes')
    const [, memory, passes, salt, hash] = match
    const expected = Buffer.from(hash!, 'base64')
    const derived = await this.#derive(password, client, {
      salt: Buffer.from(salt!, 'base64'),
      cost: { memoryKiB: Number(memory), passes: Number(passes) },
      length: expected.length,
    })
    return timingSafeEqual(derived, expected) && stored !== null
  }

  /** True when `stored` was made with other parameters than today's. */
  outdated(stored: string): boolean {
    return !stored.startsWith(phcPrefix(this.#cost))
  }

  #derive(
    password: string,
    client: QueueClient,
    { salt, cost, length }: Derivation,
  ): Promise<Buffer> {
    return this.#queue.run(client, () =>
      deriveAsync('argon2id', {
        message: normalise(password),
        nonce: salt,
        parallelism: 1,
        tagLength: length,
        memory: cost.memoryKiB,
        passes: cost.passes,
      }),
    )
  }
}

type Derivation = {
  readonly salt: Buffer
  readonly cost: PasswordCost
  readonly length: number
}

function busy(): ThrottledError {
  return new ThrottledError(
    'More people sign in than this node can check at once; try again in a moment.',
    2,
  )
}

function phcPrefix(cost: PasswordCost): string {
  return `$argon2id$v=19$m=${cost.memoryKiB},t=${cost.passes},p=1$`
}

/** https://github.com/P-H-C/phc-string-format: base64 without padding. */
function phc(cost: PasswordCost, salt: Buffer, hash: Buffer): string {
  const text = (bytes: Buffer): string => bytes.toString('base64').replace(/=+$/, '')
  return `${phcPrefix(cost)}${text(salt)}$${text(hash)}`
}
