import type { ContentType, Field, FieldKind } from '#content/content-type.ts'
import { filterTextBytesMax, queryFieldOf } from '#content/query/normal-form.ts'
import { normalDateTime } from '#content/validation/date-time.ts'
import type { Fault } from '#content/validation/fault.ts'
import { Faults, step } from '#content/validation/fault.ts'
import { isEmpty } from '#content/validation/empty.ts'
import { checkJson } from '#content/validation/json-value.ts'
import { compilePattern, patternTextMax, patternWorkMax } from '#content/validation/pattern.ts'
import { narrowing } from '#content/validation/narrow.ts'
import type { Narrow } from '#content/validation/narrow.ts'
import { checkRichText } from '#content/validation/rich-text.ts'
import { slugProblem } from '#content/validation/slug.ts'
import type { Target } from '#content/validation/target.ts'
import { checkLength, isText } from '#content/validation/text.ts'
import { isId } from '#lib/id.ts'

/**
 * Validation as closures made once per type. A schema library would check the shape as fast, but
 * not say where each fault is in our words, nor bring values to the form that is stored in the same
 * walk.
 */

/** Limits where a field sets none; lengths in code points. */
export const textLengthMax = 20_000
export const markdownLengthMax = 500_000
export const itemsMax = 1_000
/** A refusal names up to this many options of a select. */
const optionsNamedMax = 20
/** The limit for all fields of one entry together, as UTF-8. */
export const entryBytesMax = 1_048_576

type Mode = {
  readonly faults: Faults
  readonly targets: Target[]
  readonly publishing: boolean
  /** The cost of matching patterns so far: see `patternWorkMax`. */
  patternWork: number
}
/**
 * Returns the value as it is stored, or undefined where there is none or it does not fit; a fault
 * then says so.
 */
type Check = (value: unknown, pointer: string, mode: Mode) => unknown

export type Validated = {
  readonly fields: Record<string, unknown>
  readonly faults: readonly Fault[]
  readonly targets: readonly Target[]
}

export type Validator = {
  /**
   * Checks the fields named in `input` (all of the type when it is a whole entry) and brings them
   * to the stored form. `publishing` also demands what is required; drafts may lack it. Null means:
   * no value.
   */
  validate(
    input: Readonly<Record<string, unknown>>,
    options: { readonly publishing: boolean },
  ): Validated
  /**
   * Returns the values of data saved under an older definition that still fit in kind and form.
   */
  project(data: Readonly<Record<string, unknown>>): Record<string, unknown>
  /** Returns the targets of stored data. */
  targets(data: Readonly<Record<string, unknown>>): readonly Target[]
}

/**
 * Faults after which an old value is not shown any more: it is of another kind, not just beyond a
 * new limit.
 */
const lostCodes = new Set(['kind', 'unknown', 'format', 'option'])

export function compileType(definition: ContentType): Validator {
  const checks = new Map(
    definition.fields.map((field) => [field.name, compileField(field, field.name)]),
  )
  const required = definition.fields.filter((field) => field.required === true)
  const order = definition.fields.map((field) => field.name)
  const narrowings = new Map(definition.fields.map((field) => [field.name, narrowing(field, leaf)]))

  const walk = (input: Readonly<Record<string, unknown>>, mode: Mode): Validated => {
    for (const name of Object.keys(input))
      if (!checks.has(name))
        mode.faults.add(step('', name), 'unknown', 'The type has no such field.')
    const fields: Record<string, unknown> = {}
    for (const name of order) {
      if (!Object.hasOwn(input, name)) continue
      const value = run(checks.get(name)!, input[name], step('', name), mode)
      if (value !== undefined) fields[name] = value
    }
    if (mode.publishing)
      for (const field of required) demand(field, fields[field.name], step('', field.name), mode)
    return { fields, faults: mode.faults.list, targets: mode.targets }
  }

  return {
    validate: (input, { publishing }) =>
      walk(input, { faults: new Faults(), targets: [], publishing, patternWork: 0 }),
    project: (data) => {
      const kept: Record<string, unknown> = {}
      for (const name of order) {
        const value =
          Object.hasOwn(data, name) && data[name] !== null
            ? narrowings.get(name)!(data[name])
            : undefined
        if (value !== undefined) kept[name] = value
      }
      return kept
    },
    targets: (data) =>
      walk(data, {
        faults: new Faults({ kept: false }),
        targets: [],
        publishing: false,
        // Patterns do not matter for targets.
        patternWork: patternWorkMax,
      }).targets,
  }
}

/** A value without parts is kept unless it is of another kind. */
function leaf(field: Field): Narrow {
  const check = compileField(field, field.name)
  return (value) => {
    const faults = new Faults()
    const result = check(value, '', {
      faults,
      targets: [],
      publishing: false,
      patternWork: patternWorkMax,
    })
    if (faults.list.some((fault) => lostCodes.has(fault.code))) return undefined
    return faults.list.length === 0 ? result : value
  }
}

