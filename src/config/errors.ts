import { StoaError } from '#lib/stoa-error.ts'

/** The configuration cannot be used; `problems` lists every problem, not just the first. */
export class ConfigError extends StoaError {
  readonly code = 'E_CONFIG'
  readonly problems: readonly string[]

  constructor(problems: readonly string[]) {
    const count = problems.length === 1 ? 'a problem' : `${problems.length} problems`
    super(`The configuration has ${count}:\n${problems.map((each) => `  - ${each}`).join('\n')}`, {
      problems,
    })
    this.problems = problems
  }
}
