// Opens pgimbal's page in Chromium, as a person would: page.js show|act
//
// What happens to pgimbal meanwhile is the test's part, which is asked for by `look at SOMETHING`.
'use strict';
const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const readline = require('node:readline');
const { chromium } = require('playwright-core');

const LIMIT = 60_000; // milliseconds for a condition, on a machine that has other things to do
const address = `http://127.0.0.1:${process.env.PGIMBAL_PORT}`;
const pictures = process.env.PGIMBAL_PICTURES;
const axe = fs.readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');
const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();

async function lookAt(what) {
  console.log(`look at ${what}`);
  await lines.next();
}

// What the page wrote to the console, and what failed in it.
const complaints = [];

async function open(browser, options) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  context.setDefaultTimeout(LIMIT);
  const page = await context.newPage();
  page.on('console', (message) => {
    // Chromium writes a line for every answer of 401, which is what a wrong token is to get, and for
    // a connection that is lost.
    const expected = /status of 401|ERR_CONNECTION_RESET/.test(message.text());
    if (!expected) complaints.push(`${message.type()}: ${message.text()}`);
  });
  page.on('pageerror', (error) => complaints.push(String(error)));
  page.on('dialog', (dialog) => complaints.push(`a script has run: ${dialog.message()}`));
  page.on('request', (request) => {
    const url = request.url();
    if (!url.startsWith(address) && !url.startsWith('data:')) complaints.push(`asked ${url}`);
  });
  return { context, page };
}

async function picture(page, name, fullPage = true) {
  await page.screenshot({ path: path.join(pictures, `${name}.png`), fullPage });
}

// Serious findings of axe, each with the first element. The policy forbids to run it otherwise.
async function examine(page, name) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document));
  const serious = violations.filter(({ impact }) => ['serious', 'critical'].includes(impact));
  const told = serious.map(({ id, nodes }) => `${id}: ${nodes[0].html} ${nodes[0].failureSummary}`);
  assert.deepEqual(told, [], name);
}

async function isNotWider(page, name) {
  const [wide, inner] = await page.evaluate(() => [
    document.documentElement.scrollWidth,
    document.documentElement.clientWidth,
  ]);
  assert.ok(wide <= inner, `${name}: ${wide} pixels of ${inner}`);
}

const row = (page, table, text) =>
  page.getByRole('table', { name: table, exact: true }).getByRole('row').filter({ hasText: text });

// Presses Tab until what has the focus has this name.
async function tabTo(page, wanted) {
  for (let presses = 0; presses < 60; presses++) {
    await page.keyboard.press('Tab');
    const name = await page.evaluate(() => {
      const node = document.activeElement;
      return node.getAttribute('aria-label') || node.textContent.trim();
    });
    if (name === wanted) return;
  }
  assert.fail(`${wanted} cannot be reached by the keyboard`);
}

