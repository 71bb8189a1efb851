import { open, writeFile } from 'node:fs/promises'
import { UsageError } from '#lib/usage-error.ts'
import type { Output } from '#cli/output.ts'
import type { Clock } from '#lib/clock.ts'

/** Findings of one kind that are printed; `--report` writes them all. */
const shownMax = 20
/** Findings past this many are only counted, so that a hopeless source does not fill the memory. */
const keptMax = 100_000

export type Outcome = 'made' | 'changed' | 'unchanged' | 'refused'
const outcomes: readonly Outcome[] = ['made', 'changed', 'unchanged', 'refused']

export type Finding = {
  /** `page`, `link`, `attachment`… */
  readonly what: string
  readonly where: string
  readonly reason: string
}

export type ReportDocument = {
  readonly command: string
  readonly source: string
  readonly finished: boolean
  readonly seconds: number
  /**
   * `<things>PerSecond`, and what this process took in processor time and, at its peak, in memory.
   */
  readonly measured: Readonly<Record<string, number>>
  readonly counts: Readonly<Record<string, Readonly<Record<Outcome, number>>>>
  readonly refused: readonly Finding[]
  /** Parts of what was taken over that were not: the content is incomplete. */
  readonly leftOut: readonly Finding[]
  readonly remarks: readonly Finding[]
  /** Findings that are counted and not listed, because there are too many. */
  readonly unlisted: number
}

type PrintOptions = { readonly file: string | null; readonly rates: readonly string[] }

/** Counts and lists what a long command did, for its end. */
export class Report {
  readonly #command: string
  readonly #source: string
  readonly #clock: Clock
  readonly #startMs: number
  readonly #counts = new Map<string, Record<Outcome, number>>()
  readonly #refused: Finding[] = []
  readonly #leftOut: Finding[] = []
  readonly #remarks: Finding[] = []
  readonly #laps = new Map<string, number>()
  #unlisted = 0
  #incomplete = false
  #finished = true

  constructor(options: {
    readonly command: string
    readonly source: string
    readonly clock: Clock
  }) {
    this.#command = options.command
    this.#source = options.source
    this.#clock = options.clock
    this.#startMs = options.clock.monotonicMs()
  }

  count(what: string, outcome: Outcome, times = 1): void {
    let counts = this.#counts.get(what)
    if (counts === undefined) {
      counts = { made: 0, changed: 0, unchanged: 0, refused: 0 }
      this.#counts.set(what, counts)
    }
    counts[outcome] += times
  }

  /** Counts and lists a thing that was not taken over. */
  refuse(what: string, where: string, reason: string): void {
    this.count(what, 'refused')
    this.#incomplete = true
    this.#keep(this.#refused, { what, where, reason })
  }

  /** Lists a part of something that was taken over without it. */
  leaveOut(what: string, where: string, reason: string): void {
    this.#incomplete = true
    this.#keep(this.#leftOut, { what, where, reason })
  }

  /** Lists something that the reader should know, though nothing is missing. */
  remark(what: string, where: string, reason: string): void {
    this.#keep(this.#remarks, { what, where, reason })
  }

  /** Marks the time at which the last of these things was done, where their rate ends. */
  lap(what: string): void {
    this.#laps.set(what, (this.#clock.monotonicMs() - this.#startMs) / 1_000)
  }

  interrupted(): void {
    this.#finished = false
  }

  #keep(list: Finding[], finding: Finding): void {
    const kept = this.#refused.length + this.#leftOut.length + this.#remarks.length
    if (kept < keptMax) list.push(finding)
    else this.#unlisted += 1
  }

  document(rates: readonly string[] = []): ReportDocument {
    const seconds = (this.#clock.monotonicMs() - this.#startMs) / 1_000
    const measured: Record<string, number> = {}
    for (const what of rates) {
      const counts = this.#counts.get(what)
      const done =
        counts === undefined ? 0 : outcomes.reduce((sum, outcome) => sum + counts[outcome], 0)
      measured[`${what}PerSecond`] = Math.round(
        done / Math.max(this.#laps.get(what) ?? seconds, 0.001),
      )
    }
    const { maxRSS, userCPUTime, systemCPUTime } = process.resourceUsage()
    measured['cpuSeconds'] = Math.round((userCPUTime + systemCPUTime) / 100_000) / 10
    measured['peakMemoryMb'] = Math.round(maxRSS / 1_024)
    return {
      command: this.#command,
      source: this.#source,
      finished: this.#finished,
      seconds: Math.round(seconds * 1_000) / 1_000,
      measured,
      counts: Object.fromEntries(this.#counts),
      refused: this.#refused,
      leftOut: this.#leftOut,
      remarks: this.#remarks,
      unlisted: this.#unlisted,
    }
  }

  /**
   * Prints the counts and the first findings, or with `--json` the document, and writes all of it
   * into `file`. Returns the exit status: 0 all done, 3 something was refused or left out, 130
   * interrupted.
   */
  async print(output: Output, options: PrintOptions): Promise<number> {
    const document = this.document(options.rates)
    if (options.file !== null)
      await writeFile(options.file, `${JSON.stringify(document, null, 2)}\n`, { mode: 0o600 })
    output.result(document)
    if (!document.finished)
      output.line('Interrupted. What is done is done; the same command goes on from there.')
    const rows = Object.entries(document.counts).map(([what, counts]) => [
      what,
      ...outcomes.map((outcome) => String(counts[outcome])),
    ])
    if (rows.length > 0) output.table([['', ...outcomes], ...rows])
    printFindings(output, 'Refused', document.refused)
    printFindings(output, 'Left out', document.leftOut)
    printFindings(output, 'Remarks', document.remarks)
    if (options.file !== null) output.line(`The whole report is in ${options.file}.`)
    const rates = Object.entries(document.measured).map(([name, value]) => `${name} ${value}`)
    output.line(`${document.seconds} s; ${rates.join(', ')}.`)
    if (!document.finished) return 130
    return this.#incomplete ? 3 : 0
  }
}

function printFindings(output: Output, title: string, findings: readonly Finding[]): void {
  if (findings.length === 0) return
  output.line(`${title} (${findings.length}):`)
  for (const { what, where, reason } of findings.slice(0, shownMax))
    output.line(`  ${what} ${where}: ${reason}`)
  if (findings.length > shownMax)
    output.line(`  … and ${findings.length - shownMax} more; --report FILE writes them all.`)
}

/**
 * Returns the file that `--report` names, made now and for its owner alone: that it cannot be
 * written is better known before hours of work. Errors: `UsageError`.
 */
export async function reportFile(path: unknown): Promise<string | null> {
  if (typeof path !== 'string') return null
  try {
    await (await open(path, 'a', 0o600)).close()
  } catch (error) {
    throw new UsageError(
      `The report cannot be written to ${path} ` +
        `(${error instanceof Error ? error.message : String(error)}).`,
      {},
      { cause: error },
    )
  }
  return path
}
