import { html } from '#api/pages/html.ts'
import { layout } from '#api/pages/layout.ts'

/** A problem document for people with a browser. */
export function problemPage(problem: {
  readonly status: number
  readonly title: string
  readonly detail: string
  readonly requestId: string
}): string {
  const body = html` <h1>${problem.title}</h1>
    <p class="lead">${problem.detail}</p>
    <p class="hint">
      Status ${problem.status}, request ${problem.requestId}. <a href="/">To the home page</a>
    </p>`
  return layout({ title: `${problem.title} · Stoa`, signedInAs: null, body })
}
