import assert from 'node:assert/strict'
import {
  globSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { databaseMissing, testDatabase } from '#test/support/database.ts'
import { exportTo, importFrom } from '#test/support/archives.ts'
import { importing } from '#test/support/importing.ts'
import type { Importing } from '#test/support/importing.ts'

const folder = mkdtempSync(join(tmpdir(), 'stoa-archive-source-'))
after(() => rmSync(folder, { recursive: true }))

function exported(
  on: Importing,
  name: string,
  options: { readonly history?: boolean; readonly signal?: AbortSignal } = {},
): Promise<string> {
  return exportTo(on, join(folder, name), options)
}

test(
  'an export is private to its owner, and an archive with symbolic links is refused',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase()
    await using on = importing(db)
    const target = await exported(on, 'private')
    for (const file of globSync('**/*', { cwd: target }))
      assert.equal(statSync(join(target, file)).mode & 0o077, 0, file)
    const tar = await exported(on, 'private.tar')
    assert.equal(statSync(tar).mode & 0o077, 0)
    const [role = ''] = globSync('roles/*.json', { cwd: target })
    writeFileSync(join(folder, 'secret.json'), '{"name":"x"}')
    rmSync(join(target, role))
    symlinkSync(join(folder, 'secret.json'), join(target, role))
    await assert.rejects(importFrom(on, target), /symbolic link/)
  },
)

test(
  'an import does not replace roles of the site without being asked to',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase()
    await using on = importing(db)
    await on.content.types.save(
      on.database,
      { name: 'note', label: 'Note', fields: [{ name: 'title', kind: 'text' }] },
      { expected: null, allowLoss: false },
    )
    const archive = await exported(on, 'roles')
    const editor = JSON.parse(readFileSync(join(archive, 'roles/editor.json'), 'utf8')) as {
      content: unknown[]
    }
    editor.content = [{ type: '*', actions: ['read'], filter: null, fields: null }]
    writeFileSync(join(archive, 'roles/editor.json'), JSON.stringify(editor))
    const rolesNow = async (): Promise<unknown> => on.site.access.roles.list()
    const before = await rolesNow()
    const dry = await importFrom(on, archive, { dryRun: true })
    const first = await importFrom(on, archive)
    for (const report of [dry, first])
      assert.deepEqual(
        report.leftOut.map(({ what, where }) => `${what} ${where}`),
        ['role editor'],
      )
    assert.deepEqual(await rolesNow(), before)
    const replacing = await importFrom(on, archive, { replaceRoles: true })
    assert.deepEqual(
      replacing.remarks.map(({ what, where }) => `${what} ${where}`),
      ['role editor'],
    )
    assert.notDeepEqual(await rolesNow(), before)
  },
)

test(
  'an archive that was cut off between two files is none',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase()
    await using on = importing(db)
    await on.content.types.save(
      on.database,
      { name: 'note', label: 'Note', fields: [{ name: 'title', kind: 'text' }] },
      { expected: null, allowLoss: false },
    )
    await on.content.releases.create(on.call, 'Spring')
    const path = await exported(on, 'cut.tar')
    const bytes = readFileSync(path)
    const last = bytes.lastIndexOf('releases/')
    assert.equal(last % 512, 0)
    writeFileSync(path, bytes.subarray(0, last))
    await assert.rejects(importFrom(on, path), /cut off/)
  },
)
