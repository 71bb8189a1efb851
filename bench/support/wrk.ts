import { execFile, execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'

/**
 * What to send, over and over, from `connections` connections: the paths in turn from a random
 * start.
 */
export type Load = {
  readonly origin: string
  readonly paths: readonly string[]
  /** Lua that ends a path, from `counter`. */
  readonly queryLua?: string
  readonly method?: 'GET' | 'PATCH'
  /** Lua that makes the body from `counter`, a number that differs for each request. */
  readonly bodyLua?: string
  readonly headers?: Readonly<Record<string, string>>
  /**
   * This share of the requests writes instead: PATCH to one of these paths, with these headers and
   * this body (Lua, from `counter`).
   */
  readonly writes?: {
    readonly share: number
    readonly paths: readonly string[]
    readonly headers: Readonly<Record<string, string>>
    readonly bodyLua: string
  }
  readonly connections: number
  readonly seconds: number
}

export function wrkMissing(): string | null {
  try {
    execFileSync('wrk', ['--version'], { stdio: 'ignore' })
    return null
  } catch (error) {
    // wrk prints its version with status 1; only a missing program counts.
    return (error as NodeJS.ErrnoException).code === 'ENOENT'
      ? 'wrk is missing: install the package wrk'
      : null
  }
}

/** Requests per second, all with a 2xx response; it throws when one failed. */
export async function requestsPerSecond(load: Load, folder: string): Promise<number> {
  const script = join(folder, `load-${process.hrtime.bigint()}.lua`)
  const table = (headers: Readonly<Record<string, string>>): string =>
    `{${Object.entries(headers)
      .map(([name, value]) => `[${JSON.stringify(name)}]=${JSON.stringify(value)}`)
      .join(',')}}`
  const list = (texts: readonly string[]): string =>
    `{${texts.map((text) => JSON.stringify(text)).join(',')}}`
  const { writes } = load
  const method = load.method ?? 'GET'
  const query = load.queryLua === undefined ? '' : ` .. ${load.queryLua}`
  const write =
    writes === undefined
      ? ''
      : `
  if math.random() < ${writes.share} then
    return wrk.format("PATCH", written[math.random(#written)], writeHeaders, ${writes.bodyLua})
  end`
  writeFileSync(
    script,
    `local paths = ${list(load.paths)}
local headers = ${table(load.headers ?? {})}
local written = ${list(writes?.paths ?? [])}
local writeHeaders = ${table(writes?.headers ?? {})}
math.randomseed(os.time())
local counter = math.random(1000000000)
local at = math.random(#paths)
request = function()
  at = at % #paths + 1
  counter = counter + 1${write}
  return wrk.format("${method}", paths[at]${query}, headers, ${load.bodyLua ?? 'nil'})
end
done = function(summary, latency, requests)
  local errors = summary.errors
  local broken = errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format("RESULT %d %d %d %d\\n",
    summary.requests, summary.duration, errors.status, broken))
end
`,
  )
  const args = ['-t1', `-c${load.connections}`, `-d${load.seconds}s`, '-s', script, load.origin]
  const { stdout } = await promisify(execFile)('wrk', args)
  const match = /RESULT (\d+) (\d+) (\d+) (\d+)/.exec(stdout)
  if (match === null) throw new Error(`wrk said:\n${stdout}`)
  const [requests = 0, microseconds = 1, badStatus = 0, broken = 0] = match.slice(1).map(Number)
  if (badStatus + broken > 0)
    throw new Error(
      `${badStatus} responses were not 2xx and ${broken} requests broke at ` +
        `${load.origin}${load.paths[0]}`,
    )
  return requests / (microseconds / 1e6)
}
