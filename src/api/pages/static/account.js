// Signing out, on every page. The CSRF token comes with who-am-I, never from a cookie that scripts
// can read.
const button = document.querySelector('[data-sign-out]')
button?.addEventListener('click', async () => {
  button.disabled = true
  const who = await fetch('/api/session').then((answer) => answer.json())
  await fetch('/api/session', {
    method: 'DELETE',
    headers: { 'x-csrf-token': who.data.csrfToken ?? '' },
  })
  location.assign('/')
})
