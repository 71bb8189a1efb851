import { writeFileSync } from 'node:fs'
import { setPriority } from 'node:os'

export type TaskHandler = (input: unknown) => Promise<unknown>

export type TaskRequest = { readonly id: number; readonly task: string; readonly input: unknown }
export type TaskReply =
  | { readonly id: number; readonly ok: true; readonly result: unknown }
  | {
      readonly id: number
      readonly ok: false
      readonly message: string
      readonly facts: Readonly<Record<string, unknown>>
    }

/** A failure that a handler reports with details. Other errors reach the pool as their message. */
export class TaskFailure extends Error {
  readonly facts: Readonly<Record<string, unknown>>

  constructor(message: string, facts: Readonly<Record<string, unknown>>) {
    super(message)
    this.facts = facts
  }
}

/** Children give way to the process that serves requests. */
const niceness = 10

/**
 * The child's side of `ChildPool`: the module that a child runs calls this once. The child ends
 * when its parent does. Where memory runs out on the machine, the kernel ends a child first.
 */
export function serveTasks(handlers: Readonly<Record<string, TaskHandler>>): void {
  if (!process.connected) throw new Error('This module runs as a child of a ChildPool.')
  bePolite()
  // A terminal interrupts the whole process group; the parent decides when a child ends.
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => undefined)
  process.on('disconnect', () => process.exit(0))
  process.on('message', (message) => {
    const { id, task, input } = message as TaskRequest
    const reply = (result: TaskReply): void => void process.send?.(result)
    const handler = handlers[task]
    if (handler === undefined) {
      reply({ id, ok: false, message: `There is no task ${task}.`, facts: {} })
      return
    }
    handler(input).then(
      (result) => reply({ id, ok: true, result }),
      (error: unknown) =>
        reply({
          id,
          ok: false,
          message: error instanceof Error ? error.message : String(error),
          facts: error instanceof TaskFailure ? error.facts : {},
        }),
    )
  })
}

function bePolite(): void {
  try {
    setPriority(niceness)
    writeFileSync('/proc/self/oom_score_adj', '1000')
  } catch {
    // Neither is possible on every system, and both only help others.
  }
}
