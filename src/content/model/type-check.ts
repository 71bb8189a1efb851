import type { ContentType, Field } from '#content/content-type.ts'
import { fieldKinds, isFieldKind, rulesOf } from '#content/field-kinds.ts'
import type { OptionType } from '#content/field-kinds.ts'
import { isStorableText, queryFieldOf } from '#content/query/normal-form.ts'
import { reservedWords, systemFields } from '#content/query/query.ts'
import { TypeInvalidError } from '#content/errors.ts'
import { Faults, step } from '#content/validation/fault.ts'
import { compilePattern, patternTextMax, PatternProblem } from '#content/validation/pattern.ts'

const depthMax = 5
const fieldsMax = 200
const optionsMax = 500
const indexesMax = 20
const indexFieldsMax = 4
const labelMax = 200
const helpMax = 2_000
/** Options whose texts may be as long as a help. */
const longTexts: ReadonlySet<string> = new Set(['help', 'description', 'pattern'])
const definitionBytesMax = 262_144

export const typeNamePattern = /^[a-z][a-z0-9-]{0,62}$/
const fieldNamePattern = /^[a-z][A-Za-z0-9]{0,62}$/
/**
 * Names that every JavaScript object has; a client that reads `entry.fields.constructor`
 * shall not be surprised.
 */
const objectNames = new Set(Object.getOwnPropertyNames(Object.prototype))
const reservedNames = new Set<string>([...systemFields, ...reservedWords, ...objectNames])
/** Names that no field of a type may take. */
export function isReservedName(name: string): boolean {
  return reservedNames.has(name)
}

const indexableSystem = new Set<string>([
  'createdAt',
  'updatedAt',
  'publishedAt',
  'firstPublishedAt',
])

/** Options of every field. */
const common: Readonly<Record<string, OptionType>> = {
  name: 'text',
  kind: 'text',
  label: 'text',
  help: 'text',
  required: 'boolean',
  localized: 'boolean',
}

class Check {
  readonly faults = new Faults()
  readonly #known: ReadonlySet<string>
  #fields = 0

  constructor(known: ReadonlySet<string>) {
    this.#known = known
  }

  type(input: unknown): void {
    if (!isObject(input)) return this.faults.add('', 'kind', 'Give an object.')
    const { name } = input
    if (typeof name !== 'string' || !typeNamePattern.test(name))
      this.faults.add(
        '/name',
        'format',
        'A type is named by small letters, digits and -, a letter first, at most 63.',
      )
    this.#keys(
      input,
      {
        name: 'text',
        label: 'text',
        description: 'text',
        titleField: 'text',
        fields: 'other',
        indexes: 'other',
      },
      '',
    )
    if (typeof input['label'] !== 'string' || input['label'] === '')
      this.faults.add('/label', 'required', 'A type has a label.')
    const fields = this.#fieldList(input['fields'], '/fields', 1, true)
    this.#titleField(input['titleField'], fields)
    this.#slugs(fields)
    this.#indexes(input['indexes'], fields)
    if (this.#fields > fieldsMax)
      this.faults.add(
        '/fields',
        'tooMany',
        `At most ${fieldsMax} fields, those inside groups, lists and blocks included.`,
      )
    if (
      this.faults.list.length === 0 &&
      Buffer.byteLength(JSON.stringify(input)) > definitionBytesMax
    )
      this.faults.add('', 'tooLarge', `A definition has at most ${definitionBytesMax} bytes.`)
  }

