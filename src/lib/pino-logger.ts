import { pino } from 'pino'
import type { Logger } from '#lib/logger.ts'
import { StoaError } from '#lib/stoa-error.ts'

export type LoggerOptions = {
  readonly level: 'debug' | 'info' | 'warn' | 'error' | 'silent'
  readonly node: string
  readonly output: 'stdout' | 'stderr'
}

const secretFields = [
  'password',
  '*.password',
  'secret',
  '*.secret',
  'authorization',
  '*.authorization',
  'cookie',
  '*.cookie',
]

/**
 * JSON lines for machines; on a terminal, short lines for people. What cannot be written is lost:
 * no node ends for its log.
 */
export function createLogger({ level, node, output }: LoggerOptions): Logger {
  const stream = process[output]
  const destination = stream.isTTY ? terminal(stream) : lines(output === 'stdout' ? 1 : 2)
  return pino(
    {
      level,
      base: { node },
      redact: secretFields,
      serializers: { err: errorFacts },
      timestamp: pino.stdTimeFunctions.isoTime,
    },
    destination,
  )
}

function terminal(stream: NodeJS.WriteStream): pino.DestinationStream {
  // Its window may be closed.
  stream.on('error', () => undefined)
  return { write: (line) => void stream.write(forPeople(line)) }
}

/**
 * A pino destination keeps what it could not write, without a bound; after a failure, such as a
 * full disk, it is another one.
 */
function lines(dest: 1 | 2): pino.DestinationStream {
  const open = (): pino.DestinationStream =>
    pino.destination({ dest, sync: true }).on('error', () => {
      current = open()
    })
  let current = open()
  return { write: (line) => current.write(line) }
}

/**
 * The code and the message of an expected failure say what is wrong; its place in the code does not
 * help an operator.
 */
export function errorFacts(error: unknown): unknown {
  if (!(error instanceof Error)) return error
  const { stack, ...facts } = pino.stdSerializers.err(error)
  return error instanceof StoaError ? facts : { ...facts, stack }
}

const defectLevel = 50
const levels: Readonly<Record<number, string>> = { 20: 'debug ', 30: '', 40: 'WARN ', 50: 'ERROR ' }

/**
 * `18:39:01 ready url=http://127.0.0.1:4000`: the time, the message, and the facts that are not on
 * every line.
 */
export function forPeople(line: string): string {
  const {
    level,
    time,
    msg,
    node: _node,
    part: _part,
    err,
    ...facts
  } = JSON.parse(line) as Record<string, unknown>
  const shown = Object.entries(facts).map(
    ([name, value]) => `${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`,
  )
  const failure =
    typeof err === 'object' && err !== null
      ? (err as { readonly message?: string; readonly stack?: string })
      : {}
  const detail = Number(level) >= defectLevel ? (failure.stack ?? failure.message) : failure.message
  return [
    `${String(time).slice(11, 19)} ${levels[Number(level)] ?? ''}${String(msg)}`,
    shown.length > 0 ? `  ${shown.join(' ')}` : '',
    detail === undefined ? '' : `\n${detail}`,
    '\n',
  ].join('')
}
