import { checks } from '#doctor/checks.ts'
import { settingNames } from '#config/config.ts'
import type { Setting } from '#config/settings.ts'
import { settings } from '#config/settings.ts'
import { runStoa } from '#test/support/command-line.ts'

/** Pages of docs/reference that are made from the code itself, by file name. */
export async function referencePages(): Promise<ReadonlyMap<string, string>> {
  return new Map([
    ['configuration.md', configurationPage()],
    ['cli.md', await commandLinePage()],
    ['doctor.md', doctorPage()],
  ])
}

function doctorPage(): string {
  const rows = checks.map(
    ({ name, looksAt, where }) =>
      `| \`${name}\` | ${where === 'node' ? 'every node' : 'one place'} | ${looksAt} |`,
  )
  return `# The doctor

Made from \`src/doctor/checks/\` by \`node test/write-reference.ts\`; a test compares them.

\`stoa doctor\` runs on any machine that has the configuration. It asks every node to inspect
itself and its machine, runs all checks at once, and ends within ten seconds, with status 0 if
nothing was found and 1 otherwise. Where no node can be asked it inspects the machine that it runs
on. \`--json\` is for programs, and \`GET /api/cluster/findings\` says the same to callers with the
permission \`cluster.manage\`. Each finding has its cure. \`error\` (\`!!\`): data or a guarantee is
in danger.

| check | where | what it inspects |
|---|---|---|
${rows.join('\n')}
`
}

function fallbackText(fallback: unknown): string {
  if (fallback === null) return 'unset'
  if (Array.isArray(fallback) && fallback.length === 0) return 'none'
  return `\`${typeof fallback === 'string' ? fallback : JSON.stringify(fallback)}\``
}

function configurationPage(): string {
  const rows = settingNames.map((name) => {
    const { env, flag, fallback, help }: Setting<unknown> = settings[name]
    const shown = fallbackText(fallback)
    return `| \`${name}\` | \`${env}\` | \`${flag}\` | ${shown} | ${help.replaceAll('|', '\\|')} |`
  })
  return `# Settings

Made from \`src/config/settings.ts\` by \`node test/write-reference.ts\`; a test compares them.

A setting comes from \`stoa.config.ts\` in the folder where the command runs, from the environment,
or from a flag; the last one wins. Flags stand before or after the command. \`stoa config\` prints
every value and its source, and hides secrets. It also runs when the configuration is wrong, and
lists what is wrong. Every other command refuses an unknown name or a bad value with exit status 2.

| in \`stoa.config.ts\` | variable | flag | default | what it does |
|---|---|---|---|---|
${rows.join('\n')}

\`\`\`ts
// stoa.config.ts
export const config = { port: 4001, logLevel: 'warn' }
\`\`\`

Two more variables steer the command itself: \`STOA_CONFIG\` names another file than
\`stoa.config.ts\`, and \`STOA_POSTGRES_BIN\` names the folder with the programs of the
PostgreSQL to embed.
`
}

/** Each command's own `--help`, found by following the commands that the help lists. */
async function commandLinePage(): Promise<string> {
  const sections: string[] = []
  const open: string[][] = [[]]
  for (let at = 0; at < open.length; at += 1) {
    const command = open[at]!
    const help = await helpOf(command)
    sections.push(`## ${['stoa', ...command].join(' ')}\n\n\`\`\`\n${help.trimEnd()}\n\`\`\`\n`)
    open.splice(at + 1, 0, ...subcommands(help).map((name) => [...command, name]))
  }
  return `# Commands

The output of \`stoa COMMAND --help\`, collected by \`node test/write-reference.ts\`; a test
compares them. Beside a running node, commands use its embedded database; without one they start it
for as long as they need it.

${sections.join('\n')}`
}

function subcommands(help: string): string[] {
  const listed = /^Commands:\n((?: {2}.*\n)+)/m.exec(help)?.[1] ?? ''
  return [...listed.matchAll(/^ {2}(\S+)/gm)]
    .map((match) => match[1]!)
    .filter((name) => name !== 'help')
}

async function helpOf(command: readonly string[]): Promise<string> {
  const { status, stdout, stderr } = await runStoa([...command, '--help'])
  if (status !== 0)
    throw new Error(`stoa ${command.join(' ')} --help ended with ${status}: ${stderr}`)
  return stdout
}
