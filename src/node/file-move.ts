import type { FileStore } from '#file-store/file-store.ts'
import { StoaError } from '#lib/stoa-error.ts'
import { copyNamedBlobs } from '#media/copy-files.ts'
import type { CopyResult } from '#media/copy-files.ts'
import { countNamedBlobs } from '#media/named-blobs.ts'
import { FileMoveError } from '#node/errors.ts'
import {
  beginMove,
  claimTarget,
  configuredUrl,
  endMove,
  openUrl,
  readFileRow,
  sealUrl,
} from '#node/file-placement.ts'
import type { FileRow } from '#node/file-placement.ts'
import { knownSecret } from '#node/foundation.ts'
import type { Foundation } from '#node/foundation.ts'
import type { CallReply } from '#nodes/calls.ts'

/** The call by which a node looks at a place of files, or reads anew where they are. */
export const filesMethod = 'files'

export type MoveOptions = {
  readonly to: string
  /** Ends the move although bytes in the old place are not those that were stored. */
  readonly leaveDamaged: boolean
  readonly signal: AbortSignal
  /** Calls every node that lives. */
  readonly ask: (payload: unknown) => Promise<readonly CallReply[]>
  readonly onProgress: (done: Amount, all: Amount) => void
}

type Amount = { readonly blobs: number; readonly bytes: number }

export type MoveReport = CopyResult & {
  readonly from: string
  readonly to: string
  /** From the first look at the target to the end, or to where it stopped. */
  readonly tookMs: number
  /** False: damaged files keep the old place in use. */
  readonly isFinished: boolean
  /** Nodes that have not confirmed the new place; they find out at their next read or write. */
  readonly unconfirmed: readonly string[]
}

/**
 * Moves the files to another place while the site runs. It may die at any moment and be begun
 * again, by this command on any machine: the database has what is under way, and blobs that were
 * copied stay. Errors: `FileMoveError`, `FilesMismatchError`, and those of the stores.
 */
export async function moveFiles(foundation: Foundation, options: MoveOptions): Promise<MoveReport> {
  const { database, fileStore } = foundation
  const startedMs = performance.now()
  await using to = await opened(foundation, options.to)
  const row = await readFileRow(database)
  if (row === null) throw new FileMoveError('No node has ever run on this database.')
  const target = await targetOf(foundation, { row, to: to.store, options })
  await fileStore.refresh()
  await options.ask(null)
  const { home, target: placed } = fileStore.stores
  if (placed === null) throw new FileMoveError('Another command has ended this move.')
  const all = await countNamedBlobs(database)
  const copied = await copyNamedBlobs(database, {
    from: home,
    to: placed,
    signal: options.signal,
    onProgress: (done) => options.onProgress(done, all),
  })
  const places = { from: home.identity.place, to: placed.identity.place }
  const tookMs = (): number => Math.round(performance.now() - startedMs)
  if (copied.damaged.length > 0 && !options.leaveDamaged)
    return { ...copied, ...places, tookMs: tookMs(), isFinished: false, unconfirmed: [] }
  const revision = await endMove(database, target)
  await fileStore.refresh()
  const replies = await options.ask(null)
  const unconfirmed = replies.filter((reply) => !confirms(reply, revision ?? 0))
  return {
    ...copied,
    ...places,
    tookMs: tookMs(),
    isFinished: true,
    unconfirmed: unconfirmed.map(({ name }) => name),
  }
}

/** The identity of the place to which the files move; begins the move where none is under way. */
async function targetOf(
  foundation: Foundation,
  { row, to, options }: { row: FileRow; to: FileStore; options: MoveOptions },
): Promise<string> {
  if (row.target !== null) {
    if ((await to.identity.read()) === row.target) return row.target
    throw new FileMoveError(
      'A move of the files to another place is under way; end it first, by the same command with ' +
        'its own --to.',
    )
  }
  const identity = await claimTarget(row, to)
  const { config, dataDir, database } = foundation
  const secret = await knownSecret(foundation)
  const replies = await options.ask({ url: sealUrl(secret, options.to) })
  const blind = replies.filter((reply) => !reply.ok || identityIn(reply.value) !== identity)
  if (blind.length > 0)
    throw new FileMoveError(
      `Nothing was begun, since not every node sees ${to.identity.place}: ` +
        `${blind.map((reply) => `${reply.name}: ${problemOf(reply)}`).join('; ')}.`,
      { nodes: blind.map(({ name }) => name) },
    )
  const fromUrl =
    row.url === null ? configuredUrl(config.filesUrl, dataDir) : openUrl(secret, row.url)
  await beginMove({ database, secret }, row, { identity, url: options.to, fromUrl })
  return identity
}

async function opened(
  { openFiles }: Foundation,
  url: string,
): Promise<AsyncDisposable & { readonly store: FileStore }> {
  const store = await openFiles(url)
  return { store, [Symbol.asyncDispose]: () => store.close() }
}

/** A node's reply: the identity that it sees at a place, or the revision that it acts by. */
export async function replyAboutFiles(
  foundation: Foundation,
  payload: unknown,
): Promise<{ readonly identity: string | null } | { readonly revision: number }> {
  const url = (payload as { readonly url?: unknown } | null)?.url
  if (typeof url === 'string') {
    await using place = await opened(foundation, openUrl(await knownSecret(foundation), url))
    return { identity: await place.store.identity.read() }
  }
  await foundation.fileStore.refresh()
  return { revision: foundation.fileStore.revision }
}

function identityIn(value: unknown): unknown {
  return (value as { readonly identity?: unknown }).identity
}

function confirms(reply: CallReply, revision: number): boolean {
  if (!reply.ok) return false
  const { revision: reached } = reply.value as { readonly revision?: unknown }
  return typeof reached === 'number' && reached >= revision
}

function problemOf(reply: CallReply): string {
  if (reply.ok) return 'it sees another place there, or an empty one'
  const { error } = reply
  return error instanceof StoaError ? error.message.replace(/\.$/, '') : 'it failed'
}
