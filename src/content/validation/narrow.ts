import type { Field } from '#content/content-type.ts'

/** Returns the part of a value that fits, or undefined. */
export type Narrow = (value: unknown) => unknown

type Values = Readonly<Record<string, unknown>>

/**
 * Narrowing of values that were saved under an older definition, part by part: a group that loses a
 * field keeps its others, a list keeps the items that fit. `leaf` decides about a field that has no
 * parts.
 */
export function narrowing(field: Field, leaf: (field: Field) => Narrow): Narrow {
  switch (field.kind) {
    case 'group':
      return group(field.fields, leaf)
    case 'list':
      return items(narrowing(field.of, leaf))
    case 'blocks': {
      const blocks = new Map(field.blocks.map((block) => [block.name, group(block.fields, leaf)]))
      return items((item) => {
        const name = isObject(item) ? item['block'] : undefined
        const kept = typeof name === 'string' ? blocks.get(name)?.(item) : undefined
        return kept === undefined ? undefined : { block: name, ...(kept as Values) }
      })
    }
    case 'select':
    case 'asset':
    case 'reference':
      return field.many === true ? items(leaf({ ...field, many: false })) : leaf(field)
    default:
      return leaf(field)
  }
}

function group(fields: readonly Field[], leaf: (field: Field) => Narrow): Narrow {
  const parts = fields.map((field) => [field.name, narrowing(field, leaf)] as const)
  return (value) => {
    if (!isObject(value)) return undefined
    const kept: Record<string, unknown> = {}
    for (const [name, narrow] of parts) {
      const part =
        Object.hasOwn(value, name) && value[name] !== null ? narrow(value[name]) : undefined
      if (part !== undefined) kept[name] = part
    }
    return kept
  }
}

function items(narrow: Narrow): Narrow {
  return (value) =>
    Array.isArray(value)
      ? value
          .map((item: unknown) => (item === null ? undefined : narrow(item)))
          .filter((item) => item !== undefined)
      : undefined
}

function isObject(value: unknown): value is Values {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
