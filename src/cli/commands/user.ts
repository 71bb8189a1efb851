import type { Command } from 'commander'
import type { User } from '#access/access.ts'
import type { Action, Register } from '#cli/command.ts'
import type { Output } from '#cli/output.ts'
import { newPassword } from '#cli/password-input.ts'

const pageSize = 200

/** `stoa user create|list|disable|enable|password`. */
export const registerUser: Register = (program, action) => {
  const user = program.command('user').description('users who can sign in')
  withPassword(user.command('create <email>').description('create a user'))
    .requiredOption(
      '--role <role...>',
      'what the user may do: administrator, editor, author, or a role of your own; several are possible',
    )
    .option('--name <name>', 'the name that others see; default: the email up to the @')
    .action(
      action(async ({ withSite, output }, [email = ''], options) => {
        const { password, generated } = await newPassword(options, process.stdin)
        await withSite(async ({ access, database }) => {
          const name = typeof options['name'] === 'string' ? options['name'] : email.split('@')[0]!
          const made = await access.users.create(database, access.systemIdentity, {
            email,
            name,
            password,
            roles: options['role'] as string[],
          })
          tell(
            output,
            made,
            `Created ${made.email} (${made.roles.join(', ')}).`,
            generated ? password : null,
          )
        })
      }),
    )
  withPassword(
    user.command('password <email>').description('set a new password; ends the user’s sessions'),
  ).action(
    action(async ({ withSite, output }, [email = ''], options) => {
      const { password, generated } = await newPassword(options, process.stdin)
      await withSite(async ({ access, database }) => {
        const { id } = await access.users.getByEmail(email)
        const changed = await access.users.update(database, access.systemIdentity, id, { password })
        tell(output, changed, `${changed.email} has a new password.`, generated ? password : null)
      })
    }),
  )
  registerState(user, action, 'disable', 'disabled', 'keep a user out; ends their sessions')
  registerState(user, action, 'enable', 'active', 'let a disabled user in again')
  user
    .command('list')
    .description('all users')
    .action(
      action(async ({ withSite, output }) =>
        withSite(async ({ access }) => {
          const all: User[] = []
          let after: string | null = null
          do {
            const page: { data: User[]; after: string | null } = await access.users.list({
              limit: pageSize,
              after,
            })
            all.push(...page.data)
            after = page.after
          } while (after !== null)
          output.result({ users: all })
          output.table([
            ['EMAIL', 'NAME', 'ROLES', 'STATE', 'LAST LOGIN'],
            ...all.map((each) => [
              each.email,
              each.name,
              each.roles.join(','),
              each.state,
              each.lastLoginAt ?? 'never',
            ]),
          ])
        }),
      ),
    )
}

function withPassword(command: Command): Command {
  return command
    .option('--password-stdin', 'read the password from the first line of standard input')
    .option('--generate-password', 'make a password and print it, once')
}

function registerState(
  user: Command,
  action: Action,
  verb: string,
  state: User['state'],
  description: string,
): void {
  user
    .command(`${verb} <email>`)
    .description(description)
    .action(
      action(async ({ withSite, output }, [email = '']) =>
        withSite(async ({ access, database }) => {
          const { id } = await access.users.getByEmail(email)
          const changed = await access.users.update(database, access.systemIdentity, id, { state })
          tell(output, changed, `${changed.email} is ${changed.state}.`, null)
        }),
      ),
    )
}

function tell(output: Output, user: User, sentence: string, password: string | null): void {
  output.result({ user, ...(password === null ? {} : { password }) })
  output.line(sentence)
  if (password !== null) output.line(`Password: ${password}`)
}
