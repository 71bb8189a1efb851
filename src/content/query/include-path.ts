import type { Field } from '#content/content-type.ts'
import { QueryFieldError, QueryLimitError } from '#content/query/errors.ts'
import { visibleFields } from '#content/query/readable-type.ts'
import type { QueryReader, ReadableType } from '#content/query/readable-type.ts'

export const includePathsMax = 16
/** References that one path of `include` follows one after the other. */
export const includeDepthMax = 4
/** Names of one path: those of groups, lists and blocks on the way count too. */
const pathNamesMax = 20
/** Paths that an error names. */
const pathsNamedMax = 50

/** A field that points to entries or assets: rich text does so with its links and images. */
type PointingField = Extract<Field, { kind: 'reference' | 'asset' | 'richText' }>

/**
 * The pointing field at which a path from these fields arrives first, through groups, lists and
 * blocks (a block is named before its field), and how many names of the path lead there; null:
 * there is none.
 */
export function followPath(
  fields: readonly Field[],
  path: readonly string[],
): { readonly field: PointingField; readonly length: number } | null {
  let within = fields
  for (let at = 0; at < path.length; at += 1) {
    const field = itemOf(within.find((one) => one.name === path[at]))
    if (field === undefined) return null
    if (isPointing(field)) return { field, length: at + 1 }
    if (field.kind === 'group') within = field.fields
    else if (field.kind === 'blocks') {
      at += 1
      within = field.blocks.find((block) => block.name === path[at])?.fields ?? []
    } else return null
  }
  return null
}

/** The items of a list; any other field itself. */
function itemOf(field: Field | undefined): Field | undefined {
  let item = field
  while (item?.kind === 'list') item = item.of
  return item
}

function isPointing(field: Field): field is PointingField {
  return field.kind === 'reference' || field.kind === 'asset' || field.kind === 'richText'
}

type State = { readonly readable: ReadableType; readonly at: number }

/**
 * Checks the paths of `include` along the fields that the reader may see. A path is fine if one of
 * the types on its way has it. Throws `QueryFieldError` or `QueryLimitError`.
 */
export function validateInclude(paths: readonly string[], reader: QueryReader): readonly string[] {
  if (paths.length > includePathsMax)
    throw new QueryLimitError(`\`include\` takes at most ${includePathsMax} paths.`, {
      limit: includePathsMax,
    })
  for (const path of paths) validatePath(path, reader)
  return [...new Set(paths)]
}

function validatePath(path: string, reader: QueryReader): void {
  const names = path.split('.')
  let states: State[] = [{ readable: reader, at: 0 }]
  for (let depth = 1; names.length <= pathNamesMax && depth <= includeDepthMax; depth += 1) {
    const next = new Map<string, State>()
    for (const { readable, at } of states) {
      const found = followPath(visibleFields(readable), names.slice(at))
      if (found === null) continue
      const end = at + found.length
      if (end === names.length) return
      for (const target of targetsOf(found.field, reader))
        next.set(`${end} ${target.type.name}`, { readable: target, at: end })
    }
    if (next.size === 0) throw noSuchPath(path, states)
    states = [...next.values()]
  }
  throw new QueryLimitError(
    `A path of \`include\` follows at most ${includeDepthMax} references, with ` +
      `${pathNamesMax} names.`,
    { limit: includeDepthMax, path: path.slice(0, 80).toWellFormed() },
  )
}

function targetsOf(field: PointingField, reader: QueryReader): readonly ReadableType[] {
  if (field.kind === 'asset') return []
  return reader.targets(field.kind === 'reference' ? (field.types ?? null) : null)
}

function noSuchPath(path: string, states: readonly State[]): QueryFieldError {
  const all = states.flatMap(({ readable }) => pointingPaths(visibleFields(readable)))
  const allowed = [...new Set(all)].slice(0, pathsNamedMax)
  const at = Math.min(...states.map((state) => state.at))
  const step = path.split('.').slice(at).join('.').slice(0, 80).toWellFormed()
  return new QueryFieldError(
    `\`include\` has no reference, asset or rich text field "${step}" to follow here; there ` +
      `are: ${allowed.join(', ') || 'none'}.`,
    { field: step, allowed },
  )
}

function pointingPaths(fields: readonly Field[]): string[] {
  return fields.flatMap((one) => {
    const field = itemOf(one)
    const below = (paths: readonly string[]): string[] => paths.map((path) => `${one.name}.${path}`)
    if (field === undefined) return []
    if (isPointing(field)) return [one.name]
    if (field.kind === 'group') return below(pointingPaths(field.fields))
    if (field.kind !== 'blocks') return []
    return field.blocks.flatMap((block) =>
      below(pointingPaths(block.fields).map((path) => `${block.name}.${path}`)),
    )
  })
}
