import { randomInt } from 'node:crypto'
import { isCancel, password as ask } from '@clack/prompts'
import type { CommandOptions } from '#cli/command.ts'
import { UsageError } from '#lib/usage-error.ts'

/** Longest line that is read; no password is longer. */
const lineBytesMax = 4_096

/** Letters and digits that look different from one another; 24 of them are 136 bits. */
const letters = 'abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789'
const generatedLength = 24

type Input = NodeJS.ReadableStream & { readonly isTTY?: boolean }

/** A generated password must be shown, once. */
export type NewPassword = { readonly password: string; readonly generated: boolean }

/**
 * Generates a password (`--generate-password`), reads it (`--password-stdin`), or asks for it on a
 * terminal. A password is never an argument, because the list of processes and the history of the
 * shell show arguments.
 */
export async function newPassword(options: CommandOptions, input: Input): Promise<NewPassword> {
  if (options['generatePassword'] === true) return { password: generatePassword(), generated: true }
  if (options['passwordStdin'] === true)
    return { password: await firstLine(input), generated: false }
  if (input.isTTY !== true)
    throw new UsageError(
      'There is no terminal to ask for the password; add --password-stdin or --generate-password.',
    )
  const password = await ask({ message: 'New password (at least 12 characters)' })
  if (isCancel(password)) throw new UsageError('No password was given; nothing was changed.')
  const again = await ask({ message: 'The same password again' })
  if (isCancel(again) || again !== password)
    throw new UsageError('The two passwords differ; nothing was changed.')
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
