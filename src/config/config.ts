import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { ConfigError } from '#config/errors.ts'
import { otherVariables, settings } from '#config/settings.ts'
import type { Setting, SettingName, Settings } from '#config/settings.ts'
import { closestName } from '#lib/closest-name.ts'

export type Source = 'default' | 'stoa.config.ts' | 'environment' | 'flag'

export type Config = Settings & {
  /** Where each value came from. */
  readonly sources: Readonly<Record<SettingName, Source>>
}

export type ConfigInput = {
  /** The exports of `stoa.config.ts`: setting names with a text, number, boolean or list. */
  readonly file: Readonly<Record<string, unknown>>
  readonly environment: Readonly<Record<string, string | undefined>>
  /** Setting names with the text of the flag. */
  readonly flags: Readonly<Partial<Record<SettingName, string>>>
}

/** The configuration as it was given, with everything that is wrong with it. */
export type ConfigReading = {
  /** Settings with a bad value have their default here. */
  readonly config: Config
  readonly invalid: ReadonlySet<SettingName>
  /** One line for each bad value: where it came from, and what is allowed there. */
  readonly problems: readonly string[]
}

export const settingNames = Object.keys(settings) as SettingName[]

/** Reads all settings: flags win over the environment, the file and the defaults, in this order. */
export function readConfig(input: ConfigInput): ConfigReading {
  const problems: string[] = []
  const values: Record<string, unknown> = {}
  const sources = {} as Record<SettingName, Source>
  const invalid = new Set<SettingName>()
  for (const name of settingNames) {
    const setting: Setting<unknown> = settings[name]
    const given = givenText(name, setting, input)
    sources[name] = given?.source ?? 'default'
    values[name] = setting.fallback
    if (given === null) continue
    try {
      values[name] = setting.parse(given.text)
    } catch (error) {
      invalid.add(name)
      const shown = setting.secret || setting.url ? '' : `, not ${JSON.stringify(given.text)}`
      problems.push(`${given.where} ${(error as Error).message}${shown}`)
    }
  }
  problems.push(...unknownNames(input))
  return { config: { ...(values as Settings), sources }, invalid, problems }
}

/** The configuration, or a `ConfigError` that names every problem. */
export function requireValid({ config, problems }: ConfigReading): Config {
  if (problems.length > 0) throw new ConfigError(problems)
  return config
}

type GivenText = { readonly source: Source; readonly where: string; readonly text: string }

function givenText(
  name: SettingName,
  setting: Setting<unknown>,
  input: ConfigInput,
): GivenText | null {
  const flag = input.flags[name]
  if (flag !== undefined) return { source: 'flag', where: setting.flag, text: flag }
  const variable = input.environment[setting.env]
  if (variable !== undefined && variable !== '')
    return { source: 'environment', where: setting.env, text: variable }
  const value = input.file[name]
  if (value === undefined || value === null) return null
  return { source: 'stoa.config.ts', where: `${name} in stoa.config.ts`, text: textOf(value) }
}

function textOf(value: unknown): string {
  if (Array.isArray(value)) return value.join(',')
  return typeof value === 'string' ? value : JSON.stringify(value)
}

function unknownNames(input: ConfigInput): string[] {
  const variables = [...settingNames.map((name): string => settings[name].env), ...otherVariables]
  const unknownVariables = Object.keys(input.environment).filter(
    (name) =>
      name.startsWith('STOA_') && !name.startsWith('STOA_TEST_') && !variables.includes(name),
  )
  const unknownKeys = Object.keys(input.file).filter(
    (name) => !settingNames.includes(name as SettingName),
  )
  return [
    ...unknownVariables.map((name) => `${name} is not a setting${suggestion(name, variables)}`),
    ...unknownKeys.map(
      (name) => `${name} in stoa.config.ts is not a setting${suggestion(name, settingNames)}`,
    ),
  ]
}

function suggestion(name: string, known: readonly string[]): string {
  const meant = closestName(name, known)
  return meant === null
    ? '; "stoa config" lists them all'
    : `; did you mean ${meant}? "stoa config" lists them all`
}

/** Reads `stoa.config.ts` (or the file that `STOA_CONFIG` names), the environment and the flags. */
export async function loadConfig(
  flags: ConfigInput['flags'],
  environment: ConfigInput['environment'],
  folder: string,
): Promise<ConfigReading> {
  try {
    return readConfig({ file: await loadFile(environment, folder), environment, flags })
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    const rest = readConfig({ file: {}, environment, flags })
    return { ...rest, problems: [...error.problems, ...rest.problems] }
  }
}

/** The settings in the file; none where there is no file. Errors: `ConfigError`. */
async function loadFile(
  environment: ConfigInput['environment'],
  folder: string,
): Promise<Readonly<Record<string, unknown>>> {
  const named = environment['STOA_CONFIG']
  const path = resolve(folder, named ?? 'stoa.config.ts')
  if (!existsSync(path)) {
    if (named === undefined) return {}
    throw new ConfigError([`STOA_CONFIG names ${path}, which does not exist`])
  }
  let module: { readonly config?: unknown; readonly default?: unknown }
  try {
    module = (await import(pathToFileURL(path).href)) as typeof module
  } catch (error) {
    throw new ConfigError([`${path} cannot be loaded: ${(error as Error).message}`])
  }
  const file = module.config ?? module.default
  if (typeof file !== 'object' || file === null || Array.isArray(file))
    throw new ConfigError([`${path} must export an object named config`])
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
    const { env, flag, help } = setting
    const value = printable(setting, config[name])
    return { name, value, source: config.sources[name], env, flag, help }
  })
}

function printable(setting: Setting<unknown>, value: unknown): unknown {
  if (value === null) return null
  if (setting.secret) return '(hidden)'
  return setting.url && typeof value === 'string' ? hidePassword(value) : value
}

/**
 * Works on the text, because `URL` does not parse a URL with several hosts. A URL that was cut off
 * before its host still holds its password, so anything but a port after the colon is hidden. An
 * account of NATS without a colon is a token.
 */
export function hidePassword(url: string): string {
  return url
    .replace(/^((?:nats|tls):\/\/)[^:@/]+@/, '$1(hidden)@')
    .replace(/^([a-z0-9]+:\/\/[^:@/]*):.*@/, '$1:(hidden)@')
    .replace(/^([a-z0-9]+:\/\/(?!\[)[^:@/]*):(?!\d{1,5}(?:[/?,]|$))[^@]*$/, '$1:(hidden)')
    .replace(/([?&](?:ssl|sentinel)?password=)[^&]*/gi, '$1(hidden)')
}
