import { StoaError } from '#lib/stoa-error.ts'

/** One of several nodes of this machine did not become ready. */
export class NodeStartError extends StoaError {
  readonly code = 'E_NODE_START'
}

/** The folder for what is local to the node cannot be made or used. */
export class DataFolderError extends StoaError {
  readonly code = 'E_DATA_FOLDER'

  constructor(folder: string, cause: unknown) {
    const code = codeOf(cause)
    super(
      `The data folder ${folder} cannot be used: ${reasonOf(code)}. ` +
        'Correct that, or set STOA_DATA (or --data) to another folder.',
      { folder, reason: code },
      { cause },
    )
  }
}

/** A command found no database, and a command alone makes none. */
export class NoDatabaseError extends StoaError {
  readonly code = 'E_NO_DATABASE'

  constructor(folder: string) {
    super(
      `There is no database here: ${folder} has none. Run the command in the folder in which the ` +
        'node runs, or name its data folder (STOA_DATA) or its database (STOA_DATABASE_URL). ' +
        'The first "stoa start" makes a database.',
      { folder },
    )
  }
}

/** The files folder is not the file store that the database remembers. */
export class FilesMismatchError extends StoaError {
  readonly code = 'E_FILES_MISMATCH'

  constructor(
    at: Place,
    facts: { readonly expected: string | null; readonly found: string | null },
  ) {
    super(mismatchMessage(at, facts), { place: at.place, ...facts })
  }
}

/** The files cannot be moved there, or not now; the message says why. */
export class FileMoveError extends StoaError {
  readonly code = 'E_FILE_MOVE'
}

/** A file store, and how a person writes its identity there. */
type Place = { readonly place: string; readonly where: string }

function mismatchMessage(
  { place, where }: Place,
  { expected, found }: { readonly expected: string | null; readonly found: string | null },
): string {
  if (expected === null) {
    return (
      `${place} has the files of another database. Set STOA_FILES_URL to a place of its own; or, ` +
      `if that database is gone for good, remove ${where}.`
    )
  }
  const reason = found === null ? 'is empty' : 'has the files of another database'
  return (
    `The files of this site are not in ${place}, which ${reason}. Mount its file system there, ` +
    'or set STOA_FILES_URL to the place of the files. If you have restored them by hand, or they ' +
    `are lost for good, write ${expected} into ${where}.`
  )
}

/** The node cannot listen on the address that is configured. */
export class ListenError extends StoaError {
  readonly code = 'E_LISTEN'

  constructor(options: { readonly host: string; readonly port: number }, cause: unknown) {
    const code = codeOf(cause)
    const why = reasons[code] ?? `the system says ${code}`
    super(
      `The node cannot listen on ${options.host} port ${options.port}: ${why}. Set STOA_HOST ` +
        `and STOA_PORT, or --host and --port.`,
      { ...options, reason: code },
      { cause },
    )
  }
}

const reasons: Readonly<Record<string, string>> = {
  EADDRINUSE: 'another program listens there already',
  EACCES: 'ports below 1024 need a privilege that this user does not have',
  EADDRNOTAVAIL: 'no network interface of this machine has that address',
  ENOTFOUND: 'no such host name is known',
}

const folderReasons: Readonly<Record<string, string>> = {
  EACCES: 'this user may not write there',
  EEXIST: 'there is a file of that name',
  ENOENT: 'the system makes no folder there',
  ENOSPC: 'the disk is full',
  ENOTDIR: 'a part of that path is a file',
  EPERM: 'this user may not write there',
  EROFS: 'it is on a file system that is read-only',
}

function reasonOf(code: string): string {
  return folderReasons[code] ?? `the system says ${code}`
}

function codeOf(cause: unknown): string {
  return cause instanceof Error && 'code' in cause ? String(cause.code) : 'unknown'
}
