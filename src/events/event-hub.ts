import type { Access, Credentials, Identity } from '#access/access.ts'
import { compareEpochs } from '#change-feed/epoch.ts'
import type { ChangeFeed, FeedNews } from '#change-feed/feed.ts'
import { DatabaseAwayError } from '#cache/errors.ts'
import type { Authority } from '#content/authority.ts'
import type { Content } from '#content/content.ts'
import type { Database } from '#database/database.ts'
import type { Clock } from '#lib/clock.ts'
import { FailureLog } from '#lib/failure-log.ts'
import type { Logger } from '#lib/logger.ts'
import { StoaError } from '#lib/stoa-error.ts'
import { CatchUp } from '#events/catch-up.ts'
import type { CaughtUp } from '#events/catch-up.ts'
import { formatCursor, parseCursor } from '#events/cursor.ts'
import type { Cursor } from '#events/cursor.ts'
import { entryChanges } from '#events/entry-changes.ts'
import type { TransactionChange } from '#events/entry-changes.ts'
import { EventGroup, groupKey, unseen } from '#events/event-group.ts'
import type { Watched } from '#events/event-group.ts'
import { changesAccess, EventReader, ReaderCheck, readerKey } from '#events/event-readers.ts'
import { EventStream } from '#events/event-stream.ts'
import type { Sink } from '#events/event-stream.ts'
import { batchText, cursorText, eventText, frameOf } from '#events/frame.ts'
import type { Frame } from '#events/frame.ts'

/** Each stream gets something at least this often. */
const heartbeatMs = 15_000
/** The streams take turns, so that a heartbeat of all of them does not hold up an event. */
const heartbeatSlots = 60
/** Changes that wait to be sent; past them the streams get what they miss from the database. */
const waitingChangesMax = 50_000
/** A client that was cut comes again after this, and up to as much later. */
const retryMs = 500

export type StreamRequest = {
  readonly credentials: Credentials
  readonly identity: Identity
  readonly watched: Watched
  /** The cursor of the client's last event; null: it begins now. */
  readonly lastEventId: string | null
}

export type EventHubOptions = {
  readonly feed: ChangeFeed
  readonly database: Database
  readonly access: Access
  readonly content: Content
  readonly clock: Clock
  readonly logger: Logger
}

type Batch = Extract<FeedNews, { kind: 'flush' | 'apply' }>

/**
 * Sends the clients of this node what happens to entries. One batch of the change feed after the
 * other: first the rights and the model are brought to what they are as of the batch, then each
 * group of equal streams gets its events. A stream that has missed some gets them from the
 * database.
 */
export class EventHub {
  readonly #options: EventHubOptions
  readonly #subscription: Disposable
  readonly #heartbeats: NodeJS.Timeout
  readonly #check: ReaderCheck
  readonly #catchUp: CatchUp
  readonly #failures: FailureLog
  readonly #readers = new Map<string, EventReader>()
  readonly #groups = new Map<string, EventGroup>()
  readonly #slots = Array.from({ length: heartbeatSlots }, () => new Set<EventStream>())
  readonly #queue: Batch[] = []
  #waitingChanges = 0
  #isWorking = false
  #isClosed = false
  /** The streams without a position have been sent everything up to it. */
  #cursor: Cursor | null = null
  #opened = 0
  #beats = 0
  /** Grows with each change of rights or of the model. */
  #revision = 0

