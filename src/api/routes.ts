import type { RoutePlugin } from '#api/api-context.ts'
import { healthRoutes } from '#api/routes/health.ts'
import { metricsRoutes } from '#api/routes/metrics.ts'

/** Every route of the server, by the file that has it. Add a line here. */
export const routePlugins: readonly RoutePlugin[] = [
  healthRoutes,
  metricsRoutes,
]
