/**
 * One of the processes that `stoa start --nodes N` runs. The supervisor sends its configuration,
 * and its end is this one's end too.
 */
import * as nodeModule from 'node:module'
import type { Config } from '#config/config.ts'
import { aliveEveryMs } from '#node/shared-port.ts'

export type FromSupervisor = {
  readonly config: Config
  readonly place: string
  readonly origin: string
}
export type ToSupervisor =
  | { readonly kind: 'ready' | 'alive' }
  | { readonly kind: 'failed'; readonly message: string; readonly code: string }

nodeModule.enableCompileCache?.(new URL('../../node_modules/.cache/stoa', import.meta.url).pathname)

const stopping = new AbortController()
const stop = (): void => stopping.abort()
// A terminal interrupts the supervisor too, and that one decides.
process.on('SIGINT', () => undefined)
process.on('SIGHUP', () => undefined)
process.on('SIGTERM', stop)
process.on('disconnect', stop)
// The first message is the configuration; later ones are handled by shared-port.ts.
process.once('message', (message: FromSupervisor) => void run(message))
setInterval(() => void send({ kind: 'alive' }), aliveEveryMs).unref()

async function send(message: ToSupervisor): Promise<void> {
  await new Promise<void>((resolve) => {
    if (process.send === undefined || !process.connected) resolve()
    else process.send(message, undefined, undefined, () => resolve())
  })
}

async function run({ config, place, origin }: FromSupervisor): Promise<void> {
  const [{ runNode }, { StoaError }] = await Promise.all([
    import('#node/start.ts'),
    import('#lib/stoa-error.ts'),
  ])
  try {
    await runNode(config, stopping.signal, {
      supervised: { place, origin },
      onReady: () => void send({ kind: 'ready' }),
    })
  } catch (error) {
    process.exitCode = 1
    if (!(error instanceof StoaError))
      process.stderr.write(`stoa: this is a defect, please report it:\n${traceOf(error)}\n`)
    await send({
      kind: 'failed',
      message: error instanceof Error ? error.message : String(error),
      code: error instanceof StoaError ? error.code : 'E_INTERNAL',
    })
  }
  // The channel to the supervisor would hold the process.
  if (process.connected) process.disconnect()
}

function traceOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error)
}
