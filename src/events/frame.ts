/**
 * A piece of a stream in the form of server-sent events, made once for all the clients that get it.
 * `chunk` is the same as `text` with the frame of HTTP's chunked coding around it.
 */
export type Frame = { readonly chunk: Buffer; readonly text: Buffer }

export function frameOf(text: string): Frame {
  const bytes = Buffer.byteLength(text)
  const head = `${bytes.toString(16)}\r\n`
  const chunk = Buffer.from(`${head}${text}\r\n`)
  return { chunk, text: chunk.subarray(head.length, head.length + bytes) }
}

/** One event as text, without the empty line that ends it. `data` is JSON without line breaks. */
export function eventText(name: string, data: unknown): string {
  return `event: ${name}\ndata: ${JSON.stringify(data)}\n`
}

/**
 * The events of one batch. Only the last one has the cursor: a client that was cut before it gets
 * the whole batch again, and drops what it knows by the events' own ids.
 */
export function batchText(events: readonly string[], cursor: string): string {
  return `${events.join('\n')}id: ${cursor}\n\n`
}

/** Moves the cursor of a client without an event, and keeps the connection in use. */
export function cursorText(cursor: string): string {
  return `id: ${cursor}\n\n`
}
