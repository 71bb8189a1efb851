import { Type } from 'typebox'
import { systemPermissions } from '#access/access.ts'
import { nullable, strict, text, timestamp } from '#api/schemas/shared.ts'
import { contentActions } from '#content/authority.ts'

const id = () => Type.String({ format: 'uuid' })
export const roleName = () => Type.String({ minLength: 1, maxLength: 63, examples: ['editor'] })
export const roleNames = () => Type.Array(roleName(), { maxItems: 64 })
const action = () => Type.Union(contentActions.map((name) => Type.Literal(name)))
const permission = () => Type.Union(systemPermissions.map((name) => Type.Literal(name)))
const fields = () =>
  nullable(Type.Array(text(63, 1), { maxItems: 500, description: 'Only these fields; null: all.' }))
const filter = () =>
  nullable(
    Type.Object(
      { op: Type.Union(['and', 'or', 'not', 'compare'].map((op) => Type.Literal(op))) },
      {
        description:
          'Only entries that match; null: all. `{ op: "compare", field, test: { is, value } ' +
          '}`, joined by `{ op: "and" | "or", filters: [...] }` and `{ op: "not", filter }`.',
      },
    ),
  )

export const userSchema = strict(
  {
    id: id(),
    email: Type.String(),
    name: Type.String(),
    roles: Type.Array(Type.String()),
    state: Type.Union([Type.Literal('active'), Type.Literal('disabled')]),
    createdAt: timestamp(),
    lastLoginAt: nullable(timestamp()),
  },
  { $id: 'User' },
)

export const grantSchema = strict({
  type: Type.String({
    minLength: 1,
    maxLength: 63,
    description: '`*`, or the name of a content type, which goes before `*`.',
  }),
  actions: Type.Array(action(), { minItems: 1 }),
  filter: filter(),
  fields: fields(),
  own: Type.Optional(Type.Boolean({ description: 'Only entries that the user created.' })),
})
export const roleSchema = strict(
  {
    name: roleName(),
    label: Type.String(),
    content: Type.Array(grantSchema),
    system: Type.Array(permission()),
    builtIn: Type.Boolean(),
  },
  {
    $id: 'Role',
    description:
      'What its users and API tokens may do. Several roles allow what any of them allows.',
  },
)
export const roleBody = strict(
  {
    label: text(200, 1),
    content: Type.Array(grantSchema, { maxItems: 500 }),
    system: Type.Array(permission(), { maxItems: 64 }),
  },
  { $id: 'RoleSave' },
)

export const tokenSchema = strict(
  {
    id: id(),
    name: Type.String(),
    roles: Type.Array(Type.String()),
    createdAt: timestamp(),
    createdBy: nullable(
      strict({ kind: Type.Union([Type.Literal('user'), Type.Literal('token')]), id: id() }),
    ),
    expiresAt: nullable(timestamp()),
    lastUsedAt: nullable(timestamp()),
    hint: Type.String({ description: 'The first characters of the token, to recognise it by.' }),
  },
  { $id: 'ApiToken' },
)

export const actorSchema = strict({
  kind: Type.Union(['anonymous', 'user', 'token', 'system'].map((kind) => Type.Literal(kind))),
  id: nullable(Type.String()),
  name: Type.String(),
})

export const sessionSchema = strict(
  {
    actor: actorSchema,
    user: nullable(userSchema),
    roles: Type.Array(Type.String()),
    permissions: strict({
      system: Type.Array(permission()),
      content: Type.Array(
        strict({ type: Type.String(), action: action(), filter: filter(), fields: fields() }),
        { description: '`*` as type: every type that is not named.' },
      ),
    }),
    csrfToken: nullable(
      Type.String({
        description: 'For the header X-CSRF-Token of writes. Null without a session cookie.',
      }),
    ),
    expiresAt: nullable(timestamp()),
    staleMs: nullable(
      Type.Integer({
        minimum: 0,
        description:
          'For how many milliseconds this could not be confirmed, because the node does not ' +
          'reach the database; null: it holds.',
      }),
    ),
  },
  { $id: 'Session', description: 'The caller, and what they may do.' },
)

export const auditSchema = strict(
  {
    id: id(),
    at: timestamp(),
    actor: actorSchema,
    action: Type.String({ examples: ['user.update'] }),
    subject: Type.String({ examples: ['user:0199aaaa-0000-7000-8000-000000000001'] }),
    facts: Type.Object({}, { description: 'What the action names; never a secret.' }),
    address: nullable(Type.String()),
    requestId: nullable(Type.String()),
  },
  { $id: 'AuditRecord' },
)

/** For responses that no cache may keep. */
export const noStore = { 'cache-control': 'no-store' } as const
