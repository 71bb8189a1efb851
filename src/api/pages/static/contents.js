// On a narrow screen the list of pages starts closed, so that the page itself comes first.
if (matchMedia('(max-width: 60rem)').matches)
  document.querySelector('.contents details')?.removeAttribute('open')
