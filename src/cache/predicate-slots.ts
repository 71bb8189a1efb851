import type { Row } from '#change-feed/change.ts'
import { bitOf } from '#cache/predicate-bucket.ts'
import type { Taken } from '#cache/predicate-bucket.ts'
import type { Scalar } from '#cache/predicate.ts'

/** A field that some list asks for, by its number. */
type Slot<Bucket> = {
  readonly slot: number
  readonly field: string
  uses: number
  /** The values that some list asks to be equal to, and their codes from 1 on. */
  readonly codes: Map<unknown, number>
  /** By code. */
  readonly codeUses: number[]
  readonly holders: (Bucket | undefined)[]
  /** How many of `holders` there are. */
  buckets: number
  readonly freeCodes: number[]
}

/**
 * Gives numbers to fields and to the values that equalities ask for, for as long as somebody uses
 * them.
 */
export class Slots<Bucket extends { readonly size: number }> {
  readonly #byField = new Map<string, Slot<Bucket>>()
  readonly #slots: (Slot<Bucket> | null)[] = []
  /** Those with buckets. */
  hashed: readonly Slot<Bucket>[] = []

  /** The release must be called once. */
  use(field: string): () => void {
    let known = this.#byField.get(field)
    if (known === undefined) {
      const free = this.#slots.indexOf(null)
      known = {
        slot: free === -1 ? this.#slots.length : free,
        field,
        uses: 0,
        codes: new Map(),
        codeUses: [0],
        holders: [undefined],
        buckets: 0,
        freeCodes: [],
      }
      this.#slots[known.slot] = known
      this.#byField.set(field, known)
    }
    const slot = known
    slot.uses += 1
    return () => {
      slot.uses -= 1
      if (slot.uses > 0) return
      this.#byField.delete(field)
      this.#slots[slot.slot] = null
    }
  }

  /** The field must be in use, here and below. */
  of(field: string): number {
    return this.#byField.get(field)!.slot
  }

  code(slot: number, value: Scalar): { readonly code: number; readonly release: () => void } {
    const known = this.#slots[slot]!
    let code = known.codes.get(value)
    if (code === undefined) {
      code = known.freeCodes.pop() ?? known.codeUses.length
      known.codes.set(value, code)
      known.codeUses[code] = 0
    }
    known.codeUses[code]! += 1
    return { code, release: () => this.#release(known, value) }
  }

  /** The bucket of the value, made if there is none. It is dropped if it is empty when released. */
  bucket(
    slot: number,
    value: Scalar,
    make: () => Bucket,
  ): { readonly bucket: Bucket; readonly release: () => void } {
    const known = this.#slots[slot]!
    const { code, release } = this.code(slot, value)
    let bucket = known.holders[code]
    if (bucket === undefined) {
      known.holders[code] = bucket = make()
      known.buckets += 1
      if (known.buckets === 1) this.hashed = [...this.hashed, known]
    }
    const made = bucket
    return {
      bucket: made,
      release: () => {
        release()
        if (made.size > 0 || known.holders[code] !== made) return
        known.holders[code] = undefined
        known.buckets -= 1
        if (known.buckets === 0) this.hashed = this.hashed.filter((one) => one !== known)
      },
    }
  }

  known(slot: number, value: Scalar): Bucket | undefined {
    const { holders, codes } = this.#slots[slot]!
    return holders[codes.get(value) ?? 0]
  }

  /** Takes a row apart. */
  take(row: Row, { values, codes }: Taken): void {
    const slots = this.#slots
    for (let at = 0; at < slots.length; at += 1) {
      const slot = slots[at]!
      const value = slot === null ? undefined : row[slot.field]
      values[at] = value
      codes[at] = slot === null ? 0 : codeOf(slot.codes, value)
    }
  }

  /** Takes apart the same row after a change, and returns the bits of the fields that differ. */
  takeAfter(row: Row, { values, codes }: Taken, before: Taken): number {
    const slots = this.#slots
    let fields = 0
    for (let at = 0; at < slots.length; at += 1) {
      const slot = slots[at]!
      const value = slot === null ? undefined : row[slot.field]
      const same = value === before.values[at]
      values[at] = value
      codes[at] = same ? before.codes[at]! : codeOf(slot.codes, value)
      if (!same) fields |= bitOf(at)
    }
    return fields
  }

  #release(known: Slot<Bucket>, value: Scalar): void {
    const code = known.codes.get(value)!
    known.codeUses[code]! -= 1
    if (known.codeUses[code]! > 0) return
    known.codes.delete(value)
    known.freeCodes.push(code)
  }
}

function codeOf(codes: ReadonlyMap<unknown, number>, value: unknown): number {
  if (codes.size === 0) return 0
  return typeof value === 'object' && Array.isArray(value) ? Number.NaN : (codes.get(value) ?? 0)
}
