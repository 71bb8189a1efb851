import { mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Context, Register } from '#cli/command.ts'
import { planTypes, saveTypes } from '#cli/export/save-types.ts'
import type { Output } from '#cli/output.ts'
import { printTypeFile, readTypeFiles, typeFileNames } from '#cli/type-files.ts'
import type { TypeFile } from '#cli/type-files.ts'
import type { TypePlan } from '#content/content.ts'
import { StoaError } from '#lib/stoa-error.ts'
import { UsageError } from '#lib/usage-error.ts'

type PlannedType = TypeFile & { readonly plan: TypePlan }

type PushOptions = { readonly dryRun: boolean; readonly allowLoss: boolean }

/** `stoa types`: keeps content types as files. */
export const registerTypes: Register = (program, action) => {
  const types = program
    .command('types')
    .description('pull content types from the database into files, or push them back')
  types
    .command('pull')
    .description('write every content type into a folder, one JSON file each')
    .argument('<folder>')
    .action(action(async (context, [folder = '']) => pull(context, folder)))
  types
    .command('push')
    .description(
      'create and change content types from the .json and .yaml files of a folder; delete none',
    )
    .argument('<folder>')
    .option('--dry-run', 'show what would change, without writing')
    .option('--allow-loss', 'also carry out steps that lose values of existing entries')
    .addHelpText(
      'after',
      '\nExit status: 0 done; 1 failed; 2 the command line or a file is wrong; ' +
        '3 values would be lost and --allow-loss was not given: nothing was changed.',
    )
    .action(
      action(async (context, [folder = ''], options) =>
        push(context, folder, {
          dryRun: options['dryRun'] === true,
          allowLoss: options['allowLoss'] === true,
        }),
      ),
    )
}

async function pull({ withSite, output }: Context, folder: string): Promise<void> {
  await withSite(async ({ content, database }) => {
    const definitions = (await content.types.list(database))
      .map(({ definition }) => definition)
      .sort((left, right) => (left.name < right.name ? -1 : 1))
    await mkdir(folder, { recursive: true }).catch((cause: unknown) => {
      const reason = cause instanceof Error ? cause.message : String(cause)
      throw new UsageError(`${folder} cannot be used as a folder (${reason}).`, {}, { cause })
    })
    const outcome = { created: [] as string[], changed: [] as string[], unchanged: [] as string[] }
    for (const definition of definitions)
      outcome[await writeTypeFile(folder, definition)].push(definition.name)
    const known = new Set(definitions.map(({ name }) => name))
    const unknown = (await typeFileNames(folder)).filter(
      (name) => !known.has(name.replace(/\.[^.]+$/, '')),
    )
    output.result({ folder, ...outcome, notInDatabase: unknown })
    const { created, changed, unchanged } = outcome
    output.line(
      `${definitions.length} types in ${folder}: ${created.length} new, ` +
        `${changed.length} changed, ${unchanged.length} unchanged.`,
    )
    for (const name of unknown)
      output.line(`  ${name} has no type in the database; "stoa types push" would create one.`)
  })
}

async function writeTypeFile(
  folder: string,
  definition: TypeFile['definition'],
): Promise<'created' | 'changed' | 'unchanged'> {
  const file = join(folder, `${definition.name}.json`)
  const before = await readFile(file, 'utf8').catch(() => null)
  const after = printTypeFile(definition)
  if (before === after) return 'unchanged'
  await writeFile(`${file}.partial`, after)
  await rename(`${file}.partial`, file)
  return before === null ? 'created' : 'changed'
}

async function push(
  { withSite, output }: Context,
  folder: string,
  { dryRun, allowLoss }: PushOptions,
): Promise<number> {
  const files = await readTypeFiles(folder)
  return withSite(async ({ content, database }) => {
    const definitions = files.map(({ definition }) => definition)
    const plans = await planTypes(content, database, definitions, (definition, plan) =>
      planFile(files.find((one) => one.definition === definition)!.file, plan),
    )
    const planned = files.map((one, index): PlannedType => ({ ...one, plan: plans[index]! }))
    const losses = planned.flatMap(lossesOf)
    const refused = losses.length > 0 && !allowLoss
    const written = !refused && !dryRun
    if (written) {
      // Types refer to each other, so all of them are saved or none is.
      await database.transaction((tx) => saveTypes(content, tx, definitions, { allowLoss }))
      await content.types.settle(database)
    }
    const pushed = new Set(definitions.map(({ name }) => name))
    const notInFolder = (await content.types.list(database))
      .map(({ definition }) => definition.name)
      .filter((name) => !pushed.has(name))
    const types = planned.map(({ file, definition, plan }) => ({
      file,
      name: definition.name,
      ...plan,
    }))
    output.result({ folder, written, refused: refused ? losses : [], types, notInFolder })
    for (const one of planned) printPlan(output, one)
    for (const name of notInFolder) output.line(`${name} is not in ${folder}; it does not change.`)
    if (refused)
      output.line(
        'Nothing was changed, because values of existing entries would be lost. ' +
          '--allow-loss carries it out.',
      )
    else if (dryRun) output.line('Nothing was changed: this was a dry run.')
    return refused ? 3 : 0
  })
}

function lossesOf({ definition, plan }: PlannedType): string[] {
  return plan.steps
    .filter((step) => step.losesData)
    .map((step) => `${definition.name}: ${step.what} ${step.name}`)
}

const changeWords = { create: 'new', update: 'changed', none: 'unchanged' } as const

function printPlan(output: Output, { definition, plan }: PlannedType): void {
  output.line(`${definition.name}: ${changeWords[plan.change]}`)
  for (const { losesData, blocked, what, name, note } of plan.steps) {
    const loss = losesData ? 'LOSES VALUES: ' : ''
    const refusal = blocked ? 'REFUSED: ' : ''
    output.line(`  ${refusal}${loss}${what} ${name}${note === '' ? '' : `: ${note}`}`)
  }
}

/** Names the file in the error of a definition that the model refuses. */
async function planFile(file: string, plan: () => Promise<TypePlan>): Promise<TypePlan> {
  try {
    return await plan()
  } catch (error) {
    if (!(error instanceof StoaError) || !error.code.startsWith('E_TYPE_')) throw error
    throw new UsageError(`${file}: ${error.message}`, { file, ...error.facts }, { cause: error })
  }
}
