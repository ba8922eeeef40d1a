// The pages work without this file. With it numbers move, charts are drawn, and the colours can be chosen.
"use strict";
(() => {
  const base = document.body.dataset.base;
  const $ = (selector, within = document) => within.querySelector(selector);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  // --- dark or light ---
  const root = document.documentElement;
  const stored = (() => { try { return localStorage.getItem("geard-theme"); } catch { return null; } })();
  if (stored) root.dataset.theme = stored;
  const isDark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";

  // --- what the address said once need not be said again ---
  const url = new URL(location.href);
  if (url.searchParams.has("said")) {
    url.searchParams.delete("said");
    history.replaceState(null, "", url);
  }

  // --- morph: make the page that is there like the one that came, and touch nothing that is the same ---
  const keyOf = (node) => (node.nodeType === 1 && node.dataset.key) || null;
  const own = new Set(["open", "hidden"]); // attributes that the reader's doing has set
  function morph(old, fresh) {
    if (old.isEqualNode(fresh) || (old.nodeType === 1 && old.hasAttribute("data-keep"))) return;
    if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName || keyOf(old) !== keyOf(fresh)) {
      old.replaceWith(fresh);
      return;
    }
    if (old.nodeType !== 1) {
      old.nodeValue = fresh.nodeValue;
      return;
    }
    if (old.contains(document.activeElement) && /^(INPUT|SELECT|TEXTAREA)$/.test(old.nodeName)) return;
    for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name) && !own.has(name)) old.removeAttribute(name);
    for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value && !own.has(name)) old.setAttribute(name, value);
    const keyed = new Map();
    for (const child of old.childNodes) if (keyOf(child)) keyed.set(keyOf(child), child);
    let at = old.firstChild;
    for (const child of [...fresh.childNodes]) {
      while (at && at.nodeType === 1 && at.hasAttribute("data-keep") && !keyOf(at)) at = at.nextSibling;
      const same = keyOf(child) && keyed.get(keyOf(child));
      if (same && same.nodeName === child.nodeName) {
        keyed.delete(keyOf(child));
        if (same !== at) old.insertBefore(same, at); else at = at.nextSibling;
        morph(same, child);
      } else if (at && !keyOf(at) && !keyOf(child) && at.nodeName === child.nodeName) {
        const next = at.nextSibling;
        morph(at, child);
        at = next;
      } else {
        old.insertBefore(child, at);
      }
    }
    while (at) {
      const next = at.nextSibling;
      if (!(at.nodeType === 1 && at.hasAttribute("data-keep"))) at.remove();
      at = next;
    }
  }

  // --- live ---
  let heardAt = Date.now(), failedAt = 0, stream = null, leaving = false;
  const live = $("#live"), lost = $("#lost");
  const clock = (ms) => new Date(ms).toLocaleTimeString();
  function heard() {
    heardAt = Date.now();
    failedAt = 0;
    lost.hidden = true;
    document.body.classList.remove("lost");
    drawNewest();
  }
  function connect() {
    if (stream) stream.close();
    stream = new EventSource(`${base}/events?view=${encodeURIComponent(location.pathname + location.search)}`);
    stream.addEventListener("page", (event) => {
      const { html } = JSON.parse(event.data);
      if (html) {
        const template = document.createElement("template");
        template.innerHTML = html;
        const focused = document.activeElement;
        morph(live, template.content.firstElementChild);
        if (focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true }); // its row moved
        dress();
      }
      heard();
    });
    stream.addEventListener("same", heard);
    stream.addEventListener("error", () => { failedAt = failedAt || Date.now(); });
  }
  if (document.body.dataset.page in { overview: 1, functions: 1, function: 1, running: 1, failures: 1, processes: 1, servers: 1, letters: 1, schedules: 1 }) {
    connect();
    setInterval(() => {
      if ((Date.now() - heardAt < 4000 && !failedAt) || leaving || document.hidden) return;
      if (lost.hidden) {
        $("#lost-since").textContent = clock(heardAt);
        lost.hidden = false;
        document.body.classList.add("lost");
      }
      if (stream.readyState === EventSource.CLOSED) connect();
    }, 1000);
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) stream.close();
      else { heardAt = Date.now(); connect(); }
    });
    addEventListener("pagehide", () => { leaving = true; stream.close(); });
    addEventListener("pageshow", (event) => { if (event.persisted) { leaving = false; heardAt = Date.now(); connect(); } });
  }

  // --- forms ---
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.dataset.confirm && !confirm(form.dataset.confirm)) { event.preventDefault(); return; }
    if (form.method === "post") for (const button of all("button", form)) button.disabled = true;
  });
  let typing = 0, byKey = false; // each arrow key is a choice to a select: who uses them asks by the button beside it
  document.addEventListener("keydown", () => { byKey = true; }, true);
  document.addEventListener("pointerdown", () => { byKey = false; }, true);
  document.addEventListener("input", (event) => {
    if (!event.target.hasAttribute("data-autosubmit")) return;
    clearTimeout(typing);
    const form = event.target.form;
    if (event.target.nodeName === "SELECT") { if (!byKey) form.submit(); return; }
    typing = setTimeout(() => {
      const to = new URL(form.action);
      for (const [name, value] of new FormData(form)) if (value) to.searchParams.set(name, value);
      history.replaceState(null, "", to);
      connect();
    }, 200);
  });

  // --- charts ---
  const charts = new Map();
  let data = null, span = "15m", asking = false, askedAt = 0;
  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const number = (value) => value == null ? "" : value >= 100 ? Math.round(value).toLocaleString("en") : value >= 10 || value === 0 || Number.isInteger(value) ? `${Math.round(value * 10) / 10}` : value.toPrecision(2);
  const duration = (value) => value == null ? "" : value === 0 ? "0" : value < 1 ? `${number(value * 1000)} ms` : value < 120 ? `${number(value)} s` : `${number(value / 60)} min`;
  const kinds = {
    rate: { series: [["done", "done", "--c1", true], ["failed", "failed", "--c2", true]], format: number },
    load: { series: [["running", "running", "--c4", true], ["waiting", "waiting", "--c5", false]], format: number },
    time: { series: [["p50", "p50", "--c3", true], ["p95", "p95", "--c5", false]], format: duration },
  };
  const columns = (kind) => [data.time, ...kinds[kind].series.map(([column]) => data[column])];
  function draw(figure) {
    const kind = kinds[figure.dataset.chart];
    const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    const chart = new uPlot({
      width: figure.clientWidth - 20, height: 170, cursor: { sync: { key: "geard" }, points: { size: 6 } },
      scales: { y: { range: (_, low, high) => [0, Math.max(high * 1.1, kind.format === duration ? 0.001 : 1)] } },
      axes: [{ ...axis, space: 70, size: 30, values: (_, ticks) => ticks.map((t) => new Date(t * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false })) }, { ...axis, size: 58, values: (_, ticks) => ticks.map(kind.format) }],
      series: [{}, ...kind.series.map(([, label, name, fill]) => ({ label, stroke: colour(name), width: 1.5, fill: fill ? `${colour(name)}22` : undefined, points: { show: false }, value: (chart, value, index) => kind.format(value ?? chart.data[index].at(-1)) }))],
    }, columns(figure.dataset.chart), figure);
    charts.set(figure, chart);
  }
  function redraw() {
    for (const chart of charts.values()) chart.destroy();
    charts.clear();
    if (data && data.time.length > 1) all(".chart").forEach(draw);
  }
  async function ask(after) {
    const name = $(".chart").dataset.function;
    const answer = await fetch(`${base}/api/chart?${new URLSearchParams({ function: name, span, after })}`);
    if (!answer.ok) throw new Error(answer.statusText);
    return answer.json();
  }
  async function drawNewest() {
    const section = $(".charts");
    if (!section || asking || Date.now() - askedAt < (span === "1d" ? 20000 : 900)) return;
    asking = true;
    askedAt = Date.now();
    try {
      const after = data && data.time.length ? data.time[data.time.length - 1] : 0;
      const fresh = await ask(after);
      const most = { "15m": 900, "1h": 3600, "1d": 1440 }[span];
      if (!data || !data.time.length) data = fresh;
      else for (const column of ["time", "done", "failed", "running", "waiting", "p50", "p95"]) data[column] = [...data[column], ...fresh[column] || []].slice(-most);
      section.hidden = data.time.length < 2;
      if (section.hidden) return;
      if (charts.size) for (const [figure, chart] of charts) chart.setData(columns(figure.dataset.chart));
      else redraw();
    } catch { /* the lost connection is said elsewhere */ } finally { asking = false; }
  }
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-span]");
    if (!button) return;
    span = button.dataset.span;
    for (const each of all("[data-span]")) each.setAttribute("aria-pressed", each === button);
    data = null; askedAt = 0;
    for (const chart of charts.values()) chart.destroy();
    charts.clear();
    drawNewest();
  });
  let resizing = 0;
  addEventListener("resize", () => { clearTimeout(resizing); resizing = setTimeout(redraw, 150); });

  const title = document.title;
  function dress() {
    const bad = Number($("header").dataset.bad);
    document.title = bad ? `(${bad}) ${title}` : title;
    const theme = $("#theme");
    theme.hidden = false;
    theme.onclick = () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      try { localStorage.setItem("geard-theme", root.dataset.theme); } catch { /* not kept, then */ }
      redraw();
    };
  }
  dress();
  const nav = $("header nav"), current = $("[aria-current]", nav);
  if (current) nav.scrollLeft = current.offsetLeft - (nav.clientWidth - current.clientWidth) / 2;
  drawNewest();
})();
