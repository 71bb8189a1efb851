import { StoaError } from '#lib/stoa-error.ts'

/**
 * The embedded database cannot start here; the message says what to do, `facts.reason` names the
 * case.
 */
export class EmbeddedDatabaseError extends StoaError {
  readonly code = 'E_DATABASE_EMBEDDED'
}

/** Another node on this machine already runs on the same data folder. */
export class DataFolderInUseError extends StoaError {
  readonly code = 'E_DATA_FOLDER_IN_USE'

  constructor(folder: string, pid: number | null, since: string | null) {
    const who =
      pid === null ? 'another Stoa' : `the Stoa with process id ${pid}, running since ${since}`
    super(
      `${folder} is in use by ${who}. Stop it first, or give this one a folder of its own ` +
        '(STOA_DATA); ' +
        'for several nodes on one database set STOA_DATABASE_URL.',
      { folder, pid, since },
    )
  }
}

/** True if a program's output says that there is no room left. */
export function isDiskFull(output: string): boolean {
  return /No space left on device|Disk quota exceeded|ENOSPC|EDQUOT/.test(output)
}

export function diskFullError(what: string): EmbeddedDatabaseError {
  return new EmbeddedDatabaseError(
    `${what}: the disk is full. Make room, or set STOA_DATA to a folder elsewhere.`,
    { reason: 'diskFull' },
  )
}
