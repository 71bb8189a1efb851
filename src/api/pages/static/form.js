// Sends a form as JSON to its data-action, and shows the answer's problem beside it in words.
for (const form of document.querySelectorAll('form[data-action]')) {
  if ('secretFromFragment' in form.dataset)
    form.elements.namedItem('secret').value = location.hash.slice(1)
  form.addEventListener('submit', async (event) => {
    event.preventDefault()
    const button = form.querySelector('button')
    const problem = form.querySelector('.problem')
    problem.textContent = ''
    button.disabled = true
    try {
      const body = JSON.stringify(Object.fromEntries(new FormData(form)))
      const answer = await fetch(form.dataset.action, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body,
      })
      if (answer.ok) return location.assign(form.dataset.next)
      const told = await answer.json()
      problem.textContent = told.detail ?? told.title
    } catch {
      problem.textContent = 'The node did not answer. Try again.'
    } finally {
      button.disabled = false
    }
  })
}
