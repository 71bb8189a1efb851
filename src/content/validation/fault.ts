/**
 * What is wrong with one value. `path` is a JSON pointer (RFC 6901), `message` a sentence for
 * people.
 */
export type Fault = { readonly path: string; readonly code: FaultCode; readonly message: string }

export type FaultCode =
  | 'required'
  | 'unknown'
  | 'kind'
  | 'text'
  | 'format'
  | 'pattern'
  | 'option'
  | 'tooShort'
  | 'tooLong'
  | 'tooSmall'
  | 'tooLarge'
  | 'tooMany'
  | 'tooDeep'
  | 'duplicate'
  | 'link'
  | 'target'
  | 'definition'
  | 'hidden'

/** More faults than this help no reader: the rest is left out. */
const faultsMax = 100

/**
 * Collects the faults of one validation. Without `kept` they are dropped: a walk that looks for
 * something else ends for none.
 */
export class Faults {
  readonly list: Fault[] = []
  readonly #kept: boolean

  constructor(options: { readonly kept: boolean } = { kept: true }) {
    this.#kept = options.kept
  }

  add(path: string, code: FaultCode, message: string): void {
    if (this.#kept && this.list.length < faultsMax) this.list.push({ path, code, message })
  }

  get full(): boolean {
    return this.list.length >= faultsMax
  }
}

/** One step of a JSON pointer, escaped. */
export function step(path: string, name: string | number): string {
  const escaped = typeof name === 'number' ? name : name.replaceAll('~', '~0').replaceAll('/', '~1')
  return `${path}/${escaped}`
}