function run(check: Check, value: unknown, pointer: string, mode: Mode): unknown {
  return value === null || value === undefined ? undefined : check(value, pointer, mode)
}

function demand(field: Field, value: unknown, pointer: string, mode: Mode): void {
  const there = mode.faults.list.some(
    (fault) => fault.path === pointer || fault.path.startsWith(`${pointer}/`),
  )
  if (!there && isEmpty(field, value))
    mode.faults.add(pointer, 'required', 'A value is required to publish.')
}

type FieldOf<Kind extends FieldKind> = Extract<Field, { readonly kind: Kind }>
type Compile<Kind extends FieldKind> = (field: FieldOf<Kind>, path: string) => Check

/** The check of the values of each kind. */
const checks: { readonly [Kind in FieldKind]: Compile<Kind> } = {
  text: (field) => text(field),
  markdown: (field) => limitedText(field.lengthMax ?? markdownLengthMax),
  richText: (_field, path) => (value, pointer, mode) => {
    checkRichText(value, { field: path, pointer, faults: mode.faults, targets: mode.targets })
    return value
  },
  number: (field) => number(field),
  boolean: () => (value, pointer, mode) =>
    typeof value === 'boolean' ? value : refuse(mode, pointer, 'Give true or false.'),
  dateTime: () => dateTime,
  select: (field) => select(field),
  json: () => (value, pointer, mode) => {
    checkJson(value, pointer, mode.faults)
    return value
  },
  slug: () => slug,
  asset: (field, path) => target(field, path),
  reference: (field, path) => target(field, path),
  group: (field, path) => group(field.fields, path),
  list: (field, path) => list(itemOf(itemField(field), path), field.itemsMax ?? itemsMax),
  blocks: (field, path) => blocks(field, path),
}

function compileField<Kind extends FieldKind>(field: FieldOf<Kind>, path: string): Check {
  return checks[field.kind](field, path)
}

function refuse(mode: Mode, pointer: string, message: string): undefined {
  mode.faults.add(pointer, 'kind', message)
  return undefined
}

function limitedText(max: number, min = 0): Check {
  return (value, pointer, mode) => {
    if (!isText(value, pointer, mode.faults)) return undefined
    checkLength(value, { min, max }, pointer, mode.faults)
    return value
  }
}

function text(field: Extract<Field, { kind: 'text' }>): Check {
  const pattern = field.pattern === undefined ? null : compilePattern(field.pattern)
  const limits = [field.lengthMax ?? textLengthMax, ...(pattern === null ? [] : [patternTextMax])]
  const plain = limitedText(Math.min(...limits), field.lengthMin)
  const bytesMax = queryFieldOf(field) === null ? null : filterTextBytesMax
  return (value, pointer, mode) => {
    const before = mode.faults.list.length
    const result = plain(value, pointer, mode)
    if (
      bytesMax !== null &&
      typeof result === 'string' &&
      result.length * 3 > bytesMax &&
      Buffer.byteLength(result) > bytesMax
    ) {
      mode.faults.add(pointer, 'tooLong', `A filterable field takes at most ${bytesMax} bytes.`)
    }
    if (pattern === null || typeof result !== 'string' || mode.faults.list.length !== before)
      return result
    mode.patternWork += pattern.workFor(result)
    if (mode.patternWork > patternWorkMax)
      mode.faults.add(
        pointer,
        'tooLarge',
        'The entry has too much text to check against the patterns of its type: shorten the ' +
          'values, or have fewer of them.',
      )
    else if (!pattern.matches(result))
      mode.faults.add(pointer, 'pattern', `The whole value has to match ${field.pattern}`)
    return result
  }
}

function number(field: Extract<Field, { kind: 'number' }>): Check {
  return (value, pointer, mode) => {
    if (typeof value !== 'number' || !Number.isFinite(value))
      return refuse(mode, pointer, 'Give a finite number.')
    if (field.integer === true && !Number.isSafeInteger(value))
      mode.faults.add(pointer, 'format', 'Give a whole number between -(2^53 - 1) and 2^53 - 1.')
    if (field.min !== undefined && value < field.min)
      mode.faults.add(pointer, 'tooSmall', `At least ${field.min}.`)
    if (field.max !== undefined && value > field.max)
      mode.faults.add(pointer, 'tooLarge', `At most ${field.max}.`)
    return Object.is(value, -0) ? 0 : value
  }
}

const dateTime: Check = (value, pointer, mode) => {
  if (typeof value !== 'string')
    return refuse(mode, pointer, 'Give a time as text, such as 2026-11-20T18:00:00Z.')
  const normal = normalDateTime(value)
  if (normal === null)
    mode.faults.add(
      pointer,
      'format',
      'Give a time with its zone as RFC 3339 has it, such as 2026-11-20T18:00:00+01:00.',
    )
  return normal ?? undefined
}

const slug: Check = (value, pointer, mode) => {
  if (!isText(value, pointer, mode.faults)) return undefined
  // Two keyboards write one word in two ways: an address has one form.
  const normal = value.normalize('NFC')
  const problem = slugProblem(normal)
  if (problem !== null) mode.faults.add(pointer, 'format', problem)
  return normal
}

