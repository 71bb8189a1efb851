import type { Snapshot } from '#change-feed/snapshot.ts'
import type { EventGroup } from '#events/event-group.ts'
import type { EventReader } from '#events/event-readers.ts'
import type { Frame } from '#events/frame.ts'

/** A client that has left so much unread is cut when there is more for it. */
const unreadBytesMax = 64 * 1024

/** Where the frames of one client go. The API owns the connection behind it. */
export interface Sink {
  write(frame: Frame): void
  /** Bytes that the client has not read yet. */
  unreadBytes(): number
  /** The response ends; the client comes again, perhaps to another node. */
  end(): void
  /** Cuts the connection. */
  destroy(): void
}

/**
 * One client. Modes: `position` is set: it has seen less than this node has sent, and gets the rest
 * from the database; null: it gets what comes.
 */
export class EventStream {
  readonly reader: EventReader
  readonly slot: number
  group: EventGroup
  position: Snapshot | null
  readonly #sink: Sink

  constructor(parts: {
    readonly reader: EventReader
    readonly group: EventGroup
    readonly position: Snapshot | null
    readonly sink: Sink
    readonly slot: number
  }) {
    this.reader = parts.reader
    this.group = parts.group
    this.position = parts.position
    this.slot = parts.slot
    this.#sink = parts.sink
  }

  /** False: the client is too slow and was cut. It comes again with the last cursor that it got. */
  send(frame: Frame): boolean {
    if (this.#sink.unreadBytes() > unreadBytesMax) {
      this.#sink.destroy()
      return false
    }
    this.#sink.write(frame)
    return true
  }

  end(): void {
    this.#sink.end()
  }
}
