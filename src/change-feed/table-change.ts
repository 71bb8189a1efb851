import type { Change, Row } from '#change-feed/change.ts'
import { parseXid } from '#change-feed/snapshot.ts'

/**
 * Lists of names that are kept parsed: one for each attached table, and a few from before a table
 * was attached anew.
 */
const shapesMax = 1_000
const shapes = new Map<string, readonly string[]>()

/**
 * A change whose rows are parsed when somebody looks at them: of most, only the key is asked for.
 */
export class TableChange implements Change {
  readonly xid: number
  readonly collection: string
  readonly key: string | null
  readonly operation: Change['operation']
  readonly bytes: number
  #told: string | null
  #before: Row | null = null
  #after: Row | null = null

  /**
   * `told` is the transaction, the operation and, where the writer told the rows, two JSON texts
   * with U+001F between them, which neither can contain: an array that names the values, each after
   * a letter for its kind, and an array of the values before and after.
   */
  constructor(collection: string, key: string | null, told: string) {
    const first = told.indexOf(' ')
    const second = told.indexOf(' ', first + 1)
    this.xid = parseXid(told.slice(0, first))
    // A character takes one byte or two, and so do the values that they are parsed into.
    this.bytes = 2 * told.length
    this.collection = collection
    this.key = key
    this.operation = told.slice(
      first + 1,
      second === -1 ? undefined : second,
    ) as Change['operation']
    this.#told = second === -1 ? null : told.slice(second + 1)
  }

  get before(): Row | null {
    if (this.#told !== null) this.#parse(this.#told)
    return this.#before
  }

  get after(): Row | null {
    if (this.#told !== null) this.#parse(this.#told)
    return this.#after
  }

  /** What cannot be read, since somebody else wrote it, counts as not told. */
  #parse(told: string): void {
    this.#told = null
    try {
      const border = told.indexOf('\u001f')
      const fields = shapeOf(told.slice(0, border))
      const values = JSON.parse(told.slice(border + 1)) as (string | null)[]
      const [before, after] = [
        rowOf(fields, values, 0),
        rowOf(fields, values, this.operation === 'update' ? fields.length : 0),
      ]
      if (this.operation !== 'insert') this.#before = before
      if (this.operation !== 'delete') this.#after = after
    } catch {
      // Not told: any row.
    }
  }
}

function shapeOf(text: string): readonly string[] {
  const known = shapes.get(text)
  if (known !== undefined) return known
  const shape = JSON.parse(text) as string[]
  if (shapes.size >= shapesMax) shapes.clear()
  shapes.set(text, shape)
  return shape
}

function rowOf(fields: readonly string[], values: readonly (string | null)[], from: number): Row {
  let row: Row = {}
  const named: [string, unknown][] = []
  for (const [index, field] of fields.entries()) {
    const value = values[from + index] ?? null
    if (field !== 'o')
      named.push([field.slice(1), value === null ? null : valueOf(field[0]!, value)])
    else if (value !== null) row = JSON.parse(value) as Row
  }
  return { ...Object.fromEntries(named), ...row }
}

function valueOf(kind: string, text: string): unknown {
  switch (kind) {
    case 's':
      return text
    case 't': {
      const ms = Math.round(Number(text) * 1_000)
      return Number.isFinite(ms) ? ms : null
    }
    default:
      return JSON.parse(text)
  }
}
