import { execFile, spawn } from 'node:child_process'
import type { SystemUser } from '#embedded-postgres/system-user.ts'

/**
 * What a child of ours may see: never the node's secrets, nor PG* variables that would change where
 * PostgreSQL looks.
 */
export const childEnvironment: NodeJS.ProcessEnv = {
  PATH: '/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin',
  LC_ALL: 'C',
  TZ: 'UTC',
}

const outputBytesMax = 1_000_000

export type CommandResult = { readonly status: number | null; readonly output: string }

export type CommandOptions = {
  readonly user: SystemUser | null
  readonly cwd: string
  readonly deadlineMs: number
  readonly input?: string
}

/**
 * Runs one program to its end, as `user`, without a shell. Never rejects: what could not start has
 * status null and says why.
 */
export function runCommand(
  program: string,
  args: readonly string[],
  options: CommandOptions,
): Promise<CommandResult> {
  return new Promise((resolve) => {
    try {
      const child = execFile(
        program,
        [...args],
        {
          env: childEnvironment,
          cwd: options.cwd,
          timeout: options.deadlineMs,
          killSignal: 'SIGKILL',
          maxBuffer: outputBytesMax,
          ...(options.user === null ? {} : { uid: options.user.uid, gid: options.user.gid }),
        },
        (error, stdout, stderr) => {
          const output = `${stdout}${stderr}`.trim()
          if (error === null) resolve({ status: 0, output })
          else if (typeof error.code === 'number') resolve({ status: error.code, output })
          else resolve({ status: null, output: `${error.message}\n${output}`.trim() })
        },
      )
      child.stdin?.on('error', () => {
        // A program that ended without reading its input shows the reason by its status.
      })
      child.stdin?.end(options.input ?? '')
    } catch (error) {
      resolve({ status: null, output: String(error) })
    }
  })
}

/**
 * Starts a program that outlives a signal to this process group: Ctrl-C reaches the node alone,
 * which then stops it in order.
 */
export function startDetached(
  program: string,
  args: readonly string[],
  options: {
    readonly user: SystemUser | null
    readonly cwd: string
    readonly stdio: ['ignore' | 'pipe', 'ignore', 'ignore' | 'pipe']
  },
): ReturnType<typeof spawn> {
  return spawn(program, [...args], {
    env: childEnvironment,
    cwd: options.cwd,
    stdio: options.stdio,
    detached: true,
    ...(options.user === null ? {} : { uid: options.user.uid, gid: options.user.gid }),
  })
}
