/**
 * One unbroken life of the primary: `PLACE.TIMELINE.NUMBER`, where PLACE is a hash of server,
 * database, table and a random identity: a copy of a database, on the same server too, has another.
 * Transaction ids mean the same thing only within one epoch: a failover can lose commits and reuse
 * their ids, and so can a plain crash (the id of a transaction whose records had not reached the
 * disk). The server keeps the text in an unlogged table, which both of them empty.
 */
export type Epoch = string

const pattern = /^([0-9a-f]{1,20})\.(\d{1,10})\.(\d{1,15})$/

export function isEpoch(text: string): boolean {
  return pattern.test(text)
}

/**
 * The order of two epochs. Those of two places are unrelated: a dump was restored. A smaller
 * timeline or number is a primary that has been replaced: a zombie.
 */
export function compareEpochs(one: Epoch, other: Epoch): 'same' | 'older' | 'newer' | 'unrelated' {
  if (one === other) return 'same'
  const [, place, timeline = '', number = ''] = pattern.exec(one) ?? []
  const [, otherPlace, otherTimeline = '', otherNumber = ''] = pattern.exec(other) ?? []
  if (place === undefined || otherPlace === undefined || place !== otherPlace) return 'unrelated'
  const difference =
    Number(timeline) - Number(otherTimeline) || Number(number) - Number(otherNumber)
  if (difference === 0) return 'same'
  return difference < 0 ? 'older' : 'newer'
}
