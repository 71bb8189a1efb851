import { compareScalars } from '#cache/predicate.ts'
import type { Scalar } from '#cache/predicate.ts'

/** From `low` to `high`, both included; null: open. */
export type Interval = { readonly low: Scalar | null; readonly high: Scalar | null }

type TreeNode<T> = { readonly low: Scalar | null; readonly high: Scalar | null; readonly order: number; readonly priority: number; readonly item: T; maxHigh: Scalar | null; left: TreeNode<T> | null; right: TreeNode<T> | null }
export type Place = { readonly low: Scalar | null; readonly order: number }

/**
 * Which intervals contain a value, in O(log n + found): a treap by lower bound, each node knowing the highest upper bound
 * below it (Cormen et al., *Introduction to Algorithms*, "Interval trees"; Seidel and Aragon, 1996, for the balance).
 */
export class IntervalTree<T> {
  #root: TreeNode<T> | null = null
  #count = 0
  #size = 0

  get size(): number {
    return this.#size
  }

  /** The place is what `remove` takes. */
  add(interval: Interval, item: T): Place {
    const order = (this.#count += 1)
    this.#size += 1
    // A well-mixed hash of the count stands in for chance.
    const priority = Math.imul(order ^ (order >>> 15), 0x2c1b_3c6d) ^ Math.imul(order, 0x297a_2d39)
    const node: TreeNode<T> = { ...interval, order, priority, item, maxHigh: interval.high, left: null, right: null }
    this.#root = insert(this.#root, node)
    return { low: interval.low, order }
  }

  remove(place: Place): void {
    this.#size -= 1
    this.#root = remove(this.#root, place)
  }

  /** `inside`: the value is on neither bound. */
  containing(value: Scalar, found: (item: T, inside: boolean) => void): void {
    visit(this.#root, value, found)
  }
}

function before(one: Place, other: Place): boolean {
  if (one.low === null || other.low === null) return one.low === other.low ? one.order < other.order : one.low === null
  const order = compareScalars(one.low, other.low)
  return order === 0 ? one.order < other.order : order < 0
}

function higher(one: Scalar | null, other: Scalar | null): Scalar | null {
  return one === null || other === null ? null : compareScalars(one, other) >= 0 ? one : other
}

function update<T>(node: TreeNode<T>): TreeNode<T> {
  let { high } = node
  if (node.left !== null) high = higher(high, node.left.maxHigh)
  if (node.right !== null) high = higher(high, node.right.maxHigh)
  node.maxHigh = high
  return node
}

/** Those before the place, and the others. */
function split<T>(node: TreeNode<T> | null, place: Place): [TreeNode<T> | null, TreeNode<T> | null] {
  if (node === null) return [null, null]
  if (before(node, place)) {
    const [left, right] = split(node.right, place)
    node.right = left
    return [update(node), right]
  }
  const [left, right] = split(node.left, place)
  node.left = right
  return [left, update(node)]
}

function merge<T>(left: TreeNode<T> | null, right: TreeNode<T> | null): TreeNode<T> | null {
  if (left === null || right === null) return left ?? right
  if (left.priority > right.priority) {
    left.right = merge(left.right, right)
    return update(left)
  }
  right.left = merge(left, right.left)
  return update(right)
}

function insert<T>(root: TreeNode<T> | null, node: TreeNode<T>): TreeNode<T> {
  if (root === null) return node
  if (node.priority > root.priority) {
    const [left, right] = split(root, node)
    node.left = left
    node.right = right
    return update(node)
  }
  if (before(node, root)) root.left = insert(root.left, node)
  else root.right = insert(root.right, node)
  return update(root)
}

function remove<T>(root: TreeNode<T> | null, place: Place): TreeNode<T> | null {
  if (root === null) return null
  if (root.order === place.order) return merge(root.left, root.right)
  if (before(place, root)) root.left = remove(root.left, place)
  else root.right = remove(root.right, place)
  return update(root)
}

function visit<T>(node: TreeNode<T> | null, value: Scalar, found: (item: T, inside: boolean) => void): void {
  if (node === null || (node.maxHigh !== null && compareScalars(node.maxHigh, value) < 0)) return
  if (node.left !== null) visit(node.left, value, found)
  const low = node.low === null ? -1 : compareScalars(node.low, value)
  if (low > 0) return
  const high = node.high === null ? 1 : compareScalars(node.high, value)
  if (high >= 0) found(node.item, low < 0 && high > 0)
  if (node.right !== null) visit(node.right, value, found)
}
