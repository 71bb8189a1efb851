/**
 * One unbroken life of the primary: `SYSTEM.TIMELINE.LIFE`. Transaction ids mean the same thing
 * only within one epoch: a failover can lose commits and give their ids out again, and so can a
 * plain crash (the id of a transaction whose records had not reached the disk). The server keeps
 * the text in an unlogged table, which both of them empty.
 */
export type Epoch = string

const pattern = /^(\d{1,20})\.(\d{1,10})\.(\d{1,15})$/

export function isEpoch(text: string): boolean {
  return pattern.test(text)
}

/**
 * How `one` stands to `other`. `other` systems cannot be ordered: a dump was restored somewhere
 * else. A smaller timeline or life is a primary that has been replaced: a zombie.
 */
export function compareEpochs(one: Epoch, other: Epoch): 'same' | 'older' | 'newer' | 'unrelated' {
  if (one === other) return 'same'
  const [, system, timeline = '', life = ''] = pattern.exec(one) ?? []
  const [, otherSystem, otherTimeline = '', otherLife = ''] = pattern.exec(other) ?? []
  if (system === undefined || otherSystem === undefined || system !== otherSystem)
    return 'unrelated'
  const difference = Number(timeline) - Number(otherTimeline) || Number(life) - Number(otherLife)
  return difference < 0 ? 'older' : difference > 0 ? 'newer' : 'same'
}
