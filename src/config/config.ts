import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { ConfigError } from '#config/errors.ts'
import { otherVariables, settings } from '#config/settings.ts'
import type { Setting, SettingName, Settings } from '#config/settings.ts'

export type Source = 'default' | 'stoa.config.ts' | 'environment' | 'flag'

export type Config = Settings & {
  /** Where each value came from. */
  readonly sources: Readonly<Record<SettingName, Source>>
}

export type ConfigInput = {
  /** What `stoa.config.ts` exports: setting names with values as text, number, boolean or list. */
  readonly file: Readonly<Record<string, unknown>>
  readonly environment: Readonly<Record<string, string | undefined>>
  /** By setting name, as text. */
  readonly flags: Readonly<Partial<Record<SettingName, string>>>
}

export const settingNames = Object.keys(settings) as SettingName[]

/**
 * Defaults < file < environment < flags. Throws one `ConfigError` that names every bad value, where
 * it came from, and what is allowed there.
 */
export function resolveConfig(input: ConfigInput): Config {
  const problems: string[] = []
  const values: Record<string, unknown> = {}
  const sources = {} as Record<SettingName, Source>
  for (const name of settingNames) {
    const setting: Setting<unknown> = settings[name]
    const found = find(name, setting, input)
    sources[name] = found?.source ?? 'default'
    values[name] = setting.fallback
    if (found === null) continue
    try {
      values[name] = setting.parse(found.text)
    } catch (error) {
      const shown = setting.secret || setting.url ? '' : `, not ${JSON.stringify(found.text)}`
      problems.push(`${found.where} ${(error as Error).message}${shown}`)
    }
  }
  problems.push(...unknownNames(input))
  if (problems.length > 0) throw new ConfigError(problems)
  return { ...(values as Settings), sources }
}

type Found = { readonly source: Source; readonly where: string; readonly text: string }

function find(name: SettingName, setting: Setting<unknown>, input: ConfigInput): Found | null {
  const flag = input.flags[name]
  if (flag !== undefined) return { source: 'flag', where: setting.flag, text: flag }
  const variable = input.environment[setting.env]
  if (variable !== undefined && variable !== '')
    return { source: 'environment', where: setting.env, text: variable }
  const value = input.file[name]
  if (value === undefined || value === null) return null
  const text = Array.isArray(value)
    ? value.join(',')
    : typeof value === 'string'
      ? value
      : JSON.stringify(value)
  return { source: 'stoa.config.ts', where: `${name} in stoa.config.ts`, text }
}

function unknownNames(input: ConfigInput): string[] {
  const variables = new Set<string>([
    ...settingNames.map((name) => settings[name].env),
    ...otherVariables,
  ])
  const problems: string[] = []
  for (const variable of Object.keys(input.environment)) {
    if (
      !variable.startsWith('STOA_') ||
      variable.startsWith('STOA_TEST_') ||
      variables.has(variable)
    )
      continue
    problems.push(`${variable} is not a setting; see them all with: stoa config`)
  }
  for (const name of Object.keys(input.file)) {
    if (!settingNames.includes(name as SettingName))
      problems.push(`${name} in stoa.config.ts is not a setting; see them all with: stoa config`)
  }
  return problems
}

/** Reads `stoa.config.ts` (or the file named by `STOA_CONFIG`), the environment and the flags. */
export async function loadConfig(
  flags: ConfigInput['flags'],
  environment: ConfigInput['environment'],
  folder: string,
): Promise<Config> {
  const named = environment['STOA_CONFIG']
  const path = resolve(folder, named ?? 'stoa.config.ts')
  if (!existsSync(path)) {
    if (named !== undefined)
      throw new ConfigError([`STOA_CONFIG names ${path}, which does not exist`])
    return resolveConfig({ file: {}, environment, flags })
  }
  return resolveConfig({ file: await loadFile(path), environment, flags })
}

async function loadFile(path: string): Promise<Readonly<Record<string, unknown>>> {
  let module: { readonly config?: unknown; readonly default?: unknown }
  try {
    module = (await import(pathToFileURL(path).href)) as typeof module
  } catch (error) {
    throw new ConfigError([`${path} cannot be loaded: ${(error as Error).message}`])
  }
  const file = module.config ?? module.default
  if (typeof file !== 'object' || file === null || Array.isArray(file)) {
    throw new ConfigError([`${path} must export an object named config`])
  }
  return file as Record<string, unknown>
}

export type PrintedSetting = {
  readonly name: SettingName
  readonly value: unknown
  readonly source: Source
  readonly env: string
  readonly flag: string
  readonly help: string
}

/** Every effective value with its source, safe to show: secrets and passwords are hidden. */
export function printableConfig(config: Config): PrintedSetting[] {
  return settingNames.map((name) => {
    const setting: Setting<unknown> = settings[name]
    const value = printable(setting, config[name])
    return {
      name,
      value,
      source: config.sources[name],
      env: setting.env,
      flag: setting.flag,
      help: setting.help,
    }
  })
}

function printable(setting: Setting<unknown>, value: unknown): unknown {
  if (value === null) return null
  if (setting.secret) return '(hidden)'
  return setting.url && typeof value === 'string' ? hidePassword(value) : value
}

/**
 * By text, not by `URL`: URLs with several hosts do not parse. One that was cut off before its host
 * still has its password in it; only a port may stand there.
 */
export function hidePassword(url: string): string {
  return url
    .replace(/^([a-z0-9]+:\/\/[^:@/]*):.*@/, '$1:(hidden)@')
    .replace(/^([a-z0-9]+:\/\/(?!\[)[^:@/]*):(?!\d{1,5}(?:[/?,]|$))[^@]*$/, '$1:(hidden)')
    .replace(/([?&](?:ssl)?password=)[^&]*/gi, '$1(hidden)')
}
