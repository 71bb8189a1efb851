import type { Command } from 'commander'
import type { User } from '#access/access.ts'
import type { Action, Context, Register } from '#cli/command.ts'
import type { Output } from '#cli/output.ts'
import { newPassword } from '#cli/password-input.ts'

const pageSize = 200

/** `stoa user create|list|disable|enable|password`. */
export const registerUser: Register = (program, action) => {
  const user = program.command('user').description('manage the users who can sign in')
  registerCreate(user, action)
  registerPassword(user, action)
  registerStateChange(user, action, { verb: 'disable', state: 'disabled' })
  registerStateChange(user, action, { verb: 'enable', state: 'active' })
  user.command('list').description('list all users').action(action(listUsers))
}

const registerCreate: Register = (user, action) => {
  withPasswordOptions(user.command('create <email>').description('create a user'))
    .requiredOption(
      '--role <role...>',
      'role of the user: administrator, editor, author or one of your own; several are possible',
    )
    .option('--name <name>', 'name that others see; default: the email up to the @')
    .action(
      action(async ({ withSite, output }, [email = ''], options) => {
        const { password, generated } = await newPassword(options, process.stdin)
        await withSite(async ({ access, database }) => {
          const name = typeof options['name'] === 'string' ? options['name'] : email.split('@')[0]!
          const roles = options['role'] as string[]
          const input = { email, name, password, roles }
          const created = await access.users.create(database, access.systemIdentity, input)
          printUser(output, created, {
            sentence: `Created ${created.email} (${created.roles.join(', ')}).`,
            password: generated ? password : null,
          })
        })
      }),
    )
}

const registerPassword: Register = (user, action) => {
  withPasswordOptions(
    user.command('password <email>').description('set a new password and end the user’s sessions'),
  ).action(
    action(async ({ withSite, output }, [email = ''], options) => {
      const { password, generated } = await newPassword(options, process.stdin)
      await withSite(async ({ access, database }) => {
        const { id } = await access.users.getByEmail(email)
        const changed = await access.users.update(database, access.systemIdentity, id, { password })
        printUser(output, changed, {
          sentence: `${changed.email} has a new password.`,
          password: generated ? password : null,
        })
      })
    }),
  )
}

function withPasswordOptions(command: Command): Command {
  return command
    .option('--password-stdin', 'read the password from the first line of standard input')
    .option('--generate-password', 'generate a password and print it once')
}

type StateChange = { readonly verb: 'disable' | 'enable'; readonly state: User['state'] }

const stateChangeHelp = {
  disable: 'disable a user and end their sessions',
  enable: 'enable a disabled user again',
} as const

function registerStateChange(user: Command, action: Action, { verb, state }: StateChange): void {
  user
    .command(`${verb} <email>`)
    .description(stateChangeHelp[verb])
    .action(
      action(async ({ withSite, output }, [email = '']) =>
        withSite(async ({ access, database }) => {
          const { id } = await access.users.getByEmail(email)
          const changed = await access.users.update(database, access.systemIdentity, id, { state })
          const sentence = `${changed.email} is ${changed.state}.`
          printUser(output, changed, { sentence, password: null })
        }),
      ),
    )
}

async function listUsers({ withSite, output }: Context): Promise<void> {
  await withSite(async ({ access }) => {
    const users: User[] = []
    let after: string | null = null
    do {
      const page: { data: User[]; after: string | null } = await access.users.list({
        limit: pageSize,
        after,
      })
      users.push(...page.data)
      after = page.after
    } while (after !== null)
    output.result({ users })
    output.table([
      ['EMAIL', 'NAME', 'ROLES', 'STATE', 'LAST LOGIN'],
      ...users.map(({ email, name, roles, state, lastLoginAt }) => [
        email,
        name,
        roles.join(','),
        state,
        lastLoginAt ?? 'never',
      ]),
    ])
  })
}

type PrintedOutcome = { readonly sentence: string; readonly password: string | null }

function printUser(output: Output, user: User, { sentence, password }: PrintedOutcome): void {
  output.result(password === null ? { user } : { user, password })
  output.line(sentence)
  if (password !== null) output.line(`Password: ${password}`)
}
