import type { Register } from '#cli/command.ts'
import { printableConfig } from '#config/config.ts'
import { settings } from '#config/settings.ts'

/** `stoa config`: every effective value, where it came from and what it does; secrets hidden. */
export const registerConfig: Register = (program, action) => {
  program
    .command('config')
    .description('print every setting with its value and where that came from')
    .option('--help-texts', 'also say what each setting does, and its flag')
    .action(
      action(async ({ config, output }, _args, options) => {
        const printed = printableConfig(config)
        output.result({ settings: printed })
        const rows = printed.map(({ name, value, source, env, help }) => [
          name,
          shown(value),
          source,
          env,
          ...(options['helpTexts'] === true ? [settings[name].flag, help] : []),
        ])
        output.table([
          [
            'SETTING',
            'VALUE',
            'FROM',
            'VARIABLE',
            ...(options['helpTexts'] === true ? ['FLAG', 'WHAT IT DOES'] : []),
          ],
          ...rows,
        ])
      }),
    )
}

function shown(value: unknown): string {
  if (value === null) return '(unset)'
  if (Array.isArray(value)) return value.join(',') || '(none)'
  return typeof value === 'string' ? value : JSON.stringify(value)
}