async function show(browser) {
  const light = await open(browser, { colorScheme: 'light', bypassCSP: true });
  const { page } = light;
  await page.goto(address);
  // Clusters with nodes, roles, timelines and lag.
  const nodes = page.getByRole('table', { name: 'Nodes of c', exact: true });
  await nodes.getByRole('row').filter({ hasText: /primary/ }).waitFor();
  await nodes.getByRole('row').filter({ hasText: /replica.*replica.*1/s }).waitFor();
  await lookAt('clients');
  await row(page, 'Pools', /app.*transaction/s).first().waitFor();
  await row(page, 'Pinned sessions', 'listen').waitFor();
  const wait = page.getByText('Waiting', { exact: true }).locator('xpath=../dd');
  await wait.filter({ hasText: '1' }).waitFor();
  // Names are text, whatever they hold, and nothing in them is unseen.
  await row(page, 'Pinned sessions', '<img src=x onerror=alert(1)>').waitFor();
  await row(page, 'Pools', '<b>a\\u{202e}b\\u{1b}[31m</b>').waitFor();
  await page.locator('option', { hasText: '<b>a\\u{202e}b' }).waitFor({ state: 'attached' });
  assert.equal(await page.locator('img, b').count(), 0);
  await lookAt('rotation');
  await row(page, 'Passwords that rotate', 'turning').filter({ hasText: /No\. 2.*No\. 1: 1 client/s }).waitFor();
  await row(page, 'Clients with an old password', 'turning').waitFor();
  // A graph is there, and says its figures.
  const graph = page.getByRole('img', { name: /^Clients, the last 15 minutes: active now \d/ });
  await graph.waitFor();
  await lookAt('failover');
  await row(page, 'Failovers', 'n1').waitFor();
  await picture(page, 'light');
  await examine(page, 'light');
  await page.getByLabel('Database').selectOption('app');
  await page.getByRole('img', { name: /^Clients, the last 15 minutes: active now \d/ }).waitFor();
  await page.getByText('Figures').first().click();
  await page.getByRole('table', { name: /minute by minute/ }).first().waitFor();
  await picture(page, 'light-of-one-database');
  await examine(page, 'figures');
  // A page that is opened later has the graphs at once.
  const dark = await open(browser, { colorScheme: 'dark', bypassCSP: true });
  await dark.page.goto(address);
  await dark.page.getByRole('img', { name: /^Clients, .* active now \d/ }).waitFor();
  await row(dark.page, 'Pinned sessions', 'listen').waitFor();
  await picture(dark.page, 'dark');
  await examine(dark.page, 'dark');
  for (const colorScheme of ['light', 'dark']) {
    const phone = await open(browser, {
      colorScheme, bypassCSP: true, viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true,
    });
    await phone.page.goto(address);
    await row(phone.page, 'Pinned sessions', 'listen').waitFor();
    await row(phone.page, 'Passwords that rotate', 'turning').waitFor();
    await isNotWider(phone.page, colorScheme);
    await picture(phone.page, `phone-${colorScheme}`);
    await examine(phone.page, `phone ${colorScheme}`);
    await phone.context.close();
  }
  // By keyboard: past the head at once, to pause, and into what there is.
  await dark.page.reload();
  await row(dark.page, 'Pinned sessions', 'listen').waitFor();
  await dark.page.keyboard.press('Tab');
  assert.equal(await dark.page.evaluate(() => document.activeElement.className), 'skip');
  await dark.page.keyboard.press('Enter');
  assert.equal(await dark.page.evaluate(() => document.activeElement.id), 'main');
  await tabTo(dark.page, 'Figures');
  await dark.page.keyboard.press('Enter');
  await dark.page.getByRole('table', { name: /minute by minute/ }).first().waitFor();
  await dark.context.close();
  // Nobody may give commands here.
  assert.equal(await page.getByRole('button', { name: /HOLD|REFRESH|REVOKE|RESUME|Log in/ }).count(), 0);
  await page.getByRole('button', { name: 'Pause' }).click();
  assert.equal(await page.getByRole('button', { name: 'Pause' }).getAttribute('aria-pressed'), 'true');
  await light.context.close();
}

async function logIn(page, token, by) {
  await page.keyboard.type(token);
  if (by === 'Enter') await page.keyboard.press('Enter');
  else await page.getByRole('button', { name: 'Log in' }).click();
}

