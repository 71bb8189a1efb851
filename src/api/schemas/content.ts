import { Type } from 'typebox'
import { idParam, nullable, strict, timestamp } from '#api/schemas/shared.ts'

/**
 * What routes about content have in common. Schemas of single types are made from their
 * definitions, in openapi/.
 */
export const localeCode = (description = 'A locale of this site. Absent: the default one.') =>
  Type.String({ minLength: 2, maxLength: 35, examples: ['en'], description })
export const typeName = () => Type.String({ minLength: 1, maxLength: 63 })
export const versionNumber = () => Type.Integer({ minimum: 1, maximum: 2_147_483_647 })

export const typeParams = strict({ type: typeName() })
export const entryParams = strict({ type: typeName(), id: idParam() })

const status = Type.Union(
  [
    Type.Literal('draft'),
    Type.Literal('published'),
    Type.Literal('changed'),
    Type.Literal('archived'),
  ],
  {
    description: '`changed`: published, and a newer draft exists.',
  },
)

export const entrySchema = strict(
  {
    id: Type.String({ format: 'uuid' }),
    type: typeName(),
    locale: Type.String({ description: 'The locale it is in: the one asked for, or a fallback.' }),
    version: versionNumber(),
    status,
    createdAt: timestamp(),
    updatedAt: timestamp(),
    publishedAt: nullable(timestamp()),
    firstPublishedAt: nullable(timestamp()),
    fields: Type.Record(Type.String(), Type.Unknown()),
  },
  { $id: 'Entry' },
)

const includedAssetSchema = strict(
  {
    kind: Type.Literal('asset'),
    id: Type.String({ format: 'uuid' }),
    name: Type.String(),
    contentType: Type.String(),
    bytes: Type.Integer(),
    width: nullable(Type.Integer()),
    height: nullable(Type.Integer()),
    alt: Type.Record(Type.String(), Type.String(), { description: 'By locale.' }),
    focalPoint: nullable(strict({ x: Type.Number(), y: Type.Number() })),
    url: Type.String({
      description: 'Where the file is, for everyone. An image takes `width`, `height`, `format`, …',
    }),
  },
  { $id: 'IncludedAsset' },
)

export const includedSchema = Type.Record(
  Type.String(),
  Type.Union([entrySchema, includedAssetSchema]),
  { description: 'Entries and assets reached by `include`, by id.' },
)
export const entryResponse = strict({ data: entrySchema, included: Type.Optional(includedSchema) })
export const entriesResponse = strict({ data: Type.Array(entrySchema) })
export const listResponse = strict({
  data: Type.Array(entrySchema),
  included: Type.Optional(includedSchema),
  meta: strict({
    after: nullable(Type.String({ description: 'For the next page; null on the last.' })),
    count: Type.Optional(Type.Integer({ minimum: 0 })),
  }),
})

const fields = () =>
  Type.Record(Type.String(), Type.Unknown(), {
    description: 'Values by name of field, as the content type defines them.',
  })

export const createBody = strict(
  {
    id: Type.Optional(Type.String({ format: 'uuid' })),
    locale: Type.Optional(localeCode()),
    fields: fields(),
    publish: Type.Optional(Type.Boolean()),
  },
  { $id: 'EntryCreate' },
)
export const saveBody = strict(
  { locale: Type.Optional(localeCode()), fields: fields(), publish: Type.Optional(Type.Boolean()) },
  { $id: 'EntrySave' },
)

const localeList = () =>
  Type.Array(localeCode('A locale of this site.'), {
    minItems: 1,
    maxItems: 200,
    uniqueItems: true,
    description: 'Absent: every locale that the entry has.',
  })
/** A body that may be left out. */
const optional = <Schema extends Parameters<typeof nullable>[0]>(schema: Schema) => nullable(schema)

export const publishBody = optional(
  strict({ locales: Type.Optional(localeList()), version: Type.Optional(versionNumber()) }),
)
export const unpublishBody = optional(strict({ locales: Type.Optional(localeList()) }))
export const emptyBody = optional(strict({}))
export const restoreBody = strict({ locale: Type.Optional(localeCode()), version: versionNumber() })
export const scheduleBody = strict({
  locale: Type.Optional(localeCode()),
  action: Type.Union([Type.Literal('publish'), Type.Literal('unpublish')]),
  version: Type.Optional(versionNumber()),
  dueAt: Type.String({ format: 'date-time', maxLength: 40 }),
})

export const scheduledSchema = strict(
  {
    id: Type.String({ format: 'uuid' }),
    entryId: Type.String({ format: 'uuid' }),
    locale: Type.String(),
    action: Type.Union([Type.Literal('publish'), Type.Literal('unpublish')]),
    version: nullable(versionNumber()),
    dueAt: timestamp(),
    state: Type.Union([
      Type.Literal('waiting'),
      Type.Literal('done'),
      Type.Literal('cancelled'),
      Type.Literal('failed'),
    ]),
    failure: nullable(strict({ code: Type.String(), message: Type.String() })),
  },
  { $id: 'ScheduledAction' },
)

export const actorSchema = strict(
  {
    kind: Type.Union([
      Type.Literal('anonymous'),
      Type.Literal('user'),
      Type.Literal('token'),
      Type.Literal('system'),
    ]),
    id: nullable(Type.String()),
    name: Type.String(),
  },
  { $id: 'Actor' },
)

export const versionSummarySchema = strict(
  {
    locale: Type.String(),
    version: versionNumber(),
    savedAt: timestamp(),
    savedBy: actorSchema,
    publishedAt: nullable(timestamp()),
    publishedBy: nullable(actorSchema),
    isLatest: Type.Boolean(),
    isPublished: Type.Boolean(),
  },
  { $id: 'VersionSummary' },
)

export const deleteResponse = strict({
  data: strict({
    deleted: Type.Array(Type.String({ format: 'uuid' }), {
      description: 'The entry, and those that went with it by cascade.',
    }),
    unset: Type.Array(Type.String({ format: 'uuid' }), {
      description: 'Entries that lost their reference to it.',
    }),
  }),
})

export const localeQuery = strict({ locale: Type.Optional(localeCode()) })
