import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Writable } from 'node:stream'
import { createOutput } from '#cli/output.ts'
import type { Output } from '#cli/output.ts'
import { createAccess } from '#access/create-access.ts'
import type { Site } from '#node/site.ts'
import { Report } from '#cli/import/report.ts'
import type { Bulk } from '#content/bulk/bulk.ts'
import type { Authority } from '#content/authority.ts'
import type { Call, Content } from '#content/content.ts'
import { createContent } from '#content/create-content.ts'
import { DiskFileStore } from '#file-store/drivers/disk.ts'
import { systemActor } from '#lib/actor.ts'
import { systemClock } from '#lib/clock.ts'
import type { Clock } from '#lib/clock.ts'
import { silentLogger } from '#lib/logger.ts'
import { createMedia } from '#media/create-media.ts'
import type { Media } from '#media/media.ts'
import type { Database } from '#database/database.ts'
import type { TestDatabase } from '#test/support/database.ts'

const everything: Authority = {
  actor: systemActor,
  key: 'system',
  grant: () => ({ filter: null, fields: null }),
}

/** Content and media over a test database, and what importers need besides. */
export type Importing = AsyncDisposable & {
  readonly database: Database
  readonly content: Content
  readonly media: Media
  readonly bulk: Bulk
  readonly call: Call
  readonly clock: Clock
  readonly output: Output
  readonly folder: string
  /** As commands see it. */
  readonly site: Pick<Site, 'database' | 'content' | 'media' | 'access' | 'logger'>
  report(): Report
}

export function importing(db: TestDatabase): Importing {
  const { database } = db
  const folder = mkdtempSync(join(tmpdir(), 'stoa-importing-'))
  const content = createContent({ clock: systemClock, logger: silentLogger })
  mkdirSync(join(folder, 'files', 'tmp'), { recursive: true })
  writeFileSync(join(folder, 'files', 'stoa-files'), 'a test')
  const fileStore = new DiskFileStore({
    folder: join(folder, 'files'),
    mayCreateFolder: true,
    clock: systemClock,
  })
  const media = createMedia({
    database,
    fileStore,
    dataDir: folder,
    clock: systemClock,
    logger: silentLogger,
  })
  const access = createAccess({
    database,
    clock: systemClock,
    logger: silentLogger,
    secret: 'a secret of thirty-two characters',
  })
  const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() })
  return {
    database,
    content,
    media,
    folder,
    site: { database, content, media, access, logger: silentLogger },
    bulk: content.bulk,
    call: { db: database, authority: everything },
    clock: systemClock,
    output: createOutput({ json: true, stdout: nowhere, stderr: nowhere }),
    report: () => new Report({ command: 'test', source: 'test', clock: systemClock }),
    [Symbol.asyncDispose]: async () => {
      await content.stop()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}
