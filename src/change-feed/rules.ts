/**
 * The rules of the cache protocol (docs: `src/change-feed/SPEC.md`, `src/cache/SPEC.md`) that the
 * state machines hold. All are on. The simulator switches one off to show that its absence is
 * noticed; nothing else does.
 */
export type Rules = {
  /** R2: silence on Cluster Link proves nothing. */
  readonly hintsUntrusted: boolean
  /** R5: a fill is kept only if no change that it did not see touches it. */
  readonly fillsFenced: boolean
  /** R5: a change detaches running fills that it touches. */
  readonly fillsDetached: boolean
  /** R6: hits are fresh only while the lease holds. */
  readonly lease: boolean
  /** R6: a poll alone proves nothing; the heartbeat counter must have advanced. */
  readonly heartbeat: boolean
  /** R7: a read with a token sees the write. */
  readonly tokens: boolean
  /** R9: entries of the second level are checked against this node's own ring. */
  readonly secondLevelChecked: boolean
  /** R11: what another epoch says does not count. */
  readonly epoch: boolean
  /** R11: a cursor older than the kept changes flushes. */
  readonly trimmedFlush: boolean
  /** R12: the row before a change counts as well as the row after it. */
  readonly rowBefore: boolean
}

export const everyRule: Rules = Object.freeze({
  hintsUntrusted: true,
  fillsFenced: true,
  fillsDetached: true,
  lease: true,
  heartbeat: true,
  tokens: true,
  secondLevelChecked: true,
  epoch: true,
  trimmedFlush: true,
  rowBefore: true,
})
