import assert from 'node:assert/strict'
import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { openArchiveSink } from '#cli/export/archive-sink.ts'
import { openArchiveSource } from '#cli/export/archive-source.ts'
import { exportSite } from '#cli/export/export-site.ts'
import { importArchive } from '#cli/export/import-archive.ts'
import type { ArchiveOptions } from '#cli/export/import-archive.ts'
import type { ReportDocument } from '#cli/import/report.ts'
import type { Importing } from '#test/support/importing.ts'

const going = new AbortController().signal

/** Exports the site to the folder or file `target`, and returns it. */
export async function exportTo(
  on: Importing,
  target: string,
  options: { readonly history?: boolean; readonly signal?: AbortSignal } = {},
): Promise<string> {
  await using sink = await openArchiveSink(target)
  const report = on.report()
  await exportSite(
    on.site,
    sink,
    { history: options.history === true },
    { report, output: on.output, signal: options.signal ?? going },
  )
  assert.equal(report.document().finished, options.signal === undefined)
  return target
}

export async function importFrom(
  on: Importing,
  path: string,
  options: Partial<ArchiveOptions> = {},
): Promise<ReportDocument> {
  const report = on.report()
  await importArchive(
    await openArchiveSource(path),
    { site: on.site, bulk: on.bulk, call: on.call },
    { dryRun: false, replaceRoles: false, ...options },
    { report, output: on.output, signal: going },
  )
  return report.document()
}

/** All files of an archive that is a folder, as Base64. */
export function filesOf(path: string): Record<string, string> {
  return Object.fromEntries(
    globSync('**/*', { cwd: path, withFileTypes: true })
      .filter((file) => file.isFile())
      .map((file) => join(file.parentPath, file.name))
      .sort()
      .map((file) => [file.slice(path.length + 1), readFileSync(file).toString('base64')]),
  )
}
