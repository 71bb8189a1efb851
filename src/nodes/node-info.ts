/**
 * The description that a node gives of itself. `fingerprint` covers what must be the same
 * everywhere, and `traits` are what went into it.
 */
export type NodeInfo = {
  readonly name: string
  readonly address: string | null
  readonly version: string
  readonly fingerprint: string
  readonly traits?: Readonly<Record<string, string>>
  /** Those that it can take. */
  readonly duties?: readonly string[]
  /**
   * Where only one process can be at a time: a node that comes to the same place is the successor
   * of the one that was there.
   */
  readonly place?: string
  /** It does not serve yet, and is not called. */
  readonly starting?: true | undefined
}

/** Reads a description from the table of nodes; one that cannot be read is that of a stranger. */
export function parseNodeInfo(id: string, text: string): NodeInfo {
  const info: unknown = JSON.parse(text)
  return isNodeInfo(info)
    ? info
    : { name: id, address: null, version: 'unknown', fingerprint: 'unknown' }
}

function isNodeInfo(info: unknown): info is NodeInfo {
  if (typeof info !== 'object' || info === null) return false
  const { name, address, version, fingerprint, traits, duties } = info as Record<string, unknown>
  return (
    [name, version, fingerprint].every((text) => typeof text === 'string') &&
    (address === null || typeof address === 'string') &&
    (traits === undefined || (typeof traits === 'object' && traits !== null)) &&
    (duties === undefined || Array.isArray(duties))
  )
}
