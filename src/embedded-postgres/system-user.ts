import { readFile, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { EmbeddedDatabaseError } from '#embedded-postgres/errors.ts'

/**
 * The account under which PostgreSQL runs when the node itself is root, which PostgreSQL refuses to
 * be.
 */
export type SystemUser = { readonly name: string; readonly uid: number; readonly gid: number }

/**
 * Accounts to run under, best first, when both the data folder and the checkout belong to root.
 */
const accountNames = ['stoa', 'postgres']
/** The account for programs without rights, of Linux and of macOS. */
const unprivilegedIds = new Set([65_534, 4_294_967_294])

export function isRoot(): boolean {
  return process.geteuid?.() === 0
}

/**
 * Null when this process is an ordinary user: PostgreSQL then runs as the same user. As root:
 * the owner of the database files, else the owner of the checkout around them, else an
 * account that is there for such things. The account must have a name, since initdb asks for it.
 */
export async function chooseSystemUser(folder: string, data: string): Promise<SystemUser | null> {
  if (!isRoot()) return null
  const accounts = await readAccounts()
  const owner = (await ownerOf(data)) ?? null
  if (owner !== null && owner.uid !== 0)
    return (
      accounts.find((account) => account.uid === owner.uid) ?? { name: String(owner.uid), ...owner }
    )
  const around = (await ownerOf(dirname(folder))) ?? null
  const checkout = await ownerOf(dirname(dirname(folder)))
  for (const candidate of [around, checkout]) {
    const account = accounts.find((account) => account.uid === candidate?.uid && account.uid !== 0)
    if (account !== undefined) return account
  }
  for (const name of accountNames) {
    const account = accounts.find((account) => account.name === name)
    if (account !== undefined) return account
  }
  const unprivileged = accounts.find(({ uid }) => unprivilegedIds.has(uid))
  if (unprivileged !== undefined) return unprivileged
  throw new EmbeddedDatabaseError(
    'PostgreSQL refuses to run as root, and this system has none of the accounts ' +
      `${accountNames.join(', ')}: ` +
      'start Stoa as an ordinary user, or set STOA_DATABASE_URL to a PostgreSQL of your own.',
    { reason: 'noAccount' },
  )
}

async function ownerOf(path: string): Promise<{ uid: number; gid: number } | null> {
  try {
    const { uid, gid } = await stat(path)
    return { uid, gid }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null
    throw error
  }
}

async function readAccounts(): Promise<SystemUser[]> {
  const text = await readFile('/etc/passwd', 'utf8')
  return text.split('\n').flatMap((line) => {
    const [name = '', , uid, gid] = line.split(':')
    if (name === '' || uid === undefined || gid === undefined || name.startsWith('#')) return []
    // macOS writes an id of -2; the kernel means the unsigned number.
    return [{ name, uid: Number(uid) >>> 0, gid: Number(gid) >>> 0 }]
  })
}
