// The button on every page that signs out. The CSRF token comes from the session's own resource,
// because no cookie that scripts can read has it.
const button = document.querySelector('[data-sign-out]')
button?.addEventListener('click', async () => {
  button.disabled = true
  const who = await fetch('/api/session').then((response) => response.json())
  await fetch('/api/session', {
    method: 'DELETE',
    headers: { 'x-csrf-token': who.data.csrfToken ?? '' },
  })
  location.assign('/')
})
