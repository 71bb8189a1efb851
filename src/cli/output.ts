import { progress as clackProgress } from '@clack/prompts'

/** Least time between two plain progress lines. */
const plainIntervalMs = 2_000

export type Progress = {
  /** `total` is null where it is not known. */
  update(done: number, total: number | null): void
  /** Ends the progress with a sentence about the outcome. */
  end(sentence: string): void
}

/**
 * The output of a command. With `--json` standard output holds one JSON document and nothing else;
 * otherwise it holds lines for people. Progress goes to standard error: a bar on a terminal, a
 * plain line every few seconds elsewhere.
 */
export type Output = {
  readonly json: boolean
  /** Prints a line for people; dropped with `--json`. */
  line(text: string): void
  /** Prints aligned columns for people; dropped with `--json`. */
  table(rows: readonly (readonly string[])[]): void
  /** Prints the result as JSON; dropped without `--json`. Call it once, last. */
  result(document: unknown): void
  progress(title: string): Progress
}

export type OutputOptions = {
  readonly json: boolean
  readonly stdout: NodeJS.WritableStream
  readonly stderr: NodeJS.WritableStream & { readonly isTTY?: boolean }
}

export function createOutput({ json, stdout, stderr }: OutputOptions): Output {
  const line = (text: string): void => void (json || stdout.write(`${text}\n`))
  return {
    json,
    line,
    table: (rows) => alignColumns(rows).forEach(line),
    result: (document) => void (json && stdout.write(`${JSON.stringify(document, null, 2)}\n`)),
    progress: (title) =>
      stderr.isTTY === true && !json ? barProgress(title) : plainProgress(title, stderr),
  }
}

function alignColumns(rows: readonly (readonly string[])[]): string[] {
  const widths: number[] = []
  for (const row of rows)
    row.forEach((cell, index) => (widths[index] = Math.max(widths[index] ?? 0, cell.length)))
  return rows.map((row) =>
    row.map((cell, index) => cell.padEnd(index === row.length - 1 ? 0 : widths[index]!)).join('  '),
  )
}

function barProgress(title: string): Progress {
  const size = 40
  const bar = clackProgress({ style: 'heavy', max: size, size })
  bar.start(title)
  let position = 0
  return {
    update: (done, total) => {
      const known = total !== null && total > 0
      const next = known ? Math.min(size, Math.floor((done / total) * size)) : position
      bar.advance(
        next - position,
        total === null ? `${title} ${done}` : `${title} ${done}/${total}`,
      )
      position = next
    },
    end: (sentence) => bar.stop(sentence),
  }
}

function plainProgress(title: string, stderr: NodeJS.WritableStream): Progress {
  let lastMs = performance.now()
  return {
    update: (done, total) => {
      if (performance.now() - lastMs < plainIntervalMs) return
      lastMs = performance.now()
      stderr.write(`${title}: ${done}${total === null ? '' : ` of ${total}`}\n`)
    },
    end: (sentence) => void stderr.write(`${sentence}\n`),
  }
}
