import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Access, Identity, Login, User } from '#access/access.ts'
import { createAccess } from '#access/create-access.ts'
import type { Database } from '#database/database.ts'
import type { Clock } from '#lib/clock.ts'
import { systemClock } from '#lib/clock.ts'
import { silentLogger } from '#lib/logger.ts'

/** A clock that moves only when a test advances it. */
export class HandClock implements Clock {
  #ms = Date.parse('2026-11-20T12:00:00.000Z')

  nowMs(): number {
    return this.#ms
  }

  monotonicMs(): number {
    return this.#ms
  }

  advance(ms: number): void {
    this.#ms += ms
  }
}

export const testPassword = 'columns and a roof'
/** Real argon2id, at a cost that tests can pay. */
export const testPasswordCost = { memoryKiB: 64, passes: 1 }

export function testAccess(database: Database, clock: Clock = systemClock): Access {
  return createAccess({
    database,
    clock,
    logger: silentLogger,
    secret: 'a secret of 32 characters or more',
    passwordCost: testPasswordCost,
  })
}

/** A user of these roles, signed in. */
export async function signedIn(
  access: Access,
  database: Database,
  roles: readonly string[],
  email = `${roles.join('.')}@example.com`,
): Promise<{ user: User; login: Login; identity: Identity }> {
  const user = await access.users.create(database, access.systemIdentity, {
    email,
    name: email.split('@')[0]!,
    password: testPassword,
    roles,
  })
  const login = await access.login(database, {
    email,
    password: testPassword,
    address: '192.0.2.1',
    agent: 'test',
  })
  return {
    user,
    login,
    identity: await access.identify({ bearer: null, sessionCookie: login.cookie }),
  }
}

/** Uses are recorded in the background. */
export async function until(holds: () => Promise<boolean>): Promise<void> {
  const deadlineMs = performance.now() + 5_000
  while (!(await holds())) {
    assert.ok(performance.now() < deadlineMs, 'it never came to hold')
    await sleep(5)
  }
}
