import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { readFileSync } from 'node:fs'

const stopDeadlineMs = 15_000

/** A child process that is stopped, at the latest by SIGKILL, when its scope ends. */
export class Child implements AsyncDisposable {
  readonly process: ChildProcess
  readonly #ended: Promise<void>
  output = ''

  constructor(
    command: string,
    args: readonly string[],
    environment: Readonly<Record<string, string>>,
  ) {
    this.process = spawn(command, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...environment },
    })
    this.process.stdout?.on('data', (chunk) => (this.output += String(chunk)))
    this.process.stderr?.on('data', (chunk) => (this.output += String(chunk)))
    this.#ended = new Promise((resolve) => this.process.once('exit', () => resolve()))
  }

  /**
   * Resolves with the first match of `pattern` in what the process printed; rejects when it ends
   * first or takes too long.
   */
  async printed(pattern: RegExp, deadlineMs = 60_000): Promise<RegExpExecArray> {
    const end = Date.now() + deadlineMs
    for (;;) {
      const match = pattern.exec(this.output)
      if (match !== null) return match
      if (this.process.exitCode !== null || Date.now() > end)
        throw new Error(`expected ${pattern} from the process, which printed:\n${this.output}`)
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }

  /** Resident memory now, in MB, as the kernel counts it. */
  residentMb(): number {
    const status = readFileSync(`/proc/${this.process.pid}/status`, 'utf8')
    return Math.round(Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? Number.NaN) / 1024)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.process.kill('SIGTERM')
    const timer = setTimeout(() => this.process.kill('SIGKILL'), stopDeadlineMs)
    await this.#ended
    clearTimeout(timer)
  }
}
