/**
 * What one connection may keep prepared, as an estimate of the memory that the server's process
 * takes for it. A test measures it; what comes often has a second plan, which may double it.
 */
const preparedBytesMax = 32 * 1024 * 1024
/** A plan takes this much, and so many times the length of its text. */
const planBytes = 8 * 1024
const planBytesPerCharacter = 64
/** Texts that were seen once and are prepared when they come again. */
const seenTextsMax = 200

/** How the rows of a statement look; it stays the same for as long as the statement is prepared. */
export type RowShape = {
  readonly names: readonly string[]
  readonly parsers: readonly ((text: string) => unknown)[]
}

export type PreparedStatement = {
  /** Unique on its connection, and never used again there. */
  readonly name: string
  readonly text: string
  /** Null until the statement has run once: it has to be sent to the server first. */
  shape: RowShape | null
}

/**
 * The prepared statements of one connection, the least recently used first. What does not fit any
 * more is closed on the server together with the next statement that is sent.
 */
export class PreparedStatements {
  readonly #statements = new Map<string, PreparedStatement>()
  readonly #seen = new Set<string>()
  #closing: string[] = []
  #bytes = 0
  #made = 0

  get count(): number {
    return this.#statements.size
  }

  /** The prepared statement of this text, or a new one. */
  of(text: string): PreparedStatement {
    const known = this.#statements.get(text)
    if (known !== undefined) {
      // Moves it to the end.
      this.#statements.delete(text)
      this.#statements.set(text, known)
      return known
    }
    this.#made += 1
    const made: PreparedStatement = { name: `s${this.#made}`, text, shape: null }
    this.#statements.set(text, made)
    this.#bytes += bytesOf(text)
    for (const oldest of this.#statements.values()) {
      if (this.#bytes <= preparedBytesMax || oldest === made) break
      this.forget(oldest)
    }
    return made
  }

  /** True if the text has been asked for before on this connection, as far as is remembered. */
  isRepeated(text: string): boolean {
    if (this.#statements.has(text)) return true
    if (this.#seen.delete(text)) return true
    this.#seen.add(text)
    for (const oldest of this.#seen) {
      if (this.#seen.size <= seenTextsMax) break
      this.#seen.delete(oldest)
    }
    return false
  }

  /** The statement failed, or another one needs its place. */
  forget(statement: PreparedStatement): void {
    if (this.#statements.get(statement.text) !== statement) return
    this.#statements.delete(statement.text)
    this.#bytes -= bytesOf(statement.text)
    this.#closing.push(statement.name)
  }

  /** The names that are to be closed on the server now. */
  takeClosing(): readonly string[] {
    if (this.#closing.length === 0) return []
    const closing = this.#closing
    this.#closing = []
    return closing
  }
}

function bytesOf(text: string): number {
  return planBytes + planBytesPerCharacter * text.length
}
