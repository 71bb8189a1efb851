import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import type { TaskReply, TaskRequest } from '#lib/child-tasks.ts'
import type { Clock } from '#lib/clock.ts'
import { FairQueue } from '#lib/fair-queue.ts'
import type { Claim, FairQueueLimits } from '#lib/fair-queue.ts'
import type { Logger } from '#lib/logger.ts'

export type ChildPoolOptions = {
  /** The module that each child runs; it calls `serveTasks`. */
  readonly module: URL
  /** The limits of one child: native memory and heap together (Linux), and JavaScript's heap. */
  readonly memoryBytesMax: number
  readonly heapBytesMax: number
  readonly queue: FairQueueLimits
  readonly clock: Clock
  readonly logger: Logger
}

export type Task = {
  readonly task: string
  /** Anything that can be cloned. */
  readonly input: unknown
  /** Past this the child is killed. Waiting for a place does not count. */
  readonly timeoutMs: number
}

/** Throws `TaskTimeoutError`, `TaskCrashedError` or `TaskFailedError`. */
export type Perform = (task: Task) => Promise<unknown>

/** The task took longer than its time; its child was killed. */
export class TaskTimeoutError extends Error {
  override readonly name = 'TaskTimeoutError'
}

/** The child died at the task: most often out of memory. */
export class TaskCrashedError extends Error {
  override readonly name = 'TaskCrashedError'
}

/** The task's own error, as the child sent it. */
export class TaskFailedError extends Error {
  override readonly name = 'TaskFailedError'
  readonly facts: Readonly<Record<string, unknown>>

  constructor(message: string, facts: Readonly<Record<string, unknown>>) {
    super(message)
    this.facts = facts
  }
}

/** A child without work ends after so long, and gives its memory back. */
const idleMs = 30_000
/** A child ends after so many tasks, before leaks of its libraries add up. */
const tasksPerChildMax = 500
/** How long the pool waits for children that were killed. */
const stopMs = 5_000
/** V8 maps this much for code and touches little of it; the limit counts it all the same. */
const reservedBytes = 576 * 1024 ** 2
/** How much of a child's last words goes to the log. */
const stderrCharactersMax = 2_000

/** The environment of a child: it has no secret and no address of the database. */
const passedVariables = ['PATH', 'HOME', 'LANG', 'LC_ALL', 'TMPDIR', 'TZ', 'LD_LIBRARY_PATH']

type Child = {
  readonly process: ChildProcess
  readonly closed: Promise<void>
  stderr: string
  tasks: number
  idle: NodeJS.Timeout | null
}

/**
 * Runs third parties' parsers on strangers' bytes in child processes: a parser that crashes, loops
 * or takes all memory ends its child, and neither this process nor its event loop notices. Children
 * start on demand, do one task at a time, and end when there is nothing to do. Places are shared by
 * `FairQueue`.
 */
export class ChildPool {
  readonly #options: ChildPoolOptions
  readonly #queue: FairQueue
  readonly #idle: Child[] = []
  readonly #all = new Set<Child>()
  #lastId = 0
  #isStopped = false

  constructor(options: ChildPoolOptions) {
    this.#options = options
    this.#queue = new FairQueue(options.queue, options.clock)
  }

  /**
   * Runs `work` when a place is free; it may perform several tasks, one after the other. What it
   * does beside them, such as fetching a file, is bounded by the same places. Throws
   * `QueueBusyError`, and what `work` throws.
   */
  use<T>(claim: Claim, work: (perform: Perform) => Promise<T>): Promise<T> {
    return this.#queue.run(claim, () => work((task) => this.#run(task)))
  }

  /** The handler's result of one task. */
  run(claim: Claim, task: Task): Promise<unknown> {
    return this.use(claim, (perform) => perform(task))
  }

