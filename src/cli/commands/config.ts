import type { Register } from '#cli/command.ts'
import { printableConfig } from '#config/config.ts'

/**
 * `stoa config`: every setting with its value, source and help; secrets are hidden. It also runs
 * when the configuration is wrong, because it is the command with which one looks for the mistake.
 */
export const registerConfig: Register = (program, action) => {
  program
    .command('config')
    .description('print every setting with its value and the source of the value')
    .option('--help-texts', 'also print the flag and the description of each setting')
    .addHelpText(
      'after',
      '\nExit status: 0 the configuration can be used; 2 it cannot, and the problems are listed.',
    )
    .action(
      action(
        async ({ reading, output }, _args, options) => {
          const { invalid, problems } = reading
          const printed = printableConfig(reading.config).map((setting) =>
            invalid.has(setting.name) ? { ...setting, value: '(not valid)' } : setting,
          )
          output.result({ settings: printed, problems })
          const withHelp = options['helpTexts'] === true
          output.table([
            ['SETTING', 'VALUE', 'FROM', 'VARIABLE', ...(withHelp ? ['FLAG', 'DESCRIPTION'] : [])],
            ...printed.map(({ name, value, source, env, flag, help }) => {
              const row = [name, valueText(value), source, env]
              return withHelp ? [...row, flag, help] : row
            }),
          ])
          for (const problem of problems) output.line(`! ${problem}`)
          return problems.length === 0 ? 0 : 2
        },
        { invalidConfig: true },
      ),
    )
}

function valueText(value: unknown): string {
  if (value === null) return '(unset)'
  if (Array.isArray(value)) return value.join(',') || '(none)'
  return typeof value === 'string' ? value : JSON.stringify(value)
}
