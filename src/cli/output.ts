import { progress as clackProgress } from '@clack/prompts'

/** Plain progress lines come no oftener than this. */
const plainIntervalMs = 2_000

export type Progress = {
  /** `done` of `total` so far; null total: not known. */
  update(done: number, total: number | null): void
  /** Ends the bar with a sentence that says how it went. */
  end(sentence: string): void
}

/**
 * What a command says. With `--json` standard output holds one JSON document and nothing else;
 * otherwise lines for people. Progress goes to standard error: a bar on a terminal, a plain line
 * now and then elsewhere.
 */
export type Output = {
  readonly json: boolean
  /** A line for people; dropped with `--json`. */
  line(text: string): void
  /** Columns for people; dropped with `--json`. */
  table(rows: readonly (readonly string[])[]): void
  /** The result as one JSON document; dropped without `--json`. Call it once, last. */
  result(document: unknown): void
  progress(title: string): Progress
}

type Streams = {
  readonly stdout: NodeJS.WritableStream
  readonly stderr: NodeJS.WritableStream & { readonly isTTY?: boolean }
}

export function createOutput(options: { readonly json: boolean } & Streams): Output {
  const { json, stdout, stderr } = options
  const line = (text: string): void => void (json || stdout.write(`${text}\n`))
  return {
    json,
    line,
    table: (rows) => {
      for (const text of columns(rows)) line(text)
    },
    result: (document) => void (json && stdout.write(`${JSON.stringify(document, null, 2)}\n`)),
    progress: (title) => (stderr.isTTY === true && !json ? bar(title) : plain(title, stderr)),
  }
}

function columns(rows: readonly (readonly string[])[]): string[] {
  const widths: number[] = []
  for (const row of rows)
    row.forEach((cell, index) => (widths[index] = Math.max(widths[index] ?? 0, cell.length)))
  return rows.map((row) =>
    row.map((cell, index) => cell.padEnd(index === row.length - 1 ? 0 : widths[index]!)).join('  '),
  )
}

function bar(title: string): Progress {
  const size = 40
  const shown = clackProgress({ style: 'heavy', max: size, size })
  shown.start(title)
  let at = 0
  return {
    update: (done, total) => {
      const next =
        total === null || total === 0 ? at : Math.min(size, Math.floor((done / total) * size))
      shown.advance(next - at, total === null ? `${title} ${done}` : `${title} ${done}/${total}`)
      at = next
    },
    end: (sentence) => shown.stop(sentence),
  }
}

function plain(title: string, stderr: NodeJS.WritableStream): Progress {
  let last = performance.now()
  return {
    update: (done, total) => {
      if (performance.now() - last < plainIntervalMs) return
      last = performance.now()
      stderr.write(`${title}: ${done}${total === null ? '' : ` of ${total}`}\n`)
    },
    end: (sentence) => void stderr.write(`${sentence}\n`),
  }
}
