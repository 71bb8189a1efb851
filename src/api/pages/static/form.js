// Sends a form as JSON to its data-action, and shows a problem in words beside it.
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
      const response = await fetch(form.dataset.action, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body,
      })
      if (response.ok) return location.assign(form.dataset.next)
      const { detail, title } = await response.json()
      problem.textContent = detail ?? title
    } catch {
      problem.textContent = 'The node did not respond. Try again.'
    } finally {
      button.disabled = false
    }
  })
}
