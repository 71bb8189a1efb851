import type { Report } from '#cli/import/report.ts'
import type { Call, Content } from '#content/content.ts'
import { StoaError } from '#lib/stoa-error.ts'

/** Scheduled actions that are kept until the entries are there. */
const schedulesMax = 100_000

export type ImportedSchedule = {
  readonly id: string
  readonly type: string
  readonly locale: string
  readonly action: 'publish' | 'unpublish'
  readonly dueAt: string
  /** Names the page in the report. */
  readonly where: string
}

/** Gathers what an import publishes or unpublishes later, and stores it when the entries are. */
export class Schedules {
  readonly #target: { readonly content: Content; readonly call: Call }
  readonly #report: Report
  readonly #schedules: ImportedSchedule[] = []

  constructor(target: { readonly content: Content; readonly call: Call }, report: Report) {
    this.#target = target
    this.#report = report
  }

  add(schedule: ImportedSchedule): void {
    if (this.#schedules.length < schedulesMax) this.#schedules.push(schedule)
    else {
      const sentence = `More than ${schedulesMax} schedules; the page stays as it is.`
      this.#report.refuse('schedules', schedule.where, sentence)
    }
  }

  /** An action that waits already for the same time is left as it is. */
  async save(): Promise<void> {
    const { content, call } = this.#target
    for (const { id, type, locale, action, dueAt, where } of this.#schedules) {
      const actions = await content.schedule.list(call, type, id)
      const exists = actions.some(
        (one) =>
          one.state === 'waiting' &&
          one.action === action &&
          one.locale === locale &&
          one.dueAt === dueAt,
      )
      try {
        if (!exists)
          await content.schedule.add(call, type, id, { locale, action, version: null, dueAt })
        this.#report.count('schedules', exists ? 'unchanged' : 'made')
      } catch (error) {
        if (!(error instanceof StoaError) || error.code.startsWith('E_DATABASE_')) throw error
        const result = action === 'publish' ? 'It stays a draft' : 'It stays published'
        this.#report.refuse('schedules', where, `${result}: ${error.message}`)
      }
    }
  }
}
