/** One claim, measured. */
export type Figure = {
  readonly name: string
  readonly value: number
  readonly unit: string
  readonly atLeast?: number
  readonly atMost?: number
}

export type Benchmark = {
  /** One sentence: what is claimed, against what. */
  readonly claim: string
  run(say: (line: string) => void): Promise<{ figures: Figure[]; notes: string[] }>
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

export function round(value: number, digits = 2): number {
  return Number(value.toFixed(digits))
}

/**
 * The medians of both, and of the ratio pair by pair: rounds alternate, so that a drift of the
 * machine meets both alike.
 */
export function compare(
  baseline: readonly number[],
  subject: readonly number[],
): { baseline: number; subject: number; ratio: number } {
  const ratios = subject.map((value, index) => value / baseline[index]!)
  return {
    baseline: round(median(baseline), 0),
    subject: round(median(subject), 0),
    ratio: round(median(ratios)),
  }
}
