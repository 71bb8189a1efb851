/**
 * The name that `given` was probably meant to be, or null. Two names are close if at most a third
 * of the letters, and never more than three, have to be added, removed, changed or swapped with
 * their neighbour (the distance of Damerau and Levenshtein). Case does not matter.
 */
export function closestName(given: string, names: readonly string[]): string | null {
  const distanceMax = Math.min(3, Math.ceil(given.length / 3))
  let closest: string | null = null
  let least = distanceMax + 1
  for (const name of names) {
    if (Math.abs(name.length - given.length) >= least) continue
    const distance = editDistance(given.toLowerCase(), name.toLowerCase())
    if (distance < least) [closest, least] = [name, distance]
  }
  return closest
}

function editDistance(from: string, to: string): number {
  let twoBefore: number[] = []
  let before = Array.from({ length: to.length + 1 }, (_, index) => index)
  for (let row = 1; row <= from.length; row += 1) {
    const current = [row]
    for (let column = 1; column <= to.length; column += 1) {
      const same = from[row - 1] === to[column - 1]
      let cost = Math.min(
        before[column]! + 1,
        current[column - 1]! + 1,
        before[column - 1]! + (same ? 0 : 1),
      )
      const swapped = from[row - 1] === to[column - 2] && from[row - 2] === to[column - 1]
      if (row > 1 && column > 1 && swapped) cost = Math.min(cost, twoBefore[column - 2]! + 1)
      current.push(cost)
    }
    twoBefore = before
    before = current
  }
  return before[to.length]!
}