/** One value, or an array without repeats. */
function oneOrMany(one: Check, many: boolean): Check {
  if (!many) return one
  return (value, pointer, mode) => {
    if (!Array.isArray(value)) return refuse(mode, pointer, 'Give an array.')
    if (value.length > itemsMax) mode.faults.add(pointer, 'tooMany', `At most ${itemsMax} values.`)
    const result = value.map((item: unknown, index) => one(item, step(pointer, index), mode))
    const seen = new Set<unknown>()
    result.forEach((item, index) => {
      if (item !== undefined && seen.has(item))
        mode.faults.add(step(pointer, index), 'duplicate', 'The value is there already.')
      seen.add(item)
    })
    return result
  }
}

function select(field: Extract<Field, { kind: 'select' }>): Check {
  const options = new Set(field.options)
  const named = field.options.slice(0, optionsNamedMax).join(', ')
  const shown = field.options.length > optionsNamedMax ? `${named}, …` : named
  const one: Check = (value, pointer, mode) => {
    if (typeof value !== 'string') return refuse(mode, pointer, 'Give one of the options.')
    if (!options.has(value)) mode.faults.add(pointer, 'option', `Give one of: ${shown}.`)
    return value
  }
  return oneOrMany(one, field.many === true)
}

function target(field: Extract<Field, { kind: 'asset' | 'reference' }>, path: string): Check {
  const kind = field.kind === 'asset' ? 'asset' : 'entry'
  const types = field.kind === 'reference' ? (field.types ?? null) : null
  const onDelete = field.onDelete ?? 'restrict'
  const one: Check = (value, pointer, mode) => {
    if (typeof value !== 'string') return refuse(mode, pointer, `Give the id of an ${kind}.`)
    if (isId(value)) mode.targets.push({ path, pointer, kind, id: value, types, onDelete })
    else mode.faults.add(pointer, 'format', `Give the id of an ${kind}: a UUID in small letters.`)
    return value
  }
  return oneOrMany(one, field.many === true)
}

function group(fields: readonly Field[], path: string, tag: string | null = null): Check {
  const checks = new Map(
    fields.map((field) => [field.name, compileField(field, `${path}.${field.name}`)]),
  )
  return (value, pointer, mode) => {
    if (typeof value !== 'object' || value === null || Array.isArray(value))
      return refuse(mode, pointer, 'Give an object.')
    const input = value as Record<string, unknown>
    for (const name of Object.keys(input)) {
      if (!checks.has(name) && name !== tag)
        mode.faults.add(step(pointer, name), 'unknown', 'There is no such field here.')
    }
    const result: Record<string, unknown> = tag === null ? {} : { [tag]: input[tag] }
    for (const field of fields) {
      const at = step(pointer, field.name)
      const one = Object.hasOwn(input, field.name)
        ? run(checks.get(field.name)!, input[field.name], at, mode)
        : undefined
      if (one !== undefined) result[field.name] = one
      if (mode.publishing && field.required === true) demand(field, one, at, mode)
    }
    return result
  }
}

/** The items of a filterable list are bounded as filterable texts are. */
function itemField({ of, filterable }: Extract<Field, { kind: 'list' }>): Field {
  return of.kind === 'text' && filterable === true ? { ...of, filterable } : of
}

function itemOf(field: Field, path: string): Check {
  const check = compileField(field, path)
  if (field.required !== true) return check
  return (value, pointer, mode) => {
    const result = check(value, pointer, mode)
    if (mode.publishing) demand(field, result, pointer, mode)
    return result
  }
}

function list(item: Check, max: number): Check {
  return (value, pointer, mode) => {
    if (!Array.isArray(value)) return refuse(mode, pointer, 'Give an array.')
    // Beyond the limit too it points to what it points to, and one from before the limit stays as
    // it is.
    if (value.length > max) mode.faults.add(pointer, 'tooMany', `At most ${max} items.`)
    return value.map((one: unknown, index) =>
      one === null
        ? refuse(mode, step(pointer, index), 'An item cannot be null.')
        : item(one, step(pointer, index), mode),
    )
  }
}

function blocks(field: Extract<Field, { kind: 'blocks' }>, path: string): Check {
  const checks = new Map(
    field.blocks.map((block) => [
      block.name,
      group(block.fields, `${path}.${block.name}`, 'block'),
    ]),
  )
  const one: Check = (value, pointer, mode) => {
    const name =
      typeof value === 'object' && value !== null
        ? (value as Record<string, unknown>)['block']
        : undefined
    const check = typeof name === 'string' ? checks.get(name) : undefined
    if (check !== undefined) return check(value, pointer, mode)
    mode.faults.add(
      step(pointer, 'block'),
      'option',
      `Name the block: ${[...checks.keys()].join(', ')}.`,
    )
    return undefined
  }
  return list(one, field.itemsMax ?? itemsMax)
}
