import { setFlagsFromString } from 'node:v8'
import type { Context, Register } from '#cli/command.ts'
import { UsageError } from '#lib/usage-error.ts'
import { openArchiveSource } from '#cli/export/archive-source.ts'
import { importArchive } from '#cli/export/import-archive.ts'
import { importMarkdown } from '#cli/import/markdown.ts'
import { openPageSource } from '#cli/import/page-source.ts'
import { Report, reportFile } from '#cli/import/report.ts'
import { importWordpress } from '#cli/import/wordpress/wordpress.ts'
import type { Site, OpenSiteOptions } from '#node/site.ts'
import type { Bulk } from '#content/bulk/bulk.ts'
import type { Call } from '#content/content.ts'
import { typeNamePattern } from '#content/model/type-check.ts'
import { systemClock } from '#lib/clock.ts'

const exitStatuses = `
Exit status: 0 all of it was taken over or was there already; 1 failed; 2 the command line is
wrong; 3 something was refused or left out, see the report; 130 interrupted: what is done is done,
and the same command continues from there.`

/** An import can be the first thing that a site gets, before a node has started. */
const newSite: OpenSiteOptions = { createDatabase: true }
const newSiteWithFiles: OpenSiteOptions = { ...newSite, usesFiles: true }

type Options = Readonly<Record<string, unknown>>

/**
 * `stoa import`: an export of Stoa's own, or with a verb behind it Markdown pages or a WordPress
 * site.
 */
export const registerImport: Register = (program, action) => {
  const command = program
    .command('import')
    .description(
      'take over content: an export of "stoa export", Markdown pages, or a WordPress site',
    )
    .argument('[source]', 'the folder or .tar(.gz) file that "stoa export" wrote')
    .option('--dry-run', 'check it all and say what would be done, without writing')
    .option(
      '--replace-roles',
      'replace roles of this site that differ from those of the export (default: they stay)',
    )
    .option('--report <file>', 'write the whole report to this file as JSON')
    .addHelpText('after', exitStatuses)
    .action(
      action(async (context, [source], options) => {
        if (source === undefined)
          throw new UsageError(
            'Say what to import: "stoa import FOLDER", "stoa import markdown FOLDER" or "stoa ' +
              'import wordpress FILE.xml".',
            {},
          )
        const archive = await openArchiveSource(source)
        return run(
          context,
          { command: 'import', source, options, rates: ['entries'], site: newSiteWithFiles },
          (site, parts) =>
            importArchive(
              archive,
              { ...parts, site },
              {
                dryRun: options['dryRun'] === true,
                replaceRoles: options['replaceRoles'] === true,
              },
              parts,
            ),
        )
      }),
    )
  registerMarkdown(command, action)
  registerWordpress(command, action)
}

const registerMarkdown: Register = (command, action) => {
  command
    .command('markdown')
    .description('import Markdown and MDX pages from a folder or a .tar.gz of one')
    .argument('<source>', 'the folder, or a .tar, .tar.gz or .tgz file')
    .option('--type <name>', 'the content type that the pages become', 'page')
    .option(
      '--locales-from-folders',
      'the first folders are locales (default: if all of them are named as languages)',
    )
    .option('--no-locales-from-folders', 'the first folders are not locales')
    .option('--site-url <url>', 'links that begin with this address are links between pages')
    .option('--draft', 'leave the pages as drafts instead of publishing them')
    .option(
      '--prune',
      'delete entries of earlier imports whose page is gone, and unpublish locales that are',
    )
    .option('--dry-run', 'show what would happen to the content type, without writing')
    .option('--report <file>', 'write the whole report to this file as JSON')
    .addHelpText('after', exitStatuses)
    .action(
      action(async (context, [path = ''], options) => {
        const type = text(options, 'type') ?? 'page'
        if (!typeNamePattern.test(type))
          throw new UsageError(
            `--type ${type}: a type is named by small letters, digits and -, a letter first.`,
            { type },
          )
        const wish = options['localesFromFolders']
        const wanted = {
          type,
          localesFromFolders: typeof wish === 'boolean' ? wish : null,
          siteUrl: text(options, 'siteUrl')?.replace(/\/+$/, '') ?? null,
          publish: options['draft'] !== true,
          prune: options['prune'] === true,
          dryRun: options['dryRun'] === true,
        }
        return run(
          context,
          { command: 'import markdown', source: path, options, rates: ['pages'], site: newSite },
          async (site, parts) => {
            await using source = await openPageSource(path, parts.signal)
            if (source === null) parts.report.interrupted()
            else
              await importMarkdown(
                source,
                { ...parts, content: site.content, clock: systemClock },
                wanted,
                parts,
              )
          },
        )
      }),
    )
}

