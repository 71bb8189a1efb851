import type { Change } from '#change-feed/change.ts'
import { touches } from '#cache/predicate.ts'
import type { PageBound, Predicate } from '#cache/predicate.ts'

type List = { readonly predicate: Predicate; readonly page: PageBound | null }

/** Live list queries of one collection: which of them does a change touch (R12)? */
export class PredicateIndex<Id> {
  readonly #lists = new Map<Id, List[]>()

  /** The same id may be added with several predicates: a disjunction. */
  add(id: Id, predicate: Predicate, page: PageBound | null): void {
    const same = this.#lists.get(id)
    if (same === undefined) this.#lists.set(id, [{ predicate, page }])
    else same.push({ predicate, page })
  }

  /** Removes the id with all its predicates. */
  remove(id: Id): void {
    this.#lists.delete(id)
  }

  touched(change: Change, into: Set<Id>, options: { readonly ignoreBefore: boolean }): void {
    for (const [id, lists] of this.#lists) {
      if (lists.some((list) => touches(change, list.predicate, list.page, options))) into.add(id)
    }
  }
}
