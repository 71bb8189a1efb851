/**
 * `node test/dump-schema.ts`: writes docs/reference/schema.sql anew, from a database that all
 * migrations have just made.
 */
import { writeFileSync } from 'node:fs'
import { dumpSchema } from '#database/schema.ts'
import { testDatabase } from '#test/support/database.ts'

const target = new URL('../docs/reference/schema.sql', import.meta.url)
await using db = await testDatabase()
writeFileSync(target, await dumpSchema(db.database))
process.stdout.write('docs/reference/schema.sql is written\n')
