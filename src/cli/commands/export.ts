import type { Register } from '#cli/command.ts'
import { openArchiveSink } from '#cli/export/archive-sink.ts'
import { exportSite } from '#cli/export/export-site.ts'
import { Report, reportFile } from '#cli/import/report.ts'
import { systemClock } from '#lib/clock.ts'

/** `stoa export`: everything a site holds, as files that are equal whenever the content is. */
export const registerExport: Register = (program, action) => {
  program
    .command('export')
    .description(
      'write types, locales, entries, assets, releases and roles into a folder or a .tar(.gz) file',
    )
    .argument('<target>', 'a folder, or a file that ends in .tar, .tar.gz or .tgz')
    .option(
      '--history',
      'write all versions, not only those that are the latest, published or needed by releases',
    )
    .option('--report <file>', 'write the report to this file as JSON')
    .addHelpText(
      'after',
      '\nThe format is described in docs/reference/export-format.md. Users, passwords, ' +
        'sessions and API tokens are not exported.\nExit status: 0 done; 1 failed; 2 the ' +
        'command line is wrong; 130 interrupted: nothing of the archive was written.',
    )
    .action(
      action(async (context, [target = ''], options) => {
        const { output, signal } = context
        const report = new Report({ command: 'export', source: target, clock: systemClock })
        const file = await reportFile(options['report'])
        return context.withSite(
          async (site) => {
            await using sink = await openArchiveSink(target)
            await exportSite(
              site,
              sink,
              { history: options['history'] === true },
              { report, output, signal },
            )
            return report.print(output, { file, rates: ['entries'] })
          },
          { usesFiles: true },
        )
      }),
    )
}