  #fieldList(input: unknown, path: string, depth: number, top: boolean): readonly Field[] {
    if (!Array.isArray(input) || input.length === 0) {
      this.faults.add(path, 'kind', 'Give an array of at least one field.')
      return []
    }
    if (depth > depthMax) {
      this.faults.add(path, 'tooDeep', `Fields nest at most ${depthMax} deep.`)
      return []
    }
    const names = new Set<unknown>()
    input.slice(0, fieldsMax + 1).forEach((field: unknown, index) => {
      const at = step(path, index)
      this.#field(field, at, depth, top)
      const name = isObject(field) ? field['name'] : undefined
      if (names.has(name))
        this.faults.add(step(at, 'name'), 'duplicate', 'Another field here has this name.')
      names.add(name)
    })
    return input.filter(isObject) as unknown as Field[]
  }

  #field(input: unknown, path: string, depth: number, top: boolean): void {
    this.#fields += 1
    if (!isObject(input)) return this.faults.add(path, 'kind', 'A field is an object.')
    const { name, kind } = input
    if (typeof name !== 'string' || !fieldNamePattern.test(name))
      this.faults.add(
        step(path, 'name'),
        'format',
        'A field is named by letters and digits, a small letter first, at most 63.',
      )
    else if (reservedNames.has(name) || (name === 'block' && !top))
      this.faults.add(
        step(path, 'name'),
        'definition',
        `"${name}" is a word of ours; choose another.`,
      )
    if (!isFieldKind(kind))
      return this.faults.add(
        step(path, 'kind'),
        'option',
        `A kind is one of: ${Object.keys(fieldKinds).join(', ')}.`,
      )
    this.#keys(input, { ...common, ...rulesOf(kind).options }, path)
    if (!top) this.#onlyOnTop(input, path)
    this.#kind(input as unknown as Field, path, depth)
  }

  /**
   * What a part of a group, list or block cannot have: it has no column to filter, and no locale of
   * its own.
   */
  #onlyOnTop(input: Readonly<Record<string, unknown>>, path: string): void {
    for (const key of ['filterable', 'unique', 'localized', 'searchable']) {
      if (input[key] === true)
        this.faults.add(
          step(path, key),
          'definition',
          'Only fields of the type itself can have this, not fields inside groups, lists and ' +
            'blocks.',
        )
    }
    if (input['kind'] === 'slug')
      this.faults.add(step(path, 'kind'), 'definition', 'A slug is a field of the type itself.')
  }

  #kind(field: Field, path: string, depth: number): void {
    if (field.kind === 'text') this.#text(field, path)
    if (
      field.kind === 'number' &&
      field.min !== undefined &&
      field.max !== undefined &&
      field.min > field.max
    )
      this.faults.add(step(path, 'min'), 'definition', 'min is larger than max.')
    if (field.kind === 'select') this.#options(field.options, step(path, 'options'))
    if (
      (field.kind === 'asset' || field.kind === 'reference') &&
      field.onDelete !== undefined &&
      !['restrict', 'unset', 'cascade'].includes(field.onDelete)
    ) {
      this.faults.add(step(path, 'onDelete'), 'option', 'onDelete is restrict, unset or cascade.')
    }
    if (field.kind === 'asset' && field.onDelete === 'cascade')
      this.faults.add(
        step(path, 'onDelete'),
        'option',
        'Deleting an asset does not delete entries: restrict or unset.',
      )
    if (field.kind === 'reference') this.#types(field.types, step(path, 'types'))
    if (
      'unique' in field &&
      field.unique &&
      (field.kind === 'boolean' || ('many' in field && field.many))
    ) {
      this.faults.add(
        step(path, 'unique'),
        'definition',
        'A field with many values, or with only two, cannot be unique.',
      )
    }
    if (field.kind === 'group')
      this.#fieldList(field.fields, step(path, 'fields'), depth + 1, false)
    if (field.kind === 'list') this.#list(field, path, depth)
    if (field.kind === 'blocks') this.#blocks(field.blocks, step(path, 'blocks'), depth)
  }

  #text(field: Extract<Field, { kind: 'text' }>, path: string): void {
    const { lengthMin = 0, lengthMax } = field
    if (lengthMax !== undefined && lengthMin > lengthMax)
      this.faults.add(step(path, 'lengthMin'), 'definition', 'lengthMin is larger than lengthMax.')
    if (typeof field.pattern !== 'string') return
    if (lengthMax !== undefined && lengthMax > patternTextMax)
      this.faults.add(
        step(path, 'lengthMax'),
        'tooLarge',
        `With a pattern, at most ${patternTextMax}.`,
      )
    try {
      compilePattern(field.pattern)
    } catch (error) {
      if (!(error instanceof PatternProblem)) throw error
      this.faults.add(step(path, 'pattern'), 'pattern', error.message)
    }
  }

  #options(options: unknown, path: string): void {
    if (!Array.isArray(options) || options.length === 0 || options.length > optionsMax)
      return this.faults.add(path, 'kind', `Give 1 to ${optionsMax} options.`)
    options.forEach((option: unknown, index) => {
      if (
        typeof option !== 'string' ||
        option === '' ||
        option.length > labelMax ||
        !isStorableText(option)
      )
        this.faults.add(
          step(path, index),
          'text',
          `An option is text of 1 to ${labelMax} characters.`,
        )
    })
    if (new Set(options).size !== options.length)
      this.faults.add(path, 'duplicate', 'Each option is there once.')
  }

  #types(types: unknown, path: string): void {
    if (types === undefined || !Array.isArray(types)) return
    if (types.length === 0)
      this.faults.add(path, 'kind', 'Name at least one type, or leave it out for any.')
    types.forEach((name: unknown, index) => {
      if (typeof name !== 'string' || !this.#known.has(name))
        this.faults.add(step(path, index), 'target', 'There is no such type; make it first.')
    })
  }

  #list(field: Extract<Field, { kind: 'list' }>, path: string, depth: number): void {
    if (depth + 1 > depthMax)
      return this.faults.add(step(path, 'of'), 'tooDeep', `Fields nest at most ${depthMax} deep.`)
    this.#field(field.of, step(path, 'of'), depth + 1, false)
    if (!isObject(field.of)) return
    if (field.of.kind === 'list')
      this.faults.add(
        step(path, 'of'),
        'definition',
        'A list of lists is a list of groups that hold a list.',
      )
    if ((field.of as { required?: boolean }).required === true)
      this.faults.add(
        step(step(path, 'of'), 'required'),
        'definition',
        'Items of a list are never missing.',
      )
    const many = 'many' in field.of && field.of.many
    if (field.filterable === true && (rulesOf(field.of.kind).valueType === null || many))
      this.faults.add(
        step(path, 'filterable'),
        'definition',
        'Only lists of single values can be filtered.',
      )
  }

  #blocks(blocks: unknown, path: string, depth: number): void {
    if (!Array.isArray(blocks) || blocks.length === 0)
      return this.faults.add(path, 'kind', 'Give an array of at least one block.')
    const names = new Set<unknown>()
    blocks.slice(0, fieldsMax).forEach((block: unknown, index) => {
      const at = step(path, index)
      if (!isObject(block))
        return this.faults.add(at, 'kind', 'A block is an object with a name and fields.')
      if (typeof block['name'] !== 'string' || !fieldNamePattern.test(block['name']))
        this.faults.add(step(at, 'name'), 'format', 'A block is named as a field is.')
      if (names.has(block['name']))
        this.faults.add(step(at, 'name'), 'duplicate', 'Another block here has this name.')
      names.add(block['name'])
      this.#keys(block, { name: 'text', fields: 'other' }, at)
      this.#fieldList(block['fields'], step(at, 'fields'), depth + 1, false)
    })
  }

  #titleField(name: unknown, fields: readonly Field[]): void {
    if (name === undefined || typeof name !== 'string') return
    const field = fields.find((one) => one.name === name)
    if (field === undefined || (field.kind !== 'text' && field.kind !== 'slug'))
      this.faults.add('/titleField', 'target', 'It names a text field of the type.')
  }

  #slugs(fields: readonly Field[]): void {
    const slugs = fields.filter((field) => field.kind === 'slug')
    if (slugs.length > 1)
      this.faults.add(
        '/fields',
        'definition',
        'A type has at most one slug: it is part of the address.',
      )
    for (const slug of slugs) {
      if (slug.from === undefined || typeof slug.from !== 'string') continue
      const source = fields.find((field) => field.name === slug.from)
      const at = step(step('/fields', fields.indexOf(slug)), 'from')
      if (source?.kind !== 'text')
        this.faults.add(at, 'target', 'It names a text field of the type.')
      else if (source.localized === true && slug.localized !== true)
        this.faults.add(at, 'definition', 'A slug made from a localized field is localized too.')
    }
  }

  #indexes(indexes: unknown, fields: readonly Field[]): void {
    if (indexes === undefined) return
    if (!Array.isArray(indexes) || indexes.length > indexesMax)
      return this.faults.add(
        '/indexes',
        'kind',
        `Give at most ${indexesMax} arrays of field names.`,
      )
    indexes.forEach((index: unknown, position) => {
      const at = step('/indexes', position)
      if (!Array.isArray(index) || index.length === 0 || index.length > indexFieldsMax)
        return this.faults.add(at, 'kind', `An index has 1 to ${indexFieldsMax} fields.`)
      index.forEach((entry: unknown, place) => {
        const name = typeof entry === 'string' ? entry.replace(/^-/, '') : ''
        const field = fields.find((one) => one.name === name)
        const usable =
          field === undefined ? indexableSystem.has(name) : queryFieldOf(field)?.many === false
        if (!usable)
          this.faults.add(
            step(at, place),
            'target',
            'It names a filterable field with one value, or createdAt, updatedAt, ' +
              'publishedAt, firstPublishedAt.',
          )
      })
    })
  }

  #keys(
    input: Readonly<Record<string, unknown>>,
    shape: Readonly<Record<string, OptionType>>,
    path: string,
  ): void {
    for (const [key, value] of Object.entries(input)) {
      if (value === undefined) continue
      const at = step(path, key)
      const expected = Object.hasOwn(shape, key) ? shape[key] : undefined
      const long = longTexts.has(key) ? helpMax : labelMax
      if (expected === undefined)
        this.faults.add(at, 'unknown', `Allowed here: ${Object.keys(shape).join(', ')}.`)
      else if (
        expected === 'text' &&
        (typeof value !== 'string' || value.length > long || !isStorableText(value))
      )
        this.faults.add(at, 'kind', `Give text of at most ${long} characters.`)
      else if (expected === 'boolean' && typeof value !== 'boolean')
        this.faults.add(at, 'kind', 'Give true or false.')
      else if (expected === 'number' && (typeof value !== 'number' || !Number.isFinite(value)))
        this.faults.add(at, 'kind', 'Give a finite number.')
      else if (expected === 'count' && (!Number.isSafeInteger(value) || (value as number) < 0))
        this.faults.add(at, 'kind', 'Give a whole number from 0.')
      else if (
        expected === 'texts' &&
        (!Array.isArray(value) || !value.every((one) => typeof one === 'string'))
      )
        this.faults.add(at, 'kind', 'Give an array of texts.')
    }
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** True if only one entry may hold a value of the field. */
export function isUnique(field: Field): boolean {
  return field.kind === 'slug' || ('unique' in field && field.unique)
}

/**
 * Checks a definition as it came. `known` are the names of all types there are; the type may refer
 * to itself. Throws `TypeInvalidError` with every fault.
 */
export function checkContentType(input: unknown, known: Iterable<string>): ContentType {
  const own = isObject(input) && typeof input['name'] === 'string' ? [input['name']] : []
  const check = new Check(new Set([...known, ...own]))
  check.type(input)
  if (check.faults.list.length > 0) throw new TypeInvalidError(check.faults.list)
  return input as ContentType
}
