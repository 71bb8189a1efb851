import type { Register } from '#cli/command.ts'
import { UsageError } from '#lib/usage-error.ts'

const unitsMs: Readonly<Record<string, number>> = {
  h: 3_600_000,
  d: 86_400_000,
  w: 604_800_000,
  y: 365 * 86_400_000,
}

/** `stoa token create|list|delete`. */
export const registerToken: Register = (program, action) => {
  const token = program.command('token').description('API tokens, for programs')
  token
    .command('create <name>')
    .description('create an API token and print it; it cannot be shown again')
    .requiredOption('--role <role...>', 'role of the token; several are possible')
    .option(
      '--expires-in <time>',
      'lifetime, such as 12h, 90d, 4w or 1y; default: until it is deleted',
    )
    .action(
      action(async ({ withSite, output }, [name = ''], options) => {
        const expiresAt =
          typeof options['expiresIn'] === 'string'
            ? expiryFrom(options['expiresIn'], Date.now())
            : null
        await withSite(async ({ access, database }) => {
          const created = await access.tokens.create(database, access.systemIdentity, {
            name,
            roles: options['role'] as string[],
            expiresAt,
          })
          output.result(created)
          output.line(created.token)
        })
      }),
    )
  token
    .command('list')
    .description('list all API tokens, without their secrets')
    .action(
      action(async ({ withSite, output }) =>
        withSite(async ({ access }) => {
          const tokens = await access.tokens.list()
          output.result({ tokens })
          const rows = tokens.map((each) => [
            each.id,
            `${each.hint}…`,
            each.name,
            each.roles.join(','),
            each.expiresAt ?? 'never',
            each.lastUsedAt ?? 'never',
          ])
          output.table([['ID', 'TOKEN', 'NAME', 'ROLES', 'EXPIRES', 'LAST USED'], ...rows])
        }),
      ),
    )
  token
    .command('delete <id>')
    .description('delete an API token; requests with it are refused from then on')
    .action(
      action(async ({ withSite, output }, [id = '']) =>
        withSite(async ({ access, database }) => {
          await access.tokens.delete(database, access.systemIdentity, id)
          output.result({ deleted: id })
          output.line(`Deleted ${id}.`)
        }),
      ),
    )
}

/** Adds a time such as `90d` to `nowMs`, as an ISO 8601 instant. */
export function expiryFrom(text: string, nowMs: number): string {
  const match = /^([1-9]\d{0,4})([hdwy])$/.exec(text)
  const expiryMs = match === null ? Number.NaN : nowMs + Number(match[1]) * unitsMs[match[2]!]!
  // ISO 8601 has four digits for the year.
  if (!(expiryMs < Date.parse('9999-12-31T00:00:00Z')))
    throw new UsageError('--expires-in is a number and h, d, w or y: 12h, 90d, 4w, 1y.')
  return new Date(expiryMs).toISOString()
}
