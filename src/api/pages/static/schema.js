import { element, prose } from './dom.js'

/** A schema that refers to itself is drawn to this depth. */
const depthMax = 6
const refDepthMax = 10

/** Follows `$ref` to the schema itself. */
export function resolve(api, value) {
  let found = value
  for (let depth = 0; found?.$ref !== undefined && depth < refDepthMax; depth++) {
    const keys = found.$ref.slice(2).split('/')
    found = keys.reduce((at, key) => at?.[decodeURIComponent(key)], api)
  }
  return found ?? {}
}

function choicesOf(schema) {
  return schema.oneOf ?? schema.anyOf ?? null
}

/** The type of a schema in a few words, such as `list of text` or `"draft" or "published"`. */
function typeText(api, schema, depth = 0) {
  const known = resolve(api, schema)
  if (known.const !== undefined) return JSON.stringify(known.const)
  if (known.enum !== undefined) return known.enum.map((each) => JSON.stringify(each)).join(' or ')
  const choices = choicesOf(known)
  if (choices !== null) {
    const texts = [...new Set(choices.map((choice) => typeText(api, choice, depth + 1)))]
    return texts.length > 4 ? `one of ${texts.length}` : texts.join(' or ')
  }
  if (known.type === 'array')
    return depth > 2 ? 'list' : `list of ${typeText(api, known.items ?? {}, depth + 1)}`
  if (known.type === 'object') return schema.$ref?.split('/').at(-1) ?? known.title ?? 'object'
  const names = { string: known.format ?? 'text', integer: 'whole number' }
  return [known.type ?? 'any']
    .flat()
    .map((type) => names[type] ?? type)
    .join(' or ')
}

const limits = {
  minLength: (value) => `at least ${value} characters`,
  maxLength: (value) => `at most ${value.toLocaleString('en')} characters`,
  minimum: (value) => `from ${value}`,
  maximum: (value) => `up to ${value.toLocaleString('en')}`,
  minItems: (value) => `at least ${value}`,
  maxItems: (value) => `at most ${value.toLocaleString('en')}`,
  pattern: (value) => `matches ${value}`,
  default: (value) => `default ${JSON.stringify(value)}`,
}

export function limitText(schema) {
  return Object.entries(limits)
    .filter(([name]) => schema[name] !== undefined)
    .map(([name, text]) => text(schema[name]))
    .join(', ')
}

/** Objects, and lists and choices of objects, have more to show than their type. */
function nestedOf(api, schema) {
  const known = resolve(api, schema)
  if (known.properties !== undefined) return [known]
  if (known.type === 'array') return nestedOf(api, known.items ?? {})
  const choices = choicesOf(known) ?? []
  return choices.flatMap((choice) => nestedOf(api, choice))
}

/** One property or parameter: its name, type, whether it is required, its meaning and limits. */
export function schemaRow(api, name, schema, { required = false, description, depth = 0 } = {}) {
  const known = resolve(api, schema)
  const about = description ?? known.description
  const bounds = limitText(known)
  const nested = depth < depthMax ? nestedOf(api, schema) : []
  return element(
    'li',
    {},
    element('code', { class: 'name' }, name),
    ' ',
    element('span', { class: 'type' }, typeText(api, schema)),
    ...(required ? [' ', element('span', { class: 'required' }, 'required')] : []),
    ...(about ? [element('p', {}, ...prose(about))] : []),
    ...(bounds === '' ? [] : [element('p', { class: 'hint' }, bounds)]),
    ...nested.map((inner) => nestedBlock(api, inner, depth + 1)),
  )
}

/** Nested objects are drawn when they are opened: a schema may contain itself. */
function nestedBlock(api, schema, depth) {
  const names = Object.keys(schema.properties).join(', ')
  const block = element(
    'details',
    { class: 'nested' },
    element('summary', {}, schema.title ?? names),
  )
  block.addEventListener('toggle', () => block.append(propertyList(api, schema, depth)), {
    once: true,
  })
  return block
}

function propertyList(api, schema, depth) {
  const required = new Set(schema.required ?? [])
  const rows = Object.entries(schema.properties ?? {}).map(([name, each]) =>
    schemaRow(api, name, each, { required: required.has(name), depth }),
  )
  return element('ul', { class: 'schema' }, ...rows)
}

/** The schema of a body: the properties of an object, or one row for anything else. */
export function schemaView(api, schema) {
  const known = resolve(api, schema)
  if (known.properties !== undefined) return propertyList(api, known, 0)
  return element('ul', { class: 'schema' }, schemaRow(api, 'body', schema))
}

/** A value that shows the shape of a body: its required properties only. */
export function exampleOf(api, schema, depth = 0) {
  const known = resolve(api, schema)
  for (const key of ['example', 'default', 'const']) if (known[key] !== undefined) return known[key]
  if (known.examples?.length > 0) return known.examples[0]
  if (known.enum !== undefined) return known.enum[0]
  const choices = choicesOf(known)
  if (choices !== null) return exampleOf(api, choices[0], depth)
  const kind = [known.type].flat()[0]
  if (kind === 'object' && depth < 5) {
    const required = new Set(known.required ?? [])
    const properties = Object.entries(known.properties ?? {}).filter(([name]) => required.has(name))
    return Object.fromEntries(
      properties.map(([name, each]) => [name, exampleOf(api, each, depth + 1)]),
    )
  }
  if (kind === 'array') return []
  return { string: '', number: 0, integer: 0, boolean: false, null: null, object: {} }[kind] ?? null
}

/** Names that a body may have beside those in its example. */
export function optionalNames(api, schema) {
  const known = resolve(api, schema)
  const required = new Set(known.required ?? [])
  return Object.keys(known.properties ?? {}).filter((name) => !required.has(name))
}
