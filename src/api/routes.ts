import type { RoutePlugin } from '#api/api-context.ts'
import { auditRoutes } from '#api/routes/audit.ts'
import { assetFileRoutes } from '#api/routes/asset-files.ts'
import { assetRoutes } from '#api/routes/assets.ts'
import { clusterRoutes } from '#api/routes/cluster.ts'
import { contentVersionRoutes, scheduleRoutes } from '#api/routes/content-history.ts'
import { contentReadRoutes } from '#api/routes/content-read.ts'
import { typeReadRoutes, typeWriteRoutes } from '#api/routes/content-types.ts'
import { contentStateRoutes, contentWriteRoutes } from '#api/routes/content-write.ts'
import { eventRoutes } from '#api/routes/events.ts'
import { healthRoutes } from '#api/routes/health.ts'
import { jobRoutes } from '#api/routes/jobs.ts'
import { localeRoutes } from '#api/routes/locales.ts'
import { metricsRoutes } from '#api/routes/metrics.ts'
import { openApiRoutes } from '#api/routes/openapi.ts'
import { receiptRoutes } from '#api/routes/receipts.ts'
import { releaseItemRoutes, releaseRoutes } from '#api/routes/releases.ts'
import { roleRoutes } from '#api/routes/roles.ts'
import { searchRoutes } from '#api/routes/search.ts'
import { sessionRoutes } from '#api/routes/sessions.ts'
import { tokenRoutes } from '#api/routes/tokens.ts'
import { userRoutes } from '#api/routes/users.ts'
import { uploadRoutes } from '#api/routes/uploads.ts'

/** Every route of the server, by the file that has it. Add a line here. */
export const routePlugins: readonly RoutePlugin[] = [
  healthRoutes,
  metricsRoutes,
  contentReadRoutes,
  searchRoutes,
  contentWriteRoutes,
  contentStateRoutes,
  contentVersionRoutes,
  scheduleRoutes,
  typeReadRoutes,
  typeWriteRoutes,
  localeRoutes,
  releaseRoutes,
  releaseItemRoutes,
  sessionRoutes,
  userRoutes,
  roleRoutes,
  tokenRoutes,
  auditRoutes,
  clusterRoutes,
  jobRoutes,
  assetRoutes,
  assetFileRoutes,
  uploadRoutes,
  receiptRoutes,
  eventRoutes,
  openApiRoutes,
]
