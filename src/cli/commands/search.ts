import type { Context, Register } from '#cli/command.ts'

/** `stoa search verify|reindex`. */
export const registerSearch: Register = (program, action) => {
  const search = program.command('search').description('verify what search finds, make it anew')
  search
    .command('verify')
    .description('compare the words that search finds with the content of every entry')
    .addHelpText('after', '\nNothing is changed. Exit status: 0 all agree; 1 some do not.')
    .action(action((context) => walk(context, false)))
  search
    .command('reindex')
    .description('make the words anew where they differ from the content')
    .addHelpText(
      'after',
      '\nReads and writes go on meanwhile. Needed after a write by hand, and after a new major ' +
        'version of PostgreSQL.',
    )
    .action(action((context) => walk(context, true)))
}

async function walk(context: Context, repair: boolean): Promise<number> {
  const { withSite, output, signal } = context
  return withSite(async ({ content, database }) => {
    const progress = output.progress(repair ? 'Making words anew' : 'Comparing words')
    const onProgress = (checked: number): void => progress.update(checked, null)
    const report = await content.search.verify(database, { repair, signal, onProgress })
    const { checked, wrong } = report
    progress.end(
      repair
        ? `${wrong} of ${checked} versions were made anew.`
        : `${wrong} of ${checked} versions differ from their content.`,
    )
    output.result(report)
    return repair || wrong === 0 ? 0 : 1
  })
}
