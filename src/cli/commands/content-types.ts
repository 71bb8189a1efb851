import { mkdir, readdir, readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parse } from 'yaml'
import type { Context, Register } from '#cli/command.ts'
import { UsageError } from '#lib/usage-error.ts'
import { planTypes, saveTypes } from '#cli/export/save-types.ts'
import type { ContentType } from '#content/content-type.ts'
import type { TypePlan } from '#content/content.ts'
import { StoaError } from '#lib/stoa-error.ts'

/** A definition is limited to a quarter of a megabyte itself. */
const fileCharsMax = 1_000_000
const filesMax = 1_000

type Planned = { readonly file: string; readonly definition: ContentType; readonly plan: TypePlan }

/** `stoa types`: content types as files that can be kept with the site's code. */
export const registerTypes: Register = (program, action) => {
  const types = program
    .command('types')
    .description('content types as files: pull them from the database, push them into it')
  types
    .command('pull')
    .description('write every content type into a folder, one JSON file each')
    .argument('<folder>')
    .action(action(async (context, [folder = '']) => pull(context, folder)))
  types
    .command('push')
    .description(
      'create and change content types to be as the .json, .yaml and .yml files of a folder say; deletes none',
    )
    .argument('<folder>')
    .option('--dry-run', 'show what would happen, without writing')
    .option('--allow-loss', 'also carry out steps that lose values of existing entries')
    .addHelpText(
      'after',
      '\nExit status: 0 done; 1 failed; 2 the command line or a file is wrong; 3 something would lose values and --allow-loss was not given: nothing was changed.',
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
    await mkdir(folder, { recursive: true }).catch((error: unknown) => {
      throw new UsageError(
        `${folder} cannot be used as a folder (${error instanceof Error ? error.message : String(error)}).`,
        {},
        { cause: error },
      )
    })
    const outcome: Record<'made' | 'changed' | 'unchanged', string[]> = {
      made: [],
      changed: [],
      unchanged: [],
    }
    for (const definition of definitions) {
      const file = join(folder, `${definition.name}.json`)
      const before = await readFile(file, 'utf8').catch(() => null)
      const next = typeFile(definition)
      outcome[before === null ? 'made' : before === next ? 'unchanged' : 'changed'].push(
        definition.name,
      )
      if (before === next) continue
      await writeFile(`${file}.partial`, next)
      await rename(`${file}.partial`, file)
    }
    const known = new Set(definitions.map(({ name }) => name))
    const strangers = (await readdir(folder)).filter(
      (name) => /\.(?:json|ya?ml)$/.test(name) && !known.has(name.replace(/\.[^.]+$/, '')),
    )
    output.result({ folder, ...outcome, notInDatabase: strangers })
    output.line(
      `${definitions.length} types in ${folder}: ${outcome.made.length} new, ${outcome.changed.length} changed, ${outcome.unchanged.length} as before.`,
    )
    for (const name of strangers)
      output.line(`  ${name} is of no type in the database; "stoa types push" would make one.`)
  })
}

/**
 * A definition as a file: its own order of keys, which says more than the alphabet, and always the
 * same for the same type.
 */
export function typeFile(definition: ContentType): string {
  const { name, label, ...rest } = definition
  return `${JSON.stringify({ name, label, ...rest }, null, 2)}\n`
}

