import type { Change, Row } from '#change-feed/change.ts'
import { parseXid } from '#change-feed/snapshot.ts'

/**
 * Maximum number of parsed lists of names: one for each attached table, and a few from before a
 * table was attached anew.
 */
const shapesMax = 1_000

/** The names of recorded values, parsed once per list and shared by the changes of one feed. */
export class RowShapes {
  readonly #known = new Map<string, readonly string[]>()

  /** Errors: a SyntaxError if the text is no JSON. */
  parse(text: string): readonly string[] {
    const known = this.#known.get(text)
    if (known !== undefined) return known
    const shape = JSON.parse(text) as string[]
    if (this.#known.size >= shapesMax) this.#known.clear()
    this.#known.set(text, shape)
    return shape
  }
}

/** A change whose rows are parsed on first use: most readers need only its key. */
export class TableChange implements Change {
  readonly xid: number
  readonly collection: string
  readonly key: string | null
  readonly operation: Change['operation']
  readonly bytes: number
  #rows: string | null
  #before: Row | null = null
  #after: Row | null = null
  readonly #shapes: RowShapes

  /**
   * `packed` is the transaction, the operation and, where the writer recorded the rows, two JSON
   * texts with U+001F between them, which neither can contain: an array that names the values, each
   * after a letter for its kind, and an array of the values before and after.
   */
  constructor(collection: string, key: string | null, packed: string, shapes: RowShapes) {
    this.#shapes = shapes
    const first = packed.indexOf(' ')
    const second = packed.indexOf(' ', first + 1)
    this.xid = parseXid(packed.slice(0, first))
    // A character takes one byte or two, and so do the values that they are parsed into.
    this.bytes = 2 * packed.length
    this.collection = collection
    this.key = key
    this.operation = packed.slice(
      first + 1,
      second === -1 ? undefined : second,
    ) as Change['operation']
    this.#rows = second === -1 ? null : packed.slice(second + 1)
  }

  get before(): Row | null {
    if (this.#rows !== null) this.#parse(this.#rows)
    return this.#before
  }

  get after(): Row | null {
    if (this.#rows !== null) this.#parse(this.#rows)
    return this.#after
  }

  /** Rows that cannot be read, because another program wrote them, count as not recorded. */
  #parse(packed: string): void {
    this.#rows = null
    try {
      const border = packed.indexOf('\u001f')
      const fields = this.#shapes.parse(packed.slice(0, border))
      const values = JSON.parse(packed.slice(border + 1)) as (string | null)[]
      const [before, after] = [
        rowOf(fields, values, 0),
        rowOf(fields, values, this.operation === 'update' ? fields.length : 0),
      ]
      if (this.operation !== 'insert') this.#before = before
      if (this.operation !== 'delete') this.#after = after
    } catch {
      // Not recorded: any row.
    }
  }
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
