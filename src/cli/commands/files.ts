import type { Command } from 'commander'
import type { Action, CommandOptions, Context, Register } from '#cli/command.ts'
import type { Output } from '#cli/output.ts'
import { settings } from '#config/settings.ts'
import { UsageError } from '#lib/usage-error.ts'
import type { NamedBlob } from '#media/named-blobs.ts'
import { filesMethod } from '#node/file-move.ts'
import type { MoveReport } from '#node/file-move.ts'
import type { CallReply } from '#nodes/calls.ts'

/** A node opens the other place within this. */
const callTimeoutMs = 20_000
/** The nodes collect orphans that are older than this. */
const orphanAgeMs = 24 * 3_600_000
/** People see so many of the files that are missing or damaged; `--json` has more. */
const shownMax = 20

/** `stoa files move|verify`. */
export const registerFiles: Register = (program, action) => {
  const files = program.command('files').description('move the files to another place, verify them')
  registerMove(files, action)
  registerVerify(files, action)
}

function registerMove(files: Command, action: Action): void {
  files
    .command('move')
    .description('move the files to a folder or bucket while the site runs, or go on with a move')
    .requiredOption('--to <url>', 'the new place, as STOA_FILES_URL names one')
    .option(
      '--leave-damaged',
      'end the move although bytes of some files are no longer those that were stored',
    )
    .addHelpText(
      'after',
      '\nEvery node serves files from both places meanwhile. Interrupted at any moment, the same ' +
        'command goes on. At the end set STOA_FILES_URL on every node to the new place; the old ' +
        'one is left as it is.\nExit status: 0 done; 1 failed; 2 the command line is wrong; 3 ' +
        'files are missing or damaged; 130 interrupted.',
    )
    .action(action(move))
}

function registerVerify(files: Command, action: Action): void {
  files
    .command('verify')
    .description('compare the files with what the database says of them')
    .option('--quick', 'look for each file and its length only, and read no bytes')
    .addHelpText(
      'after',
      '\nNothing is changed. Files that nothing refers to are no failure: the nodes remove them.' +
        '\nExit status: 0 all are there and whole; 1 some are missing or damaged; 130 interrupted.',
    )
    .action(action(verify))
}

async function move(
  context: Context,
  _args: readonly string[],
  options: CommandOptions,
): Promise<number> {
  const { assembly, config, output, signal } = context
  const to = targetOf(options)
  const progress = output.progress('Moving files')
  await using files = await assembly.openFiles(config)
  await using cluster = await assembly.openCluster(config)
  const ask = async (payload: unknown): Promise<readonly CallReply[]> =>
    (await cluster?.ask(filesMethod, { deadlineMs: callTimeoutMs }, payload)) ?? []
  try {
    const report = await files.move({
      to,
      leaveDamaged: options['leaveDamaged'] === true,
      signal,
      ask,
      onProgress: (done, all) => progress.update(mebibytes(done.bytes), mebibytes(all.bytes)),
    })
    progress.end(sentenceOf(report))
    printMove(output, report)
    return report.missing.length + report.damaged.length === 0 ? 0 : 3
  } catch (error) {
    progress.end(signal.aborted ? 'Interrupted; the same command goes on from here.' : 'Failed.')
    if (!signal.aborted) throw error
    return 130
  }
}

function targetOf(options: CommandOptions): string {
  const to = options['to'] as string
  try {
    settings.filesUrl.parse(to)
  } catch (error) {
    throw new UsageError(`--to ${(error as Error).message}.`)
  }
  return to
}

function sentenceOf({ copied, there, bytes, tookMs, isFinished }: MoveReport): string {
  const amount = `${copied + there} files (${mebibytes(bytes)} MiB)`
  const seconds = Math.round(tookMs / 100) / 10
  return isFinished
    ? `${amount} are in the new place after ${seconds} s.`
    : `${amount} are in both places.`
}

function printMove(output: Output, report: MoveReport): void {
  output.result(report)
  printFiles(output, 'missing in both places', report.missing)
  printFiles(output, 'damaged in the old place', report.damaged)
  if (!report.isFinished) {
    output.line(
      '! The move has not ended, so that nothing is lost: restore the damaged files in the old ' +
        'place or delete their assets, and run the command again; or add --leave-damaged.',
    )
    return
  }
  for (const name of report.unconfirmed)
    output.line(`! ${name} has not confirmed the new place; it reads both until it does.`)
  output.line(`The files are in ${report.to}. Set STOA_FILES_URL to it on every node.`)
  output.line(`What is in ${report.from} is no longer used; keep it until you have a backup.`)
}

async function verify(
  context: Context,
  _args: readonly string[],
  options: CommandOptions,
): Promise<number> {
  const { assembly, config, output, signal } = context
  const progress = output.progress('Verifying files')
  await using files = await assembly.openFiles(config)
  try {
    const report = await files.verify({
      quick: options['quick'] === true,
      olderThanMs: orphanAgeMs,
      signal,
      onProgress: (blobs) => progress.update(blobs, null),
    })
    const { checked, bytes, missing, damaged, orphans } = report
    progress.end(`${checked} files were looked at.`)
    output.result(report)
    printFiles(output, 'missing', missing)
    printFiles(output, 'damaged', damaged)
    output.line(
      `${checked} files, ${mebibytes(bytes)} MiB: ${missing.length} missing, ` +
        `${damaged.length} damaged; ${orphans.blobs} without references ` +
        `(${mebibytes(orphans.bytes)} MiB), which the nodes remove.`,
    )
    return missing.length + damaged.length === 0 ? 0 : 1
  } catch (error) {
    progress.end(signal.aborted ? 'Interrupted.' : 'Failed.')
    if (!signal.aborted) throw error
    return 130
  }
}

function printFiles(output: Output, what: string, blobs: readonly NamedBlob[]): void {
  for (const { id, assets, isRendition } of blobs.slice(0, shownMax)) {
    const used = assets.map((asset) => `asset ${asset}`)
    if (isRendition) used.push('a rendition, which is made again on demand')
    output.line(`! ${what}: ${id} (${used.join(', ') || 'an upload or a deleted asset'})`)
  }
  if (blobs.length > shownMax) output.line(`! … and ${blobs.length - shownMax} more ${what}`)
}

function mebibytes(bytes: number): number {
  return Math.round(bytes / 1_048_576)
}