  constructor(options: EventHubOptions) {
    this.#options = options
    this.#check = new ReaderCheck(options)
    this.#failures = new FailureLog(options.logger, {
      failing: 'events could not be sent; the streams end, and clients come again',
      recovered: 'events are sent again',
    })
    this.#catchUp = new CatchUp({
      ...options,
      arrived: () => this.#work(),
      lost: (streams) => streams.forEach((stream) => this.#end(stream)),
    })
    this.#heartbeats = setInterval(() => this.#beat(), heartbeatMs / heartbeatSlots).unref()
    this.#subscription = options.feed.subscribe((news) => this.#receive(news))
  }

  get streams(): number {
    return this.#slots.reduce((sum, slot) => sum + slot.size, 0)
  }

  /**
   * Begins a stream, after a first frame. Errors, before anything is sent: those of a list with the
   * same filter. The caller closes it when the client has left.
   */
  async open(request: StreamRequest, sink: Sink): Promise<Disposable> {
    const { watched, identity, credentials } = request
    if (this.#cursor === null)
      throw new DatabaseAwayError('This node has not read the changes yet; try again shortly.')
    const revision = this.#revision
    const group = await this.#groupOf(identity.authority, watched)
    if (this.#isClosed) {
      sink.write(frameOf(`retry: ${retryMs}\n\n`))
      sink.end()
      return { [Symbol.dispose]: () => undefined }
    }
    this.#groups.set(group.key, group)
    if (revision !== this.#revision) group.isStale = true
    const reader = this.#readerOf(credentials, identity)
    const stream = new EventStream({
      reader,
      group,
      position: null,
      sink,
      slot: this.#opened % heartbeatSlots,
    })
    this.#opened += 1
    group.streams.add(stream)
    reader.streams.add(stream)
    this.#slots[stream.slot]!.add(stream)
    this.#greet(stream, request.lastEventId)
    this.#work()
    return { [Symbol.dispose]: () => this.#forget(stream) }
  }

  /** The node leaves: its clients go to others. */
  drain(): void {
    this.#isClosed = true
    clearInterval(this.#heartbeats)
    this.#subscription[Symbol.dispose]()
    this.#catchUp.stop()
    this.#queue.length = 0
    for (const slot of this.#slots) for (const stream of slot) this.#end(stream)
  }

  #greet(stream: EventStream, lastEventId: string | null): void {
    const retry = `retry: ${retryMs + ((this.#opened * 7_919) % retryMs)}\n`
    const cursor = this.#cursor!
    if (lastEventId === null) {
      stream.send(frameOf(retry + cursorText(formatCursor(cursor))))
      return
    }
    stream.send(frameOf(`${retry}\n`))
    const known = parseCursor(lastEventId)
    if (known?.epoch === cursor.epoch) {
      stream.position = known.snapshot
      this.#catchUp.add(stream)
    } else this.#restart([stream], known === null ? 'unknown' : 'epoch')
  }

  #readerOf(credentials: Credentials, identity: Identity): EventReader {
    const key = readerKey(credentials)
    const reader = this.#readers.get(key) ?? new EventReader(key, credentials, identity)
    this.#readers.set(key, reader)
    // Its rights may have changed since the request was identified.
    reader.isStale = true
    return reader
  }

  async #groupOf(authority: Authority, watched: Watched): Promise<EventGroup> {
    const known = this.#groups.get(groupKey(authority, watched))
    if (known !== undefined && !known.isStale) return known
    const { content, database } = this.#options
    const watch = await content.watches.open({ db: database, authority }, watched.watch)
    return (
      this.#groups.get(groupKey(authority, watched)) ?? new EventGroup(authority, watched, watch)
    )
  }

  #receive(news: FeedNews): void {
    if (news.kind !== 'apply' && news.kind !== 'flush') return
    const isAlone = this.#readers.size === 0 && !this.#isWorking
    const epoch = news.kind === 'flush' ? news.epoch : this.#cursor?.epoch
    if (isAlone && epoch !== undefined) {
      // A stream that is being opened right now may have the rights of before this batch.
      if (news.kind === 'flush' || news.changes.length > 0) this.#revision += 1
      this.#cursor = { epoch, snapshot: news.cursor }
      return
    }
    this.#queue.push(news)
    this.#waitingChanges += news.kind === 'apply' ? news.changes.length : 0
    this.#work()
  }

  /** Does what there is to do, one thing after the other. */
  #work(): void {
    if (this.#isWorking || this.#isClosed) return
    this.#isWorking = true
    void this.#rounds()
      .then(() => this.#failures.success())
      .catch((error: unknown) => {
        this.#failures.failure(error)
        for (const slot of this.#slots) for (const stream of slot) this.#end(stream)
      })
      .finally(() => {
        this.#isWorking = false
        if (this.#queue.length > 0) this.#work()
      })
  }

  async #rounds(): Promise<void> {
    await this.#refresh()
    for (;;) {
      this.#sendCaughtUp()
      const batch = this.#queue.shift()
      if (batch === undefined || this.#isClosed) return
      this.#waitingChanges -= batch.kind === 'apply' ? batch.changes.length : 0
      await this.#process(batch)
    }
  }

  async #process(batch: Batch): Promise<void> {
    const before = this.#cursor
    const epoch = batch.kind === 'flush' ? batch.epoch : before?.epoch
    if (epoch === undefined) return
    const cursor: Cursor = { epoch, snapshot: batch.cursor }
    if (batch.kind === 'flush') {
      await this.#flushed(before, cursor, batch.reason)
      return
    }
    if (this.#waitingChanges > waitingChangesMax) {
      await this.#flushed(before, cursor, 'too many')
      return
    }
    this.#noteChanges(batch.changes.map(({ collection }) => collection))
    await this.#refresh()
    const changes = entryChanges(batch.changes)
    this.#cursor = cursor
    if (changes === null) {
      this.#catchUp.clear()
      this.#restart(this.#all(), 'unrecorded')
      return
    }
    this.#catchUp.passed(changes)
    if (changes.length > 0) this.#sendToAll(changes, cursor)
  }

  #noteChanges(collections: readonly string[]): void {
    const readers = collections.some(changesAccess)
    const model = collections.includes('model')
    if (!readers && !model) return
    this.#revision += 1
    if (readers) for (const reader of this.#readers.values()) reader.isStale = true
    if (model) for (const group of this.#groups.values()) group.isStale = true
  }

  /**
   * The change feed has skipped changes. Those of the same epoch are still in the database; after
   * another epoch began, or where they are forgotten, clients have to begin anew.
   */
  async #flushed(before: Cursor | null, cursor: Cursor, reason: string): Promise<void> {
    this.#noteChanges(['role', 'model'])
    await this.#refresh()
    this.#cursor = cursor
    const isSame = before !== null && compareEpochs(before.epoch, cursor.epoch) === 'same'
    if (!isSame || reason === 'behind' || reason === 'regressed') {
      this.#catchUp.clear()
      if (before !== null) this.#restart(this.#all(), isSame ? 'behind' : 'epoch')
      return
    }
    for (const stream of this.#all()) {
      stream.position ??= before.snapshot
      this.#catchUp.add(stream)
    }
  }

  #sendToAll(changes: readonly TransactionChange[], cursor: Cursor): void {
    const id = formatCursor(cursor)
    for (const group of this.#groups.values()) {
      const events = group.eventsOf(changes, cursor.epoch)
      if (events.length === 0) continue
      const frame = frameOf(
        batchText(
          events.map(({ text }) => text),
          id,
        ),
      )
      for (const stream of group.streams) if (stream.position === null) this.#send(stream, frame)
    }
  }

  /** Streams whose missing changes have been read, now that this node has come as far. */
  #sendCaughtUp(): void {
    const cursor = this.#cursor
    if (cursor === null) return
    const caughtUp = this.#catchUp.take(cursor)
    if (caughtUp === null) return
    if (caughtUp.kind === 'restart') this.#restart(caughtUp.streams, 'behind')
    else this.#sendMissedTo(caughtUp, cursor)
  }

  #sendMissedTo({ streams, read, snapshot, passed, keptFrom }: CaughtUp, cursor: Cursor): void {
    const id = formatCursor(cursor)
    const frames = new Map<EventGroup, ReturnType<typeof missedOf>>()
    for (const stream of streams) {
      const { group, position } = stream
      if (position === null || !group.streams.has(stream)) continue
      stream.position = null
      if (keptFrom > position.xmin) {
        this.#restart([stream], 'behind')
        continue
      }
      const missed = frames.get(group) ?? missedOf(group, { read, passed, cursor })
      frames.set(group, missed)
      const events = [...unseen(missed.read, position), ...unseen(missed.passed, snapshot)]
      const text =
        events.length === 0
          ? cursorText(id)
          : batchText(
              events.map((e) => e.text),
              id,
            )
      this.#send(stream, frameOf(text))
    }
  }

  #restart(streams: readonly EventStream[], reason: RestartReason): void {
    const id = formatCursor(this.#cursor!)
    const frame = frameOf(`${eventText('restart', { reason })}id: ${id}\n\n`)
    for (const stream of streams) {
      stream.position = null
      this.#send(stream, frame)
    }
  }

  /** Brings readers and groups to the rights and the model of now. */
  async #refresh(): Promise<void> {
    const readers = [...this.#readers.values()]
    const expired = readers.filter((reader) => this.#check.isExpired(reader))
    const stale = readers.filter(({ isStale }) => isStale)
    const gone = stale.length === 0 ? [] : await this.#check.refresh(stale)
    for (const { streams } of [...gone, ...expired]) for (const stream of streams) this.#end(stream)
    for (const { authority, streams } of stale)
      for (const stream of streams)
        if (stream.group.key !== groupKey(authority, stream.group.watched))
          await this.#regroup(stream, authority)
    for (const group of this.#groups.values()) if (group.isStale) await this.#reopen(group)
  }

  async #regroup(stream: EventStream, authority: Authority): Promise<void> {
    const group = await this.#openOrNull(authority, stream.group.watched)
    if (group === null) {
      this.#end(stream)
      return
    }
    if (!stream.reader.streams.has(stream)) return
    this.#leave(stream)
    this.#groups.set(group.key, group)
    group.streams.add(stream)
    stream.group = group
  }

  async #reopen(group: EventGroup): Promise<void> {
    group.isStale = false
    try {
      const { database: db, content } = this.#options
      const call = { db, authority: group.authority }
      group.watch = await content.watches.open(call, group.watched.watch)
    } catch (error) {
      if (!(error instanceof StoaError)) throw error
      for (const stream of group.streams) this.#end(stream)
    }
  }

  /** Null: this reader may not ask for it any more. */
  async #openOrNull(authority: Authority, watched: Watched): Promise<EventGroup | null> {
    try {
      return await this.#groupOf(authority, watched)
    } catch (error) {
      if (!(error instanceof StoaError)) throw error
      return null
    }
  }

  #beat(): void {
    const slot = this.#slots[this.#beats % heartbeatSlots]!
    this.#beats += 1
    if (slot.size === 0 || this.#cursor === null) return
    const current = frameOf(cursorText(formatCursor(this.#cursor)))
    const waiting = frameOf(':\n\n')
    for (const stream of slot) {
      stream.reader.isStale = true
      // While a batch is being sent, the cursor may be ahead of what this stream has got.
      const isCurrent = stream.position === null && !this.#isWorking
      this.#send(stream, isCurrent ? current : waiting)
    }
    this.#work()
  }

  #send(stream: EventStream, frame: Frame): void {
    if (!stream.send(frame)) this.#forget(stream)
  }

  #end(stream: EventStream): void {
    stream.end()
    this.#forget(stream)
  }

  #forget(stream: EventStream): void {
    const { reader } = stream
    this.#leave(stream)
    this.#catchUp.remove(stream)
    this.#slots[stream.slot]!.delete(stream)
    reader.streams.delete(stream)
    if (reader.streams.size === 0 && this.#readers.get(reader.key) === reader)
      this.#readers.delete(reader.key)
  }

  #leave(stream: EventStream): void {
    const { group } = stream
    group.streams.delete(stream)
    if (group.streams.size === 0 && this.#groups.get(group.key) === group)
      this.#groups.delete(group.key)
  }

  #all(): EventStream[] {
    return this.#slots.flatMap((slot) => [...slot])
  }
}

type RestartReason = 'behind' | 'epoch' | 'unknown' | 'unrecorded'

function missedOf(
  group: EventGroup,
  { read, passed, cursor }: Pick<CaughtUp, 'read' | 'passed'> & { readonly cursor: Cursor },
) {
  return {
    read: group.eventsOf(read, cursor.epoch),
    passed: group.eventsOf(passed, cursor.epoch),
  }
}