  async #run(task: Task): Promise<unknown> {
    if (this.#isStopped) throw new TaskCrashedError('The pool of child processes is stopped.')
    const child = this.#idle.pop() ?? this.#start()
    if (child.idle !== null) clearTimeout(child.idle)
    child.idle = null
    hold(child)
    child.tasks += 1
    const result = await this.#perform(child, task)
    if (child.tasks >= tasksPerChildMax || this.#isStopped) this.#end(child)
    else this.#keep(child)
    return result
  }

  /** Ends all children, also those at work; resolves when they have ended. */
  async stop(): Promise<void> {
    this.#isStopped = true
    const children = [...this.#all]
    for (const child of children) this.#end(child)
    const { promise: late, resolve } = Promise.withResolvers<void>()
    const timer = setTimeout(resolve, stopMs)
    await Promise.race([Promise.all(children.map((child) => child.closed)), late])
    clearTimeout(timer)
  }

  async #perform(child: Child, { task, input, timeoutMs }: Task): Promise<unknown> {
    this.#lastId += 1
    const request: TaskRequest = { id: this.#lastId, task, input }
    const { promise, resolve, reject } = Promise.withResolvers<TaskReply>()
    const onMessage = (reply: unknown): void => {
      if ((reply as TaskReply).id === request.id) resolve(reply as TaskReply)
    }
    child.process.on('message', onMessage)
    void child.closed.then(() => reject(this.#crash(child, task)))
    const timer = setTimeout(() => {
      reject(new TaskTimeoutError(`The task ${task} took longer than ${timeoutMs} ms.`))
      this.#end(child)
    }, timeoutMs)
    try {
      child.process.send(request, (error) => {
        // The child's end follows, and is what counts.
        if (error !== null) this.#end(child)
      })
      const reply = await promise
      if (reply.ok) return reply.result
      this.#keep(child)
      throw new TaskFailedError(reply.message, reply.facts)
    } finally {
      clearTimeout(timer)
      child.process.off('message', onMessage)
    }
  }

  #start(): Child {
    const { module, memoryBytesMax, heapBytesMax } = this.#options
    const node = [
      process.execPath,
      `--max-old-space-size=${Math.ceil(heapBytesMax / 1024 ** 2)}`,
      fileURLToPath(module),
    ]
    // `ulimit -d` counts what a process may write to: heap, libraries' memory, stacks.
    const limited = ['-c', 'ulimit -d "$0" 2>/dev/null; exec "$@"']
    const kilobytes = String(Math.ceil((memoryBytesMax + reservedBytes) / 1024))
    const [program, ...args] =
      process.platform === 'linux' ? ['/bin/sh', ...limited, kilobytes, ...node] : node
    const started = spawn(program!, args, {
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
      serialization: 'advanced',
      env: childEnvironment(),
    })
    const { promise: closed, resolve } = Promise.withResolvers<void>()
    const child: Child = { process: started, closed, stderr: '', tasks: 0, idle: null }
    started.stderr!.setEncoding('utf8').on('data', (text: string) => {
      child.stderr = (child.stderr + text).slice(-stderrCharactersMax)
    })
    started.on('error', () => resolve())
    started.on('exit', () => resolve())
    void closed.then(() => this.#forget(child))
    this.#all.add(child)
    return child
  }

  #keep(child: Child): void {
    if (!this.#all.has(child)) return
    child.idle = setTimeout(() => this.#end(child), idleMs)
    child.idle.unref()
    release(child)
    this.#idle.push(child)
  }

  #end(child: Child): void {
    hold(child)
    this.#forget(child)
    child.process.kill('SIGKILL')
  }

  #forget(child: Child): void {
    this.#all.delete(child)
    if (child.idle !== null) clearTimeout(child.idle)
    const index = this.#idle.indexOf(child)
    if (index >= 0) this.#idle.splice(index, 1)
  }

  #crash(child: Child, task: string): TaskCrashedError {
    const { exitCode, signalCode } = child.process
    if (!this.#isStopped)
      this.#options.logger.warn(
        { task, exitCode, signal: signalCode, stderr: child.stderr },
        'a child process ended at a task; its file needs more memory than allowed, or is malformed',
      )
    return new TaskCrashedError(`The child process ended at the task ${task}.`)
  }
}

/** An idle child does not keep this process alive; one at work does. */
function release(child: Child): void {
  child.process.unref()
  child.process.channel?.unref()
  unrefStream(child.process.stderr)
}

function hold(child: Child): void {
  child.process.ref()
  child.process.channel?.ref()
}

function unrefStream(stream: unknown): void {
  ;(stream as { unref?: () => void } | null)?.unref?.()
}

function childEnvironment(): NodeJS.ProcessEnv {
  const variables = passedVariables.flatMap((name) => {
    const value = process.env[name]
    return value === undefined ? [] : [[name, value] as const]
  })
  return { ...Object.fromEntries(variables), UV_THREADPOOL_SIZE: '2' }
}
