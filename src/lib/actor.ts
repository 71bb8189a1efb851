/**
 * Who did something, as history and the audit log keep it. `id` is null for the anonymous role and
 * the system itself.
 */
export type Actor = {
  readonly kind: 'anonymous' | 'user' | 'token' | 'system'
  readonly id: string | null
  readonly name: string
}

export const systemActor: Actor = { kind: 'system', id: null, name: 'system' }
