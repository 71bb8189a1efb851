import { linkTextMax } from '#cluster-link/cluster-link.ts'
import { LinkMessageError } from '#cluster-link/errors.ts'

const channelPattern = /^[a-z][a-z0-9-]{0,30}$/
const textPattern = /^[\x20-\x7e]*$/

/** Every driver refuses the same, so that a message which one of them carries is carried by all. */
export function checkMessage(channel: string, text: string): void {
  if (!channelPattern.test(channel))
    throw new LinkMessageError(
      `A channel of Cluster Link is up to 31 of a–z, 0–9 and "-", not "${channel.slice(0, 40)}".`,
    )
  if (text.length > linkTextMax || !textPattern.test(text))
    throw new LinkMessageError(
      `Cluster Link carries up to ${linkTextMax} characters of ASCII; send a key instead.`,
      { length: text.length },
    )
}
