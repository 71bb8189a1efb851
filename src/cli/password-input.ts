import { randomInt } from 'node:crypto'
import { isCancel, password as ask } from '@clack/prompts'
import { UsageError } from '#lib/usage-error.ts'

/** Longest line that is read: past it no password is meant. */
const lineBytesMax = 4_096

/** Letters and digits that nobody mistakes for one another; 24 of them are 136 bits. */
const letters = 'abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789'
const generatedLength = 24

type Input = NodeJS.ReadableStream & { readonly isTTY?: boolean }
type Options = Readonly<Record<string, unknown>>

/**
 * A new password: made with `--generate-password`, read with `--password-stdin`, or asked for on a
 * terminal. Never an argument: those stand in the list of processes and in the shell's history.
 * `generated` must be shown, once.
 */
export async function newPassword(
  options: Options,
  input: Input,
): Promise<{ password: string; generated: boolean }> {
  if (options['generatePassword'] === true) return { password: generatePassword(), generated: true }
  if (options['passwordStdin'] === true)
    return { password: await firstLine(input), generated: false }
  if (input.isTTY !== true)
    throw new UsageError(
      'Nobody can be asked for the password here; add --password-stdin or --generate-password.',
    )
  const password = await ask({ message: 'New password (at least 12 characters)' })
  if (isCancel(password)) throw new UsageError('No password was given; nothing was done.')
  const again = await ask({ message: 'The same again' })
  if (isCancel(again) || again !== password)
    throw new UsageError('The two are not the same; nothing was done.')
  return { password, generated: false }
}

function generatePassword(): string {
  return Array.from({ length: generatedLength }, () => letters[randomInt(letters.length)]!).join('')
}

async function firstLine(input: Input): Promise<string> {
  let text = ''
  for await (const chunk of input) {
    text += String(chunk)
    if (text.includes('\n') || text.length > lineBytesMax) break
  }
  return text.split(/\r?\n/, 1)[0]!
}