const registerWordpress: Register = (command, action) => {
  command
    .command('wordpress')
    .description(
      'import a WordPress export (WXR): posts, pages, categories, tags, authors, attachments',
    )
    .argument('<file>', 'the .xml file that WordPress wrote under Tools, Export')
    .option('--locale <code>', 'the locale of the site (default: the default locale)')
    .option('--prefix <text>', 'begin the names of the content types with this, such as wp-')
    .option(
      '--media-dir <folder>',
      'take attachments from this copy of wp-content/uploads before downloading',
    )
    .option('--no-download', 'download nothing')
    .option('--allow-private-addresses', 'also download from addresses in private networks')
    .option('--draft', 'leave everything as drafts')
    .option('--dry-run', 'show what would happen to the content types, without writing')
    .option('--report <file>', 'write the whole report to this file as JSON')
    .addHelpText('after', exitStatuses)
    .action(
      action(async (context, [path = ''], options) => {
        const prefix = text(options, 'prefix')
        if (prefix !== null && !typeNamePattern.test(`${prefix}attachment`))
          throw new UsageError(
            `--prefix ${prefix}: use small letters, digits and -, a letter first.`,
            { prefix },
          )
        const wanted = {
          prefix,
          locale: text(options, 'locale'),
          mediaDir: text(options, 'mediaDir'),
          download: options['download'] !== false,
          allowPrivate: options['allowPrivateAddresses'] === true,
          publish: options['draft'] !== true,
          dryRun: options['dryRun'] === true,
        }
        return run(
          context,
          {
            command: 'import wordpress',
            source: path,
            options,
            rates: ['posts'],
            site: newSiteWithFiles,
          },
          (site, parts) =>
            importWordpress(
              path,
              {
                ...parts,
                database: site.database,
                content: site.content,
                media: site.media,
                clock: systemClock,
              },
              { ...wanted, bytesMax: site.config.uploadBytesMax },
              parts,
            ),
        )
      }),
    )
}

type Parts = {
  readonly bulk: Bulk
  readonly call: Call
  readonly report: Report
  readonly output: Context['output']
  readonly signal: AbortSignal
}
type Job = {
  readonly command: string
  readonly source: string
  readonly options: Options
  readonly rates: readonly string[]
  readonly site: OpenSiteOptions
}

/** Runs an import as the system, and prints its report also when it is interrupted. */
async function run(
  context: Context,
  job: Job,
  work: (site: Site, parts: Parts) => Promise<void>,
): Promise<number> {
  // Batches live just long enough that V8 lets its young generation grow past 100 MB. Without
  // growth an import takes 70 MB less, and no more time.
  setFlagsFromString('--semi-space-growth-factor=1')
  const { output, signal } = context
  const printing = { file: await reportFile(job.options['report']), rates: job.rates }
  return context.withSite(async (site) => {
    const report = new Report({ command: job.command, source: job.source, clock: systemClock })
    const { bulk } = site.content
    const call = { db: site.database, authority: site.access.systemIdentity.authority }
    await work(site, { bulk, call, report, output, signal })
    if (!signal.aborted) await site.content.types.settle(site.database)
    return report.print(output, printing)
  }, job.site)
}

function text(options: Options, name: string): string | null {
  const value = options[name]
  return typeof value === 'string' ? value : null
}
