'use strict';
(() => {
  const OFTEN = 2000; // milliseconds between two looks at this replica's tables
  const SELDOM = 10000; // the same of what is dear to make
  const SVG = 'http://www.w3.org/2000/svg';
  const $ = (id) => document.getElementById(id);

  // ---- texts ----

  // Characters that nobody sees or that turn a line around are written as their code.
  const HIDDEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;
  const clean = (value) =>
    String(value).replace(HIDDEN, (c) => '\\u{' + c.codePointAt(0).toString(16) + '}');

  function element(name, attributes, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) {
      if (value === true) made.setAttribute(key, '');
      else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
    }
    made.append(...children);
    return made;
  }

  function drawn(name, attributes) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  }

  function say(node, text) {
    if (node.textContent !== text) node.textContent = text;
  }

  const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
  const short = new Intl.NumberFormat('en', { maximumSignificantDigits: 3 });
  function amount(value) {
    if (value === null || value === undefined) return '';
    for (const [size, name] of [[1e9, ' G'], [1e6, ' M'], [1e4, ' k']]) {
      if (Math.abs(value) >= size) return short.format(value / (size === 1e4 ? 1e3 : size)) + name;
    }
    return Number.isInteger(value) ? whole.format(value) : short.format(value);
  }
  function span(seconds) {
    if (seconds === null || seconds === undefined) return '';
    if (seconds === 0) return '0 s';
    if (seconds < 0.001) return short.format(seconds * 1e6) + ' µs';
    if (seconds < 1) return short.format(seconds * 1000) + ' ms';
    if (seconds < 60) return short.format(seconds) + ' s';
    const s = Math.round(seconds);
    if (s < 3600) return Math.floor(s / 60) + ' min ' + (s % 60) + ' s';
    if (s < 86400) return Math.floor(s / 3600) + ' h ' + (Math.floor(s / 60) % 60) + ' min';
    return Math.floor(s / 86400) + ' d ' + (Math.floor(s / 3600) % 24) + ' h';
  }
  function bytes(count) {
    if (count === null || count === undefined) return '';
    for (const [size, name] of [[2 ** 30, 'GiB'], [2 ** 20, 'MiB'], [2 ** 10, 'KiB']]) {
      if (count >= size) return short.format(count / size) + ' ' + name;
    }
    return whole.format(count) + ' B';
  }
  const count = (n, one, many) => amount(n) + ' ' + (n === 1 ? one : many);

  // The rows of a table as objects by the names of its columns.
  function objects(table) {
    if (!table) return [];
    return table.rows.map((row) => Object.fromEntries(table.columns.map((name, i) => [name, row[i]])));
  }

  // ---- tables ----

  // A table whose rows stay the same elements while their texts change, so that what has the focus
  // keeps it. A column is {title, text, sub, kind, badge, warns, optional}: functions of a row make
  // its text, what stands below it, its badge, and whether it is to be seen at once; an optional
  // column is not there while it has no text.
  class Table {
    constructor(holder, label, columns, key, empty, actions) {
      this.columns = columns;
      this.key = key;
      this.actions = actions;
      this.rows = new Map();
      this.empty = element('p', { class: 'empty' }, empty);
      this.more = element('p', { class: 'more', hidden: true });
      const head = element('tr', { role: 'row' });
      for (const column of columns) {
        const kind = column.kind === 'number' ? 'number' : null;
        head.append(element('th', { role: 'columnheader', scope: 'col', class: kind }, column.title));
      }
      this.heads = [...head.children];
      if (actions) head.append(element('th', { role: 'columnheader', scope: 'col' }, 'Commands'));
      this.commandsHead = actions ? head.lastChild : null;
      this.body = element('tbody', { role: 'rowgroup' });
      const top = element('thead', { role: 'rowgroup' }, head);
      this.table = element('table', { role: 'table', 'aria-label': label, hidden: true }, top, this.body);
      holder.replaceChildren(element('div', { class: 'box figures' }, this.empty, this.table, this.more));
    }

    show(rows, leftOut) {
      const focused = document.activeElement;
      const seen = new Set();
      let place = this.body.firstChild;
      for (const row of rows) {
        let key = this.key(row);
        while (seen.has(key)) key += ' again';
        seen.add(key);
        let kept = this.rows.get(key);
        if (!kept) {
          kept = this.make();
          this.rows.set(key, kept);
        }
        this.fill(kept, row);
        if (kept.row === place) place = place.nextSibling;
        else this.body.insertBefore(kept.row, place);
      }
      for (const [key, kept] of this.rows) {
        if (seen.has(key)) continue;
        kept.row.remove();
        this.rows.delete(key);
      }
      this.columns.forEach((column, index) => {
        if (!column.optional) return;
        const cells = [...this.rows.values()].map((kept) => kept.cells[index]);
        const unused = cells.every(({ text }) => text.textContent === '');
        for (const cell of [this.heads[index], ...cells.map(({ cell }) => cell)]) cell.hidden = unused;
      });
      this.table.hidden = rows.length === 0;
      this.empty.hidden = rows.length > 0;
      this.more.hidden = !leftOut;
      if (leftOut) say(this.more, 'and ' + whole.format(leftOut) + ' more, on the console');
      if (this.commandsHead) this.commandsHead.hidden = !session.admin;
      if (focused !== document.activeElement && focused && focused.isConnected) focused.focus();
    }

    make() {
      const row = element('tr', { role: 'row' });
      const cells = this.columns.map((column, index) => {
        const first = index === 0;
        const cell = element(first ? 'th' : 'td', {
          role: first ? 'rowheader' : 'cell',
          scope: first ? 'row' : null,
          'data-title': column.title,
        });
        const text = element('bdi', {});
        const sub = column.sub ? element('bdi', { class: 'sub' }) : null;
        const inside = element('span', {}, text);
        if (sub) inside.append(sub);
        cell.append(inside);
        row.append(cell);
        return { cell, text, sub };
      });
      return { row, cells, commands: null };
    }

    fill(kept, row) {
      this.columns.forEach((column, index) => {
        const { cell, text, sub } = kept.cells[index];
        const value = column.text(row);
        say(text, value === null || value === undefined ? '' : clean(value));
        if (sub) say(sub, clean(column.sub(row) || ''));
        const badge = column.badge ? 'badge ' + column.badge(row) : '';
        if (text.className !== badge) text.className = badge;
        const warns = column.warns && column.warns(row) ? ' warn' : '';
        const blank = text.textContent === '' && !(sub && sub.textContent) ? ' blank' : '';
        const look = ((column.kind === 'number' ? 'number' : '') + warns + blank).trim();
        if (cell.className !== look) cell.className = look;
      });
      if (!this.actions) return;
      if (!kept.commands) {
        kept.commands = element('td', { role: 'cell', 'data-title': 'Commands' }, element('span', { class: 'actions' }));
        kept.row.append(kept.commands);
      }
      kept.commands.hidden = !session.admin;
      commandButtons(kept.commands.firstChild, session.admin ? this.actions(row) : []);
    }
  }

  // ---- commands ----

  const session = { admin: false, csrf: null };

  const MEANING = {
    HOLD: 'Writes to this cluster wait from now on, on every replica. Once failover_hold is over they are refused (57P03), until somebody says RESUME: neither time nor a restart ends it. Say it before a planned switchover.',
    RESUME: 'Writes to this cluster that wait go on, on every replica.',
    REFRESH: 'The source of this user’s password is asked at once, on every replica.',
    'REVOKE OLD': 'All passwords of this user but the newest are refused from now on, on every replica. This cannot be taken back. Sessions that have logged in with an old one stay.',
  };

  // The buttons for these [command, target]; one that is there stays.
  function commandButtons(holder, wanted) {
    const names = wanted.map(([command, target]) => command + ' ' + target);
    for (const button of [...holder.children]) {
      if (!names.includes(button.dataset.command)) button.remove();
    }
    for (const [command, target] of wanted) {
      const name = command + ' ' + target;
      if ([...holder.children].some((button) => button.dataset.command === name)) continue;
      const label = command + ' ' + clean(target);
      const button = element('button', { type: 'button', 'aria-label': label, title: label }, command);
      button.dataset.command = name;
      button.addEventListener('click', () => confirm(command, target));
      holder.append(button);
    }
  }

  const dialog = $('confirm');
  let pending = null;

  function confirm(command, target) {
    pending = [command, target];
    say($('confirm-title'), command + ' ' + clean(target) + '?');
    say($('confirm-text'), MEANING[command]);
    $('confirm-result').replaceChildren();
    const yes = $('confirm-yes');
    say(yes, command);
    yes.hidden = false;
    yes.disabled = false;
    say($('confirm-no'), 'Cancel');
    dialog.showModal();
    $('confirm-no').focus();
  }

  async function run() {
    const [command, target] = pending;
    const result = $('confirm-result');
    $('confirm-yes').disabled = true;
    result.replaceChildren(element('p', {}, 'Asking …'));
    let answered = false; // whether nothing was done is known
    try {
      const answer = await fetch('/api/command', {
        method: 'POST',
        headers: { 'content-type': 'application/json', 'x-pgimbal-csrf': session.csrf },
        body: JSON.stringify({ command, target }),
      });
      if (answer.status === 401) return location.reload();
      const outcome = await answer.json();
      if (!answer.ok) {
        answered = answer.status < 500;
        throw new Error(outcome.error);
      }
      const list = element('ul', {});
      for (const [replica, said] of outcome.replicas) {
        const name = element('bdi', {}, clean(replica));
        list.append(element('li', {}, ...(replica ? [name, ': '] : []), element('bdi', {}, clean(said))));
      }
      const head = element('p', { class: outcome.ok ? null : 'bad' });
      const done = outcome.ok ? 'Done. ' : outcome.replicas.length ? 'Not done everywhere. ' : 'Not done. ';
      head.textContent = done + clean(outcome.said);
      result.replaceChildren(head, list);
    } catch (error) {
      const why = answered
        ? 'Not done: '
        : 'No answer came, and it may have been done; look before you repeat it: ';
      result.replaceChildren(element('p', { class: 'bad' }, why + clean(error.message)));
    }
    $('confirm-yes').hidden = true;
    say($('confirm-no'), 'Close');
    $('confirm-no').focus();
    look(lookOften);
  }

  $('confirm-yes').addEventListener('click', run);
  $('confirm-no').addEventListener('click', () => dialog.close());

  // ---- log in and out ----

  const post = (path, body) =>
    fetch(path, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'x-pgimbal-csrf': session.csrf || '' },
      body: JSON.stringify(body),
    });

  $('enter').addEventListener('click', () => {
    say($('login-error'), '');
    $('token').value = '';
    $('login').showModal();
    $('token').focus();
  });
  $('login-no').addEventListener('click', () => $('login').close());
  $('login-form').addEventListener('submit', async (event) => {
    event.preventDefault();
    try {
      const answer = await post('/api/login', { token: $('token').value.trim() });
      if (answer.ok) return location.reload();
      say($('login-error'), (await answer.json()).error);
    } catch {
      say($('login-error'), 'pgimbal does not answer');
    }
    $('token').select();
  });
  $('leave').addEventListener('click', async () => {
    await post('/api/logout', {});
    location.replace('/');
  });

  // ---- graphs ----

  const CHARTS = [
    { title: 'Transactions and queries per second', form: amount, lines: [['transactions', 'transactions'], ['queries', 'queries'], ['errors', 'errors']] },
    { title: 'Clients', form: amount, lines: [['clients_active', 'active'], ['clients_waiting', 'waiting'], ['clients_idle', 'idle']] },
    { title: 'Waiting for a server connection', form: span, lines: [['mean_wait', 'mean of those served'], ['longest_wait', 'longest at the moment']] },
    { title: 'Server connections', form: amount, lines: [['servers_active', 'active'], ['servers_idle', 'idle']] },
    { title: 'Bytes per second', form: bytes, lines: [['received', 'from clients'], ['sent', 'to clients']] },
    { title: 'Lag of replicas', form: span, lines: [['lag', 'greatest']] },
  ];
  const WIDTH = 600;
  const HEIGHT = 100;

  // The least of 1, 2 and 5 times a power of ten that is not below `value`.
  function ceiling(value) {
    if (value <= 0) return 1;
    const power = 10 ** Math.floor(Math.log10(value));
    return [1, 2, 5, 10].map((n) => n * power).find((top) => top >= value * 0.9999);
  }

  class Chart {
    constructor(holder, { title, form, lines }) {
      this.title = title;
      this.form = form;
      this.lines = lines;
      this.svg = drawn('svg', { viewBox: '0 0 ' + WIDTH + ' ' + HEIGHT, preserveAspectRatio: 'none', role: 'img' });
      for (const part of [0, 0.5, 1]) {
        const y = HEIGHT * part;
        this.svg.append(drawn('line', { class: 'grid', x1: 0, x2: WIDTH, y1: y, y2: y }));
      }
      this.cursor = drawn('line', { class: 'cursor', y1: 0, y2: HEIGHT, visibility: 'hidden' });
      this.paths = lines.map((_, i) => drawn('path', { class: 'line line' + i }));
      this.svg.append(...this.paths, this.cursor);
      this.top = element('span', {});
      this.half = element('span', {});
      const scale = element('div', { class: 'scale', 'aria-hidden': 'true' }, this.top, this.half, element('span', {}, '0'));
      this.values = lines.map(() => element('span', {}));
      this.when = element('li', { class: 'muted' });
      const legend = element('ul', { class: 'legend' });
      lines.forEach(([, name], i) => {
        const sample = drawn('svg', { viewBox: '0 0 26 8', 'aria-hidden': 'true' });
        sample.append(drawn('line', { class: 'line line' + i, x1: 0, x2: 26, y1: 4, y2: 4 }));
        legend.append(element('li', {}, sample, name + ' ', this.values[i]));
      });
      legend.append(this.when);
      const times = element('div', { class: 'times', 'aria-hidden': 'true' });
      for (const text of ['15 min ago', '10', '5', 'now']) times.append(element('span', {}, text));
      this.figures = element('details', {}, element('summary', {}, 'Figures'), element('div', {}));
      const names = lines.map(([, name]) => ({ title: name[0].toUpperCase() + name.slice(1), kind: 'number' }));
      const columns = [{ title: 'Time', text: (row) => row[0] }].concat(
        names.map((column, i) => ({ ...column, text: (row) => row[i + 1] })),
      );
      this.table = new Table(this.figures.lastChild, title + ', minute by minute', columns, (row) => row[0], 'No figures yet.');
      this.figures.addEventListener('toggle', () => this.draw(history));
      const plot = element('div', { class: 'plot' }, scale, this.svg);
      holder.append(element('figure', {}, element('figcaption', {}, title), plot, times, legend, this.figures));
      this.svg.addEventListener('pointermove', (event) => this.point(event));
      this.svg.addEventListener('pointerleave', () => this.unpoint());
    }

    draw({ points, values, kept, step }) {
      const columns = this.lines.map(([name]) => values.indexOf(name) + 1);
      let greatest = 0;
      for (const point of points) for (const column of columns) greatest = Math.max(greatest, point[column]);
      const top = ceiling(greatest);
      say(this.top, this.form(top));
      say(this.half, this.form(top / 2));
      const last = points.length ? points[points.length - 1][0] : 0;
      this.x = (point) => WIDTH - ((last - point[0]) / 1000 / (step * (kept - 1))) * WIDTH;
      this.columns = columns;
      columns.forEach((column, i) => {
        let path = '';
        let before = null;
        for (const point of points) {
          const y = HEIGHT - (point[column] / top) * HEIGHT;
          // A gap, as after a pause of the machine, is no line.
          const joins = before !== null && point[0] - before < step * 3000;
          path += (joins ? 'L' : 'M') + this.x(point).toFixed(1) + ' ' + y.toFixed(1);
          before = point[0];
        }
        this.paths[i].setAttribute('d', path || 'M0 0');
      });
      this.points = points;
      if (!this.pointed) this.legend(points[points.length - 1], '');
      const spoken = this.lines.map(([, name], i) => {
        if (!points.length) return name + ': nothing yet';
        const all = points.map((point) => point[columns[i]]);
        return name + ' now ' + this.form(all[all.length - 1]) + ', at most ' + this.form(Math.max(...all));
      });
      this.svg.setAttribute('aria-label', this.title + ', the last 15 minutes: ' + spoken.join('; '));
      if (this.figures.open) this.tabulate(points, columns, step);
    }

    tabulate(points, columns, step) {
      const each = Math.round(60 / step);
      const rows = [];
      for (let i = points.length - 1; i >= 0; i -= each) {
        const time = new Date(points[i][0]).toLocaleTimeString('en-GB');
        rows.push([time].concat(columns.map((column) => this.form(points[i][column]))));
      }
      this.table.show(rows, 0);
    }

    legend(point, when) {
      this.values.forEach((value, i) => say(value, point ? this.form(point[this.columns[i]]) : '–'));
      say(this.when, when);
    }

    point(event) {
      if (!this.points || !this.points.length) return;
      const box = this.svg.getBoundingClientRect();
      const at = ((event.clientX - box.left) / box.width) * WIDTH;
      const near = (a, b) => (Math.abs(this.x(a) - at) < Math.abs(this.x(b) - at) ? a : b);
      const point = this.points.reduce(near);
      this.pointed = true;
      for (const x of ['x1', 'x2']) this.cursor.setAttribute(x, this.x(point));
      this.cursor.setAttribute('visibility', 'visible');
      this.legend(point, new Date(point[0]).toLocaleTimeString('en-GB'));
    }

    unpoint() {
      this.pointed = false;
      this.cursor.setAttribute('visibility', 'hidden');
      if (this.points) this.legend(this.points[this.points.length - 1], '');
    }
  }

  const history = { next: 0, step: 5, kept: 180, values: [], points: [], database: '' };

  async function lookAtHistory() {
    const asked = history.database;
    const query = '?since=' + history.next + (asked ? '&database=' + encodeURIComponent(asked) : '');
    const got = await ask('/api/history' + query);
    if (asked !== history.database) return; // another one was chosen meanwhile
    if (got.next < history.next) {
      // The process was started anew.
      history.next = 0;
      history.points = [];
      return lookAtHistory();
    }
    history.next = got.next;
    history.step = got.step;
    history.kept = got.kept;
    history.values = got.values;
    history.points = history.points.concat(got.points).slice(-got.kept);
    offer(got.databases);
    for (const chart of charts) chart.draw(history);
    tiles();
  }

  function offer(databases) {
    const select = $('database');
    const names = [...databases];
    if (history.database && !names.includes(history.database)) names.push(history.database);
    const there = [...select.options].slice(1).map((option) => option.value);
    if (there.join('\n') === names.join('\n')) return;
    const chosen = select.value;
    const options = names.map((name) => {
      const option = element('option', {}, clean(name));
      option.value = name;
      return option;
    });
    select.replaceChildren(select.options[0], ...options);
    select.value = chosen;
  }

  $('database').addEventListener('change', (event) => {
    history.database = event.target.value;
    history.next = 0;
    history.points = [];
    look(lookAtHistory);
  });

  const charts = CHARTS.map((chart) => new Chart($('charts'), chart));

  // ---- the tables of pgimbal ----

  const name = (row) => row.database + ' ' + row.user;
  const wait = (row) => row.maxwait + row.maxwait_us / 1e6;

  const pools = new Table($('pools'), 'Pools', [
    { title: 'Database', text: (row) => row.database },
    { title: 'User', text: (row) => row.user },
    { title: 'Mode', text: (row) => row.pool_mode },
    { title: 'Clients active', kind: 'number', text: (row) => amount(row.cl_linked) },
    { title: 'Clients waiting', kind: 'number', text: (row) => amount(row.cl_waiting), warns: (row) => row.cl_waiting > 0 },
    { title: 'Clients idle', kind: 'number', text: (row) => amount(row.cl_idle) },
    { title: 'Clients pinned', kind: 'number', text: (row) => amount(row.cl_pinned) },
    { title: 'Longest wait', kind: 'number', text: (row) => span(wait(row)), warns: (row) => row.cl_waiting > 0 },
    { title: 'Servers active', kind: 'number', text: (row) => amount(row.sv_active) },
    { title: 'Servers idle', kind: 'number', text: (row) => amount(row.sv_idle) },
    { title: 'Servers opening', kind: 'number', text: (row) => amount(row.sv_login) },
  ], name, 'No client has connected yet.');

  const STATES = { primary: 'good', replica: 'good' };
  const nodeColumns = [
    { title: 'Node', text: (row) => row.node, sub: (row) => row.address },
    { title: 'State', text: (row) => row.state, badge: (row) => STATES[row.state] || 'warn' },
    { title: 'Role', text: (row) => row.role },
    { title: 'Timeline', kind: 'number', text: (row) => row.timeline },
    { title: 'Position', kind: 'number', text: (row) => row.lsn },
    { title: 'Lag', kind: 'number', text: (row) => [bytes(row.lag_bytes), row.lag_ms === null ? '' : span(row.lag_ms / 1000)].filter(Boolean).join(', ') },
    { title: 'Last asked', kind: 'number', text: (row) => (row.last_probe_ms === null ? 'never' : span(row.last_probe_ms / 1000) + ' ago') },
    { title: 'Why', text: (row) => row.why },
  ];
  const clusters = new Map();

  function showClusters(rows) {
    $('s-clusters').hidden = rows.length === 0;
    const named = new Map();
    for (const row of rows) named.set(row.cluster, [...(named.get(row.cluster) || []), row]);
    for (const [cluster, nodes] of named) {
      let shown = clusters.get(cluster);
      if (!shown) {
        const actions = element('span', { class: 'actions' });
        const head = element('div', { class: 'head' }, element('h3', {}, 'Cluster ', element('bdi', {}, clean(cluster))), actions);
        const holder = element('div', {});
        const box = element('div', { class: 'cluster' }, head, holder);
        $('clusters').append(box);
        const table = new Table(holder, 'Nodes of ' + clean(cluster), nodeColumns, (row) => row.node + ' ' + row.address, 'No node.');
        shown = { box, actions, table };
        clusters.set(cluster, shown);
      }
      shown.table.show(nodes, 0);
      commandButtons(shown.actions, session.admin ? [['HOLD', cluster], ['RESUME', cluster]] : []);
    }
    for (const [cluster, shown] of clusters) {
      if (named.has(cluster)) continue;
      shown.box.remove();
      clusters.delete(cluster);
    }
  }

  const using = (one) => 'No. ' + one.generation + ': ' + count(one.clients, 'client', 'clients') + ', ' + count(one.servers, 'server connection', 'server connections');
  const old = (user) => user.generations.slice(1).some((one) => one.clients + one.servers > 0);
  const credentials = new Table($('credentials'), 'Passwords that rotate', [
    { title: 'User', text: (user) => user.user },
    { title: 'Source', text: (user) => user.role },
    { title: 'Newest', kind: 'number', text: (user) => (user.generation === null ? 'none known' : 'No. ' + user.generation), sub: (user) => (user.age_seconds === null ? '' : span(user.age_seconds) + ' old') },
    { title: 'Next rotation', optional: true, kind: 'number', text: (user) => (user.next_rotation_seconds === null ? '' : user.next_rotation_seconds === 0 ? 'due' : 'in ' + span(user.next_rotation_seconds)) },
    { title: 'Last asked', text: (user) => user.last_result, badge: (user) => (user.last_result === 'ok' ? 'good' : 'bad'), sub: (user) => (user.stale_seconds > 0 ? 'failing for ' + span(user.stale_seconds) : user.last_fetch) },
    { title: 'Newest in use', text: (user) => (user.generations.length ? using(user.generations[0]) : '') },
    { title: 'Older in use', optional: true, text: (user) => user.generations.slice(1).map(using).join('; '), warns: old },
  ], (user) => user.user, 'No password rotates.', (user) => [['REFRESH', user.user], ['REVOKE OLD', user.user]]);

  // One object for each user, with the rows of its generations.
  function users(rows) {
    const all = new Map();
    for (const row of rows) {
      const user = all.get(row.user) || { ...row, generations: [] };
      if (row.generation !== null) user.generations.push(row);
      all.set(row.user, user);
    }
    return [...all.values()];
  }

  const client = (row) => (row.port === null ? row.addr : (row.addr.includes(':') ? '[' + row.addr + ']' : row.addr) + ':' + row.port);
  const clientColumns = [
    { title: 'Client', text: client, sub: (row) => row.ptr },
    { title: 'Database', text: (row) => row.database },
    { title: 'User', text: (row) => row.user },
    { title: 'Application', text: (row) => row.application_name },
  ];
  const pinned = new Table($('pinned'), 'Pinned sessions', clientColumns.concat([
    { title: 'Why', text: (row) => row.pinned },
    { title: 'For', kind: 'number', text: (row) => span(row.pinned_seconds) },
    { title: 'Server process', kind: 'number', text: (row) => row.server_pid },
  ]), (row) => row.ptr, 'No session keeps its server connection.');
  const oldPasswords = new Table($('old'), 'Clients with an old password', clientColumns.concat([
    { title: 'Password', kind: 'number', text: (row) => 'No. ' + row.generation },
    { title: 'Connected', text: (row) => row.connect_time },
  ]), (row) => row.ptr, 'Nobody is connected with an old password.');

  const budget = new Table($('budget'), 'Connections to servers, over all replicas', [
    { title: 'Server', text: (row) => row.server },
    { title: 'Replica', optional: true, text: (row) => row.replica },
    { title: 'Used', kind: 'number', text: (row) => amount(row.used) },
    { title: 'May use', kind: 'number', text: (row) => (row.limit === null ? 'no limit' : amount(row.limit)) },
    { title: 'Of all', optional: true, kind: 'number', text: (row) => amount(row.budget) },
    { title: 'Waiting', kind: 'number', text: (row) => amount(row.waiting), warns: (row) => row.waiting > 0 },
    { title: 'Borrowed', optional: true, kind: 'number', text: (row) => amount(row.borrowed) },
    { title: 'Lent', optional: true, kind: 'number', text: (row) => amount(row.lent) },
    { title: 'State', text: (row) => row.state, badge: (row) => (row.state === 'shared' || row.state === 'alone' ? '' : 'warn') },
  ], (row) => row.server + ' ' + row.replica, 'No server was connected to yet.');

  const failovers = new Table($('failovers'), 'Failovers', [
    { title: 'Began', text: (row) => row.started },
    { title: 'Cluster', text: (row) => row.cluster },
    { title: 'From', text: (row) => row.from },
    { title: 'To', text: (row) => row.to },
    { title: 'Timeline', kind: 'number', text: (row) => row.timeline },
    { title: 'Took', kind: 'number', text: (row) => span(row.duration_ms / 1000) },
    { title: 'Waited', kind: 'number', text: (row) => amount(row.held) },
    { title: 'Run again', kind: 'number', text: (row) => amount(row.rerun) },
    { title: 'Failed', kind: 'number', text: (row) => amount(row.failed), warns: (row) => row.failed > 0 },
    { title: 'Why', text: (row) => row.why },
  ], (row) => row.cluster + ' ' + row.started, 'No change of primary was seen.');

  const peers = new Table($('peers'), 'Replicas of pgimbal', [
    { title: 'Replica', text: (row) => row.replica, sub: (row) => row.address },
    { title: 'Version', text: (row) => row.version },
    { title: 'State', text: (row) => row.state, badge: (row) => (row.state === 'alive' || row.state === 'self' ? 'good' : 'bad') },
    { title: 'Accepts clients', text: (row) => row.ready },
    { title: 'Heard', kind: 'number', text: (row) => (row.heard_ms === null ? '' : span(row.heard_ms / 1000) + ' ago') },
    { title: 'Why', text: (row) => row.why },
  ], (row) => row.address + ' ' + row.replica, 'There is no other replica.');

  // ---- the figures at the top ----

  let shown = null;
  const tileNodes = new Map();

  function tile(title, value, unit, warns) {
    let node = tileNodes.get(title);
    if (!node) {
      node = { value: element('span', {}), unit: element('small', {}) };
      node.dd = element('dd', {}, node.value, ' ', node.unit);
      $('tiles').append(element('div', {}, element('dt', {}, title), node.dd));
      tileNodes.set(title, node);
    }
    say(node.value, value);
    say(node.unit, unit || '');
    node.dd.className = warns ? 'warn' : '';
  }

  function tiles() {
    if (!shown) return;
    const { process, rows } = shown;
    const sum = (column) => rows.reduce((total, row) => total + row[column], 0);
    const waiting = sum('cl_waiting');
    const longest = rows.reduce((most, row) => Math.max(most, wait(row)), 0);
    const point = history.database ? null : history.points[history.points.length - 1];
    const of = (value) => (point ? amount(point[history.values.indexOf(value) + 1]) : '–');
    tile('Clients', amount(process.clients), 'of ' + amount(process.max_clients));
    if (!history.database) tile('Transactions', of('transactions'), 'per second');
    tile('Waiting', amount(waiting), waiting === 1 ? 'client' : 'clients', waiting > 0);
    tile('Longest wait', span(longest), '', waiting > 0);
    tile('Server connections', amount(sum('sv_active')), 'active, ' + amount(sum('sv_idle')) + ' idle');
    const pinned = sum('cl_pinned');
    tile('Pinned', amount(pinned), pinned === 1 ? 'session' : 'sessions');
  }

  // ---- looking ----

  class Refused extends Error {}

  async function ask(path) {
    const answer = await fetch(path, { headers: { accept: 'application/json' } });
    if (answer.status === 401) {
      // The session is over: the page asks for a token.
      location.reload();
      throw new Refused('log in again');
    }
    if (!answer.ok) throw new Refused((await answer.json()).error);
    return answer.json();
  }

  let notices = { often: '', seldom: '' };
  let trouble = '';
  let paused = false;

  function banner() {
    const texts = [trouble, notices.often, notices.seldom].filter(Boolean);
    const text = clean([...new Set(texts)].join(' · '));
    say($('status'), text);
    $('status').hidden = text === '';
  }

  async function lookOften() {
    const got = await ask('/api/tables');
    const { tables, process } = got;
    notices.often = got.notices;
    const rows = objects(tables.pools);
    shown = { process, rows };
    say($('replica'), clean(process.replica));
    say($('version'), process.version);
    say($('phase'), process.phase);
    $('phase').className = 'badge ' + (process.phase === 'serving' ? 'good' : 'warn');
    const title = process.replica ? clean(process.replica) + ' · pgimbal' : 'pgimbal';
    if (document.title !== title) document.title = title;
    tiles();
    showClusters(objects(tables.nodes));
    pools.show(rows, tables.pools.left_out);
    credentials.show(users(objects(tables.credentials)), tables.credentials.left_out);
    failovers.show(objects(tables.failovers).reverse(), tables.failovers.left_out);
    const others = objects(tables.peers);
    $('s-peers').hidden = others.length === 0;
    peers.show(others, tables.peers.left_out);
    say($('updated'), 'as of ' + new Date().toLocaleTimeString('en-GB'));
  }

  async function lookSeldom() {
    const [sessions, replicas] = await Promise.all([ask('/api/sessions'), ask('/api/replicas')]);
    notices.seldom = [sessions.notices, replicas.notices].filter(Boolean).join(' · ');
    pinned.show(objects(sessions.tables.pinned), sessions.tables.pinned.left_out);
    oldPasswords.show(objects(sessions.tables.old_passwords), sessions.tables.old_passwords.left_out);
    budget.show(objects(replicas.tables.budget), replicas.tables.budget.left_out);
  }

  async function look(at) {
    try {
      await at();
      trouble = '';
    } catch (error) {
      trouble = error instanceof Refused ? error.message : 'pgimbal does not answer; the figures are old';
    }
    banner();
  }

  // One look after another, none while nobody looks.
  async function keepLooking(at, pause) {
    for (;;) {
      if (!paused && !document.hidden) await look(at);
      await new Promise((done) => setTimeout(done, trouble ? Math.max(pause, 5000) : pause));
    }
  }

  $('pause').addEventListener('click', () => {
    paused = !paused;
    $('pause').setAttribute('aria-pressed', String(paused));
    if (!paused) look(lookOften);
  });

  async function begin() {
    try {
      const got = await ask('/api/session');
      session.admin = got.level === 'admin';
      session.csrf = got.csrf;
      $('enter').hidden = session.admin || !got.has_commands;
      $('leave').hidden = !got.has_session;
    } catch {
      trouble = 'pgimbal does not answer';
      banner();
    }
    keepLooking(lookOften, OFTEN);
    keepLooking(lookAtHistory, history.step * 1000);
    keepLooking(lookSeldom, SELDOM);
  }

  begin();
})();