async function push(
  { withSite, output }: Context,
  folder: string,
  options: { readonly dryRun: boolean; readonly allowLoss: boolean },
): Promise<number> {
  const files = await readTypeFiles(folder)
  return withSite(async ({ content, database }) => {
    const definitions = files.map(({ definition }) => definition)
    const plans = await planTypes(content, database, definitions, (definition, plan) =>
      planOf(files.find((one) => one.definition === definition)!.file, plan),
    )
    const planned: Planned[] = files.map((one, index) => ({ ...one, plan: plans[index]! }))
    const losses = planned.flatMap(({ definition, plan }) =>
      plan.steps
        .filter((step) => step.losesData)
        .map((step) => `${definition.name}: ${step.what} ${step.name}`),
    )
    const refused = losses.length > 0 && !options.allowLoss
    const written = !refused && !options.dryRun
    if (written) {
      // All or none: types refer to each other.
      await database.transaction((tx) =>
        saveTypes(content, tx, definitions, { allowLoss: options.allowLoss }),
      )
      await content.types.settle(database)
    }
    const absent: string[] = []
    for (const { definition } of await content.types.list(database))
      if (!files.some((one) => one.definition.name === definition.name))
        absent.push(definition.name)
    output.result({
      folder,
      written,
      refused: refused ? losses : [],
      types: planned.map(({ file, definition, plan }) => ({
        file,
        name: definition.name,
        ...plan,
      })),
      notInFolder: absent,
    })
    for (const { definition, plan } of planned) {
      output.line(
        `${definition.name}: ${{ create: 'new', update: 'changes', none: 'as it is' }[plan.change]}`,
      )
      for (const step of plan.steps)
        output.line(
          `  ${step.losesData ? 'LOSES VALUES: ' : ''}${step.what} ${step.name}${step.note === '' ? '' : `: ${step.note}`}`,
        )
    }
    for (const name of absent) output.line(`${name} is not in ${folder}; it stays as it is.`)
    if (refused)
      output.line(
        'Nothing was changed: values of existing entries would be lost. --allow-loss carries it out all the same.',
      )
    else if (options.dryRun) output.line('Nothing was changed: this was a dry run.')
    return refused ? 3 : 0
  })
}

async function planOf(file: string, plan: () => Promise<TypePlan>): Promise<TypePlan> {
  try {
    return await plan()
  } catch (error) {
    if (!(error instanceof StoaError) || !error.code.startsWith('E_TYPE_')) throw error
    throw new UsageError(`${file}: ${error.message}`, { file, ...error.facts }, { cause: error })
  }
}

async function readTypeFiles(folder: string): Promise<{ file: string; definition: ContentType }[]> {
  const names = (
    await readdir(folder).catch((cause: unknown) => {
      throw new UsageError(
        `${folder} cannot be read; give the folder that "stoa types pull" wrote.`,
        { folder },
        { cause },
      )
    })
  )
    .filter((name) => /\.(?:json|ya?ml)$/.test(name))
    .sort()
  if (names.length === 0 || names.length > filesMax)
    throw new UsageError(
      `${folder} has ${names.length === 0 ? 'no' : 'too many'} .json, .yaml or .yml files.`,
      { folder },
    )
  const found = new Map<string, string>()
  const result: { file: string; definition: ContentType }[] = []
  for (const name of names) {
    const file = join(folder, name)
    const definition = parseTypeFile(file, await readFile(file, 'utf8'))
    const other = found.get(definition.name)
    if (other !== undefined)
      throw new UsageError(`${file} and ${other} both define the type "${definition.name}".`, {
        file,
        other,
      })
    found.set(definition.name, file)
    result.push({ file, definition })
  }
  return result
}

function parseTypeFile(file: string, content: string): ContentType {
  if (content.length > fileCharsMax)
    throw new UsageError(`${file} has more than ${fileCharsMax} characters; it is no type.`, {
      file,
    })
  try {
    const value: unknown = file.endsWith('.json')
      ? JSON.parse(content)
      : parse(content, { maxAliasCount: 50 })
    if (
      typeof value !== 'object' ||
      value === null ||
      Array.isArray(value) ||
      typeof (value as { name?: unknown }).name !== 'string'
    )
      throw new Error('it is no object with a name')
    return value as ContentType
  } catch (error) {
    throw new UsageError(
      `${file} is no content type: ${error instanceof Error ? error.message.split('\n', 1)[0] : String(error)}`,
      { file },
      { cause: error },
    )
  }
}