async function act(browser) {
  const { context, page } = await open(browser, { colorScheme: 'light' });
  const examined = await open(browser, { colorScheme: 'dark', bypassCSP: true });
  const { PGIMBAL_VIEW: view, PGIMBAL_ADMIN: admin } = process.env;
  await examined.page.goto(address);
  await examined.page.getByLabel(/Token of the page/).waitFor();
  await picture(examined.page, 'login');
  await examine(examined.page, 'login');
  // The door: a wrong token, then that of viewers, all by keyboard.
  await page.goto(address);
  await page.getByLabel(/Token of the page/).waitFor();
  await logIn(page, 'no-token-of-the-page', 'Enter');
  await page.getByRole('alert').filter({ hasText: 'no token' }).waitFor();
  assert.ok(!page.url().includes('token'), page.url());
  await logIn(page, view, 'Enter');
  await row(page, 'Nodes of c', 'primary').waitFor();
  const hidden = await context.cookies();
  assert.deepEqual(hidden.map(({ httpOnly, sameSite }) => [httpOnly, sameSite]), [[true, 'Strict']]);
  assert.equal(await page.evaluate(() => document.cookie + Object.keys(localStorage)), '');
  assert.equal(await page.getByRole('button', { name: /^(HOLD|REFRESH|REVOKE|RESUME)/ }).count(), 0);
  // From a viewer to an administrator.
  await page.getByRole('button', { name: 'Log in to give commands' }).click();
  await logIn(page, admin, 'Enter');
  await page.getByRole('button', { name: 'HOLD c' }).waitFor();
  await row(page, 'Connections to servers, over all replicas', 'r3').first().waitFor();
  await row(page, 'Replicas of pgimbal', 'r3').waitFor();
  // Cancel does nothing; all by keyboard.
  await tabTo(page, 'HOLD c');
  await page.keyboard.press('Enter');
  const dialog = page.getByRole('dialog', { name: 'HOLD c?' });
  await dialog.waitFor();
  await page.keyboard.press('Escape');
  await dialog.waitFor({ state: 'hidden' });
  assert.equal(await page.evaluate(() => document.activeElement.getAttribute('aria-label')), 'HOLD c');
  await lookAt('nothing held');
  await page.keyboard.press('Enter');
  await dialog.waitFor();
  await page.keyboard.press('Tab');
  await page.keyboard.press('Enter');
  for (const replica of ['r1', 'r2', 'r3']) {
    await dialog.getByRole('listitem').filter({ hasText: replica }).waitFor();
  }
  await picture(page, 'hold', false);
  await page.keyboard.press('Enter');
  await dialog.waitFor({ state: 'hidden' });
  await lookAt('held');
  await row(page, 'Nodes of c', 'writes wait').waitFor();
  await page.getByRole('button', { name: 'RESUME c' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'RESUME' }).click();
  await page.getByRole('dialog').getByText('Done.').waitFor();
  await page.getByRole('button', { name: 'Close' }).click();
  await lookAt('resumed');
  for (const command of ['REFRESH', 'REVOKE OLD']) {
    await page.getByRole('button', { name: `${command} turning` }).click();
    await page.getByRole('dialog').getByRole('button', { name: command }).click();
    await page.getByRole('dialog').getByText('Done.').waitFor();
    await page.getByRole('button', { name: 'Close' }).click();
    await lookAt(command.toLowerCase());
  }
  await picture(page, 'admin');
  await answers(page, 'No answer came', (route) => route.abort('connectionreset'));
  const nothing = { ok: false, replicas: [], said: 'it is unknown' };
  await answers(page, 'Not done. it is unknown', (route) => route.fulfill({ json: nothing }));
  await answers(page, null, (route) => route.fulfill({ status: 401, json: { error: 'log in' } }));
  // The dialog and the buttons in the eyes of axe.
  await logIn(examined.page, admin, 'click');
  await examined.page.getByRole('button', { name: 'REVOKE OLD turning' }).click();
  await examined.page.getByRole('dialog').waitFor();
  await examine(examined.page, 'confirm');
  await picture(examined.page, 'confirm', false);
  await examined.page.getByRole('button', { name: 'Cancel' }).click();
  await examined.page.setViewportSize({ width: 360, height: 740 });
  await isNotWider(examined.page, 'administrator on a phone');
  await picture(examined.page, 'admin-phone');
  await examine(examined.page, 'administrator on a phone');
  // Out again.
  await page.getByRole('button', { name: 'Log out' }).click();
  await page.getByLabel(/Token of the page/).waitFor();
  assert.deepEqual(await context.cookies(), []);
}

// What the page says when a command gets this answer; for null it loads again.
async function answers(page, text, answer) {
  await page.route('**/api/command', answer);
  await page.getByRole('button', { name: 'REFRESH turning' }).click();
  const loaded = text ? null : page.waitForEvent('load');
  await page.getByRole('dialog').getByRole('button', { name: 'REFRESH' }).click();
  if (text) {
    await page.getByRole('dialog').getByText(text).waitFor();
    await page.getByRole('button', { name: 'Close' }).click();
  }
  await loaded;
  await page.unroute('**/api/command');
  await page.getByRole('button', { name: 'REFRESH turning' }).waitFor();
}

async function main() {
  fs.mkdirSync(pictures, { recursive: true });
  // It sees pgimbal's pages alone, and neither root nor a container can have its sandbox.
  const args = ['--no-sandbox'];
  const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args, timeout: LIMIT });
  try {
    await { show, act }[process.argv[2]](browser);
  } finally {
    await browser.close();
  }
  assert.deepEqual(complaints, []);
  console.log('all done');
  process.exit(0);
}

main().catch((error) => {
  console.error(error, complaints);
  process.exit(1);
});
