'use strict';
(() => {
  const form = document.getElementById('login-form');
  const error = document.getElementById('login-error');
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    error.textContent = '';
    const token = document.getElementById('token');
    try {
      const answer = await fetch('/api/login', {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ token: token.value.trim() }),
      });
      if (answer.ok) {
        location.replace('/');
        return;
      }
      error.textContent = (await answer.json()).error;
    } catch {
      error.textContent = 'pgimbal does not answer';
    }
    token.select();
    token.focus();
  });
})();
