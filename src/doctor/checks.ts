import type { Check } from '#doctor/check.ts'
import { databaseChecks } from '#doctor/checks/database.ts'
import { machineChecks } from '#doctor/checks/machine.ts'
import { serviceChecks } from '#doctor/checks/services.ts'
import { siteChecks } from '#doctor/checks/site.ts'

/** Every check of `stoa doctor`. A part adds an entry to the file that fits, or a file here. */
export const checks: readonly Check[] = [
  ...databaseChecks,
  ...serviceChecks,
  ...machineChecks,
  ...siteChecks,
]
