"use strict";

(() => {
  // The page is <stage>/admin/dashboard, the API begins at <stage>/.
  const API = new URL("../", location.href);
  const REFRESH_MS = 3_000;
  const SLOWEST_REFRESH_MS = 15_000;
  const TIMEOUT_MS = 10_000;
  const SEARCH_DELAY_MS = 300;
  const TOAST_MS = 6_000;
  const LIST = { limit: 20, sort: "-id" };
  const PLACES = ["after", "before", "skip"];
  const EXPORT_ROWS = 1_000;
  const EXPORT_PAGE = 100;

  const state = {
    paused: false,
    failuresInARow: 0,
    clockSkew: 0,
    status: null,
    actions: [],
    problems: { status: null, list: null },
    filter: {},
    page: {},
    links: {},
    openTask: null,
    draft: null,
    confirmed: null,
  };

  // --- API: every call returns { data, response } or { problem } ---------------------------------

  async function api(path, options) {
    const request = { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS), ...options };
    const token = sessionStorage.getItem("token");
    if (token) request.headers = { ...request.headers, Authorization: `Bearer ${token}` };
    let response;
    try {
      response = await fetch(new URL(path, API), request);
    } catch (error) {
      return { problem: unreachable(error) };
    }
    const data = await response.json().catch(() => null);
    // 401: there is no valid token. 403: the token lacks the admin scope.
    if (response.status === 401 || response.status === 403) openSignIn(problemOf(response, data));
    return response.ok && data !== null ? { data, response } : { problem: problemOf(response, data) };
  }

  function unreachable({ name }) {
    const cause = name === "TimeoutError" ? `No response within ${TIMEOUT_MS / 1000} seconds` : "No connection";
    return { title: "The API cannot be reached", detail: `${cause}: ${API.href}`, errors: [] };
  }

  // Some error responses come from API Gateway itself: {"message"} in place of problem details.
  function problemOf({ status, statusText }, data) {
    const title = data?.title ?? (statusText || "Unexpected response");
    return { title, status, detail: data?.detail ?? data?.message, errors: data?.errors ?? [] };
  }

  function parseLinks(response) {
    const links = (response.headers.get("Link") ?? "").matchAll(/<([^>]*)>\s*;\s*rel="?([\w-]+)"?/g);
    return Object.fromEntries(Array.from(links, ([, url, rel]) => [rel, new URL(url, response.url)]));
  }

  // --- DOM ---------------------------------------------------------------------------------------

  const $ = (id) => document.getElementById(id);

  // Unchanged text is not set again: the user's selection stays, and screen readers do not repeat
  // it.
  function setText(node, text) {
    if (node.textContent !== String(text)) node.textContent = text;
  }

  function element(tag, ...children) {
    const node = document.createElement(tag);
    node.append(...children);
    return node;
  }

  function svg(tag, attributes, ...children) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }

  function setStatus(node, status) {
    node.className = `status ${status}`;
    node.querySelector("use").setAttribute("href", `#icon-${status}`);
    setText(node.querySelector("span"), capitalize(status));
  }

  // aria-disabled, because a disabled button loses the keyboard focus.
  function setEnabled(button, enabled) {
    button.ariaDisabled = String(!enabled);
  }

  function onPress(button, action) {
    button.addEventListener("click", () => button.ariaDisabled === "true" || action(button));
  }

  // True once per change: unchanged content is not rendered again, and so not announced again.
  function changed(host, content) {
    const key = JSON.stringify(content);
    return host.dataset.key !== key && Boolean((host.dataset.key = key));
  }

  function showProblem(host, problem, footnote = "") {
    if (!changed(host, [problem, footnote])) return;
    host.replaceChildren();
    if (!problem) return;
    const { title, status, detail, errors } = problem;
    host.append(element("strong", status ? `${title} (${status})` : title));
    for (const text of [detail, footnote]) if (text) host.append(element("p", text));
    const items = errors.map((error) => element("li", element("code", error.pointer), ` ${error.detail}`));
    if (items.length) host.append(element("ul", ...items));
  }

  let toastTimer;
  function announce(text) {
    clearTimeout(toastTimer);
    $("announcement").textContent = text;
    toastTimer = setTimeout(() => $("announcement").replaceChildren(), TOAST_MS);
  }

  // --- Formatting --------------------------------------------------------------------------------

  const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "narrow" });
  const clock = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  const number = new Intl.NumberFormat("en");
  const UNITS = [["day", 86_400], ["hour", 3_600], ["minute", 60], ["second", 1]];

  const capitalize = (word) => word[0].toUpperCase() + word.slice(1);
  const plural = (count, one, many = `${one}s`) => `${number.format(count)} ${count === 1 ? one : many}`;
  const clockTime = (iso) => clock.format(new Date(iso));

  // Relative to the server's clock: the client's may be wrong. Only the time of a scheduled task can
  // be in the future.
  function relativeTime(iso, isFuture) {
    const age = Math.floor((Date.now() + state.clockSkew - Date.parse(iso)) / 1000);
    const distance = isFuture ? Math.abs(age) : Math.max(0, age);
    const [unit, size] = UNITS.find(([, seconds]) => distance >= seconds) ?? UNITS.at(-1);
    return relative.format((isFuture && age < 0 ? 1 : -1) * Math.floor(distance / size), unit);
  }

  function setTime(node, iso, isFuture = false) {
    node.dateTime = node.title = iso;
    node.toggleAttribute("data-future", isFuture);
    setText(node, relativeTime(iso, isFuture));
  }

  function tickTimes() {
    for (const node of document.querySelectorAll("time[datetime]")) {
      setText(node, relativeTime(node.dateTime, node.hasAttribute("data-future")));
    }
  }

  function formatSeconds(seconds) {
    if (seconds === null) return "–";
    if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
    if (seconds < 60) return `${Number(seconds.toFixed(seconds < 10 ? 1 : 0))} s`;
    if (seconds < 3_600) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
    return `${number.format(Math.floor(seconds / 3_600))} h ${Math.floor((seconds % 3_600) / 60)} min`;
  }

  // --- Charts ------------------------------------------------------------------------------------

  // Half of it, the label in the middle, is also a round number.
  function niceCeiling(value) {
    const power = 10 ** Math.floor(Math.log10(value));
    return power * [1, 2, 4, 6, 8, 10].find((step) => step * power >= value * 0.999);
  }

  function drawChart(host, minutes, { label, peak, format, describe, marks }) {
    const { clientWidth: width, clientHeight: height } = host;
    // While a window is resized, the chart can be narrower than its margins.
    const [left, right, top, bottom] = [72, Math.max(72, width - 4), 8, height - 22];
    const ceiling = niceCeiling(peak);
    const step = (right - left) / minutes.length;
    const x = (index) => left + (index + 0.5) * step;
    const y = (value) => bottom - (value / ceiling) * (bottom - top);
    const grid = [0, ceiling / 2, ceiling].flatMap((value) => [
      svg("line", { class: "grid", x1: left, x2: right, y1: y(value), y2: y(value) }),
      svg("text", { x: left - 8, y: y(value) + 4, "text-anchor": "end" }, format(value)),
    ]);
    const columns = minutes.flatMap((minute, index) => {
      const time = clockTime(minute.minute);
      const tooltip = svg("title", {}, `${time}: ${describe(minute)}`);
      const area = { class: "hit", x: x(index) - step / 2, y: top, width: step, height: bottom - top };
      const hit = svg("rect", area, tooltip);
      const name = svg("text", { x: x(index), y: height - 4, "text-anchor": "middle" }, time);
      return index % 10 === 5 ? [name, hit] : [hit];
    });
    const picture = { width, height, role: "img", "aria-label": label };
    host.replaceChildren(svg("svg", picture, ...grid, ...marks({ x, y, step }), ...columns));
  }

  function drawThroughput(minutes) {
    const sum = (name) => number.format(minutes.reduce((total, minute) => total + minute[name], 0));
    drawChart($("throughput-chart"), minutes, {
      label: `Last 30 minutes: ${sum("completed")} completed, ${sum("failed")} failed`,
      peak: Math.max(2, ...minutes.map(({ completed, failed }) => completed + failed)),
      format: number.format,
      describe: ({ completed, failed }) => `${completed} completed, ${failed} failed`,
      marks: (scale) => minutes.flatMap(({ completed, failed }, index) => [
        bar("completed", index, 0, completed, scale),
        bar("failed", index, completed, completed + failed, scale),
      ]),
    });
  }

  function bar(name, index, from, to, { x, y, step }) {
    const [width, height] = [step * 0.7, y(from) - y(to)];
    return svg("rect", { class: name, x: x(index) - width / 2, y: y(to), width, height });
  }

  function drawLatency(minutes) {
    const slowest = Math.max(...minutes.map(({ p99_seconds }) => p99_seconds ?? 0));
    drawChart($("latency-chart"), minutes, {
      label: `Time to finish over the last 30 minutes, slowest p99 ${formatSeconds(slowest || null)}`,
      peak: Math.max(0.1, slowest),
      format: formatSeconds,
      describe: (minute) => `p50 ${formatSeconds(minute.p50_seconds)}, p99 ${formatSeconds(minute.p99_seconds)}`,
      marks: (scale) => ["p99", "p50"].flatMap((name) => line(name, minutes, scale)),
    });
  }

  // A minute without a value interrupts the line; the dots keep single minutes visible.
  function line(name, minutes, { x, y }) {
    const values = minutes.map((minute) => minute[`${name}_seconds`]);
    const known = values.flatMap((value, index) => (value === null ? [] : [{ value, index }]));
    const command = (index) => ((values[index - 1] ?? null) === null ? "M" : "L");
    const steps = known.map(({ value, index }) => `${command(index)}${x(index)},${y(value)}`);
    const dots = known.map(({ value, index }) => svg("circle", { class: name, cx: x(index), cy: y(value), r: 2.2 }));
    return [svg("path", { class: name, d: steps.join("") }), ...dots];
  }

  function numbersRow({ minute, created, completed, failed, p50_seconds, p99_seconds }) {
    const head = element("th", clockTime(minute));
    head.scope = "row";
    const counts = [created, completed, failed].map(number.format);
    const latencies = [p50_seconds, p99_seconds].map(formatSeconds);
    return element("tr", head, ...[...counts, ...latencies].map((value) => element("td", value)));
  }

  function drawCharts() {
    const minutes = state.status?.throughput;
    if (!minutes || !changed($("numbers"), [minutes, $("throughput-chart").clientWidth])) return;
    drawThroughput(minutes);
    drawLatency(minutes);
    $("numbers").replaceChildren(...minutes.map(numbersRow));
  }

  // --- Status ------------------------------------------------------------------------------------

  function renderStatus(status) {
    const { tasks, queue, dead_letter_queue: deadLetters, recent_failures: failures } = status;
    if (state.status) announceChanges(state.status, status);
    state.status = status;
    state.clockSkew = Date.parse(status.generated_at) - Date.now();
    for (const node of $("counters").querySelectorAll("[data-count]")) {
      const about = status.estimates?.includes(`tasks.${node.dataset.count}`) ? "≈ " : "";
      setText(node, about + number.format(tasks[node.dataset.count]));
    }
    setText($("oldest"), tasks.oldest_pending_seconds === null ? "none" : formatSeconds(tasks.oldest_pending_seconds));
    renderDepths($("queue"), queue);
    renderDepths($("dead-letter-queue"), deadLetters);
    renderRedrive(deadLetters);
    renderProcessing();
    renderNotices(status.problems);
    syncRows($("failures"), failures, ({ result }) => result ?? "No reason recorded");
    $("failures-empty").hidden = failures.length > 0;
    $("welcome").hidden = tasks.total > 0;
    $("lists").hidden = tasks.total === 0;
    drawCharts();
  }

  function renderDepths(row, depths) {
    for (const cell of row.querySelectorAll("[data-depth]")) {
      setText(cell, depths ? number.format(depths[cell.dataset.depth]) : "n/a");
    }
  }

  function renderRedrive(deadLetters) {
    const available = deadLetters?.visible > 0;
    setEnabled($("redrive"), available);
    const hint = available ? "Moves the messages back to the task queue." : "The dead-letter queue is empty.";
    setText($("redrive-hint"), deadLetters ? hint : "The depth of the dead-letter queue is unknown.");
  }

  function renderProcessing() {
    const { paused } = state.status;
    $("paused").hidden = paused !== true;
    setEnabled($("pause-processing"), paused === false);
    const known = paused ? "Processing is paused." : "Messages wait in the task queue until processing is resumed.";
    setText($("pause-processing-hint"), paused === null ? "Whether processing is paused is unknown." : known);
    // The log does not tell who used the AWS CLI, or what is older than its latest page.
    const last = state.actions.find(({ action }) => action === "pause" || action === "resume");
    $("paused-by").hidden = last?.action !== "pause";
    if (last?.action !== "pause") return;
    setText($("paused-by").querySelector("strong"), last.operator);
    setTime($("paused-by").querySelector("time"), last.at);
  }

  function renderNotices(problems) {
    if (!changed($("notices"), problems)) return;
    $("notices").replaceChildren(...problems.map((text) => element("p", text)));
  }

  function announceChanges(before, after) {
    const failed = after.tasks.failed - before.tasks.failed;
    const dead = (after.dead_letter_queue?.visible ?? 0) - (before.dead_letter_queue?.visible ?? 0);
    if (state.problems.status) announce("Reconnected.");
    else if (after.paused && before.paused === false) announce("Processing is paused.");
    else if (before.paused && after.paused === false) announce("Processing is resumed.");
    else if (dead > 0 && before.dead_letter_queue) announce(`${plural(dead, "new message")} in the dead-letter queue.`);
    else if (failed > 0) announce(`${plural(failed, "more task", "more tasks")} failed.`);
  }

  function renderFreshness() {
    const mode = state.problems.status ? "failing" : state.paused ? "paused" : "live";
    const texts = { failing: "Disconnected, last updated", paused: "Updates paused, latest", live: "Live, updated" };
    $("freshness").dataset.mode = mode;
    setText($("freshness-text"), state.status ? texts[mode] : "No data yet");
    if (state.status) setTime($("last-good"), state.status.generated_at);
  }

  function renderProblems() {
    const { status, list } = state.problems;
    const lastUpdate = state.status && `Last update: ${new Date(state.status.generated_at).toLocaleString()}.`;
    showProblem($("status-problem"), status, lastUpdate ?? "No data has been loaded yet.");
    // A lost connection is reported once, not twice.
    showProblem($("list-problem"), list?.title === status?.title && list?.status === status?.status ? null : list);
  }

  // --- Lists of tasks ----------------------------------------------------------------------------

  // Rows are reused by id: focus, scroll position and selection survive a refresh.
  function syncRows(list, tasks, noteOf) {
    const rows = new Map(Array.from(list.children, (row) => [Number(row.dataset.id), row]));
    const wanted = new Set(tasks.map(({ id }) => id));
    rows.forEach((row, id) => wanted.has(id) || row.remove());
    tasks.forEach((task, index) => {
      const row = rows.get(task.id) ?? createRow(task.id);
      setStatus(row.querySelector(".status"), task.status);
      setText(row.querySelector(".row-title"), task.title);
      setText(row.querySelector(".row-note"), noteOf(task));
      setTime(row.querySelector("time"), task.updated_at);
      if (list.children[index] !== row) list.insertBefore(row, list.children[index]);
    });
  }

  function createRow(id) {
    const row = $("row").content.firstElementChild.cloneNode(true);
    row.dataset.id = id;
    onPress(row.querySelector("button"), () => openTask(id));
    return row;
  }

  function renderList({ data, response }) {
    state.links = parseLinks(response);
    syncRows($("task-list"), data, ({ id, attempts }) => `#${id} · ${plural(attempts, "attempt")}`);
    $("list-empty").hidden = data.length > 0;
    for (const button of $("pages").children) setEnabled(button, button.dataset.rel in state.links);
    setEnabled($("export"), data.length > 0);
  }

  const listUrl = (parameters) => `tasks?${new URLSearchParams({ ...parameters, ...state.filter, ...state.page })}`;

  const pageOf = (parameters) => Object.fromEntries(Array.from(parameters).filter(([name]) => PLACES.includes(name)));

  function showPage(link) {
    state.page = pageOf(link.searchParams);
    visit();
    loadList();
  }

  // A text that is being typed is one place, not one for each letter.
  function applyFilter(change) {
    const replace = Boolean(change.q && state.filter.q);
    setFilter({ ...state.filter, ...change });
    state.page = {};
    visit(replace);
    loadList();
  }

  function setFilter(filter) {
    state.filter = Object.fromEntries(Object.entries(filter).filter(([, value]) => value));
    const { status = "", q = "" } = state.filter;
    $("status-filter").value = status;
    if ($("search").value.trim() !== q) $("search").value = q;
    for (const button of $("counters").children) button.ariaPressed = String(button.dataset.status === status);
  }

  function clearFilters() {
    applyFilter({ status: "", q: "" });
    $("tasks-heading").focus();
  }

  // --- The address: filter, page and opened task -------------------------------------------------

  function visit(replace = false) {
    const task = state.openTask === null ? {} : { task: state.openTask };
    const query = new URLSearchParams({ ...state.filter, ...state.page, ...task }).toString();
    const url = `${location.pathname}${query && `?${query}`}`;
    if (url === `${location.pathname}${location.search}`) return;
    history[replace ? "replaceState" : "pushState"](null, "", url);
  }

  // Shows what the address says: after a reload, back or forward, and for a link of a colleague.
  function restore() {
    clearTimeout(searchTimer);
    const parameters = new URLSearchParams(location.search);
    const { status, q, task } = Object.fromEntries(parameters);
    const known = Array.from($("status-filter").options, (option) => option.value);
    setFilter({ status: known.includes(status) && status, q: q?.trim() });
    state.page = pageOf(parameters);
    const id = Number(task);
    if (Number.isSafeInteger(id) && id > 0) showTask(id);
    else closeTask();
    // Without what it cannot mean.
    visit(true);
  }

  // --- Export ------------------------------------------------------------------------------------

  async function exportTasks(button) {
    setEnabled(button, false);
    const tasks = [];
    let next = `tasks?${new URLSearchParams({ ...LIST, limit: EXPORT_PAGE, ...state.filter })}`;
    while (next && tasks.length < EXPORT_ROWS) {
      const { data, response, problem } = await api(next);
      if (problem) {
        setEnabled(button, true);
        state.problems.list = problem;
        return renderProblems();
      }
      tasks.push(...data);
      next = parseLinks(response).next;
    }
    download("tasks.csv", csv(tasks.slice(0, EXPORT_ROWS)));
    const some = next ? `The newest ${number.format(EXPORT_ROWS)} tasks` : plural(tasks.length, "task", "tasks");
    announce(`${some} exported.`);
    setEnabled(button, true);
  }

  // RFC 4180.
  function csv(tasks) {
    const names = Object.keys(tasks[0] ?? {});
    const lines = [names, ...tasks.map((task) => names.map((name) => task[name]))];
    return lines.map((fields) => `${fields.map(csvField).join(",")}\r\n`).join("");
  }

  // A spreadsheet would calculate a text that begins like a formula, also behind blanks or control
  // characters (OWASP, "CSV Injection").
  function csvField(value) {
    const isFormula = typeof value === "string" && /^[\s\p{C}]*[=+\-@＝＋－＠]|^[\t\r\n]/u.test(value);
    const text = `${isFormula ? "'" : ""}${value ?? ""}`;
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }

  function download(name, text) {
    const link = element("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href));
  }

  // --- Loading -----------------------------------------------------------------------------------

  const latest = {};

  // Responses can arrive out of order: only the latest request of each part is rendered.
  async function load(part, path, show) {
    const request = (latest[part] = (latest[part] ?? 0) + 1);
    const outcome = await api(path);
    if (request === latest[part]) show(outcome);
  }

  const loadStatus = () => load("status", "admin/status", ({ data, problem = null }) => {
    if (data) renderStatus(data);
    state.problems.status = problem;
    state.failuresInARow = problem ? state.failuresInARow + 1 : 0;
    renderProblems();
    renderFreshness();
  });

  const loadList = () => load("list", listUrl(LIST), ({ problem = null, ...success }) => {
    if (!problem) renderList(success);
    state.problems.list = problem;
    renderProblems();
  });

  const loadActions = () => load("actions", "admin/actions", ({ data, problem = null }) => {
    showProblem($("actions-problem"), state.problems.status ? null : problem);
    if (data) renderActions(data);
  });

  // They are grouped anew by each request, so less often than the rest is read.
  const REASONS_MS = 15_000;
  let reasonsAt = -REASONS_MS;
  function loadReasons() {
    if (performance.now() - reasonsAt < REASONS_MS) return undefined;
    reasonsAt = performance.now();
    return load("reasons", "admin/failures", ({ data, problem = null }) => {
      showProblem($("reasons-problem"), state.problems.status ? null : problem);
      if (data) renderReasons(data);
    });
  }

  function loadDetail() {
    const id = state.openTask;
    return id !== null && load("detail", `admin/tasks/${id}`, ({ data, problem }) => {
      if (id !== state.openTask) return;
      showProblem($("detail-problem"), problem);
      if (data) renderDetail(data);
    });
  }

  let refreshTimer;
  async function refresh() {
    clearTimeout(refreshTimer);
    try {
      await Promise.all([loadStatus(), loadList(), loadDetail(), loadActions(), loadReasons()]);
    } finally {
      scheduleRefresh();
    }
  }

  function scheduleRefresh() {
    clearTimeout(refreshTimer);
    if (state.paused || document.hidden) return;
    refreshTimer = setTimeout(refresh, Math.min(REFRESH_MS * 2 ** state.failuresInARow, SLOWEST_REFRESH_MS));
  }

  function togglePause() {
    state.paused = !state.paused;
    setText($("pause"), state.paused ? "Resume updates" : "Pause updates");
    renderFreshness();
    followVisibility();
  }

  function followVisibility() {
    if (state.paused || document.hidden) clearTimeout(refreshTimer);
    else refresh();
  }

  // --- Task detail -------------------------------------------------------------------------------

  function openTask(id) {
    showTask(id);
    visit();
  }

  function showTask(id) {
    if (id === state.openTask) return;
    state.openTask = id;
    setText($("detail-title"), `Task ${id}`);
    setText($("detail-note"), "");
    showProblem($("detail-problem"), null);
    $("schedule-form").reset();
    $("detail-body").hidden = true;
    if (!$("detail").open) $("detail").showModal();
    loadDetail();
  }

  function closeTask() {
    state.openTask = null;
    $("detail").close();
  }

  function renderDetail(task) {
    setText($("detail-title"), task.title);
    setStatus($("detail-status"), task.status);
    setText($("detail-id"), `#${task.id}`);
    setText($("detail-attempts"), number.format(task.attempts));
    setText($("detail-created-by"), task.created_by ?? "Unknown");
    setTime($("detail-created"), task.created_at);
    setTime($("detail-updated"), task.updated_at);
    setText($("detail-description"), task.description ?? "None");
    setText($("detail-result"), task.result ?? "None yet");
    const timeline = $("detail-timeline");
    if (changed(timeline, task.timeline)) timeline.replaceChildren(...task.timeline.map(timelineItem));
    const attempts = $("detail-attempt-list");
    if (changed(attempts, task.recent_attempts)) attempts.replaceChildren(...task.recent_attempts.map(attemptItem));
    $("detail-attempts-made").hidden = task.recent_attempts.length === 0;
    $("detail-scheduled").hidden = task.run_at === null;
    if (task.run_at !== null) setTime($("detail-run-at"), task.run_at, true);
    setText($("process"), task.status === "scheduled" ? "Run now" : "Process again");
    setEnabled($("cancel"), ["scheduled", "pending", "processing"].includes(task.status));
    $("detail-body").hidden = false;
  }

  function timelineItem({ at, event }) {
    const time = element("time");
    setTime(time, at, event === "scheduled");
    const item = element("li", capitalize(event), time);
    item.className = event;
    return item;
  }

  const OUTCOMES = {
    running: "running",
    completed: "completed",
    failed: "failed",
    retried: "failed, to be retried",
    lost: "lost: the worker stopped without an outcome",
    discarded: "discarded: a client changed the task",
  };

  function attemptItem({ number: nth, started_at, ended_at, outcome, error }) {
    const time = element("time");
    setTime(time, ended_at ?? started_at);
    const text = element("span", `${nth}: ${OUTCOMES[outcome] ?? outcome}`);
    if (error) text.append(element("span", error));
    const item = element("li", text, time);
    item.className = outcome;
    return item;
  }

  // --- What operators did --------------------------------------------------------------------------

  const ACTIONS = {
    update: "changed",
    process: "queued again",
    cancel: "cancelled",
    delete: "deleted",
    redrive: "redrove",
    pause: "paused",
    resume: "resumed",
    retry: "retried",
  };

  // Of actions without a task and a number.
  const OBJECTS = { redrive: "the dead-letter queue", pause: "processing", resume: "processing" };

  function renderActions(actions) {
    state.actions = actions;
    if (state.status) renderProcessing();
    if (changed($("actions"), actions)) $("actions").replaceChildren(...actions.map(actionItem));
    $("actions-empty").hidden = actions.length > 0;
  }

  function actionItem({ id, at, operator, action, task_id, filter, count, is_complete }) {
    const time = element("time");
    setTime(time, at);
    const messages = count === null ? (OBJECTS[action] ?? "") : plural(count, "message");
    const object = filter ? plural(count, "task") : task_id === null ? messages : `task ${task_id}`;
    const text = element("span", element("strong", operator), ` ${ACTIONS[action] ?? action} ${object}`);
    if (filter) text.append(element("span", Object.entries(filter).map(([name, value]) => `${name}: ${value}`).join(", ")));
    if (!is_complete) {
      const button = element("button", "Continue");
      button.type = "button";
      onPress(button, () => continueUnfinished({ id, action, filter }));
      text.append(" (not finished) ", button);
    }
    return element("li", text, time);
  }

  // --- Failures by reason ------------------------------------------------------------------------

  function renderReasons({ groups, is_complete, since }) {
    $("reasons-hint").hidden = is_complete;
    $("reasons-empty").hidden = groups.length > 0;
    // The start of the day moves on; the filter needs it only to the minute.
    if (changed($("reasons"), [groups, localTime(since)])) {
      $("reasons").replaceChildren(...groups.map((group) => reasonItem(group, since)));
    }
  }

  function reasonItem({ error, count, first_at, last_at, example_id, example_error }, since) {
    const [first, last] = [element("time"), element("time")];
    setTime(first, first_at);
    setTime(last, last_at);
    const show = element("button", `Task ${example_id}`);
    onPress(show, () => openTask(example_id));
    const buttons = [show];
    if (error) {
      const retry = element("button", "Retry these…");
      onPress(retry, () => {
        openBulk({ action: "retry", status: "failed", error, ended_after: since });
        countBulk();
      });
      buttons.push(retry);
    }
    for (const button of buttons) button.type = "button";
    const text = element("span", element("strong", number.format(count)), ` × ${error || "No reason recorded"}`);
    text.title = example_error ?? "";
    return element("li", text, element("p", "First ", first, ", last ", last), ...buttons);
  }

  // --- All matching tasks ------------------------------------------------------------------------

  const BULK = { retry: "Retry", cancel: "Cancel", delete: "Delete" };
  let bulkRun = 0;

  function openBulk(filter) {
    $("bulk-form").reset();
    for (const [name, value] of Object.entries(filter)) {
      const field = $("bulk-form").elements[name];
      field.value = field.type === "datetime-local" ? localTime(value) : value;
    }
    resetBulk();
    $("bulk").showModal();
  }

  // As `datetime-local` has it.
  function localTime(iso) {
    const time = new Date(iso);
    return new Date(time - time.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
  }

  // As the API has it; undefined if the field is empty.
  const utcTime = (local) => (local ? new Date(local).toISOString() : undefined);

  // The number is that of another filter.
  function resetBulk() {
    bulkRun += 1;
    showProblem($("bulk-problem"), null);
    setText($("bulk-note"), "");
    $("bulk-progress").hidden = $("bulk-run").hidden = true;
    setEnabled($("bulk-count"), true);
  }

  function bulkBody() {
    const fields = Object.entries(Object.fromEntries(new FormData($("bulk-form")))).filter(([, value]) => value);
    const isTime = (name) => $("bulk-form").elements[name].type === "datetime-local";
    return Object.fromEntries(fields.map(([name, value]) => [name, isTime(name) ? utcTime(value) : value]));
  }

  const json = (method, body) => ({ method, body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });
  const postJson = (body) => json("POST", body);

  async function countBulk(event) {
    event?.preventDefault();
    resetBulk();
    const run = bulkRun;
    const body = bulkBody();
    setEnabled($("bulk-count"), false);
    const { data, problem = null } = await api("admin/actions", postJson({ ...body, dry_run: true }));
    if (run !== bulkRun) return;
    setEnabled($("bulk-count"), true);
    showProblem($("bulk-problem"), problem);
    if (!data) return;
    state.bulk = { body, count: data.count };
    const tasks = `${data.is_exact ? "" : "about "}${plural(data.count, "task")}`;
    setText($("bulk-note"), `${capitalize(tasks)} match. Nothing was changed.`);
    setText($("bulk-run"), `${BULK[body.action]} ${tasks}`);
    $("bulk-run").hidden = data.is_exact && data.count === 0;
  }

  async function runBulk() {
    const { body, count } = state.bulk;
    $("bulk-run").hidden = true;
    await takeSteps("admin/actions", postJson({ ...body, dry_run: false }), body.action, count);
  }

  function continueUnfinished({ id, action, filter }) {
    const shown = Object.entries(filter).filter(([name]) => name in $("bulk-form").elements);
    openBulk({ action, ...Object.fromEntries(shown) });
    takeSteps(`admin/actions/${id}/continue`, { method: "POST" }, action, null);
  }

  // Until the action is complete, fails, or the dialog is closed: it can be continued later.
  async function takeSteps(path, options, action, expected) {
    const run = bulkRun;
    setEnabled($("bulk-count"), false);
    const progress = $("bulk-progress");
    progress.removeAttribute("value");
    progress.hidden = false;
    for (;;) {
      const { data, problem = null } = await api(path, options);
      loadActions();
      if (run !== bulkRun || !$("bulk").open) return;
      showProblem($("bulk-problem"), problem, problem ? "The tasks changed so far remain changed. “Actions of operators” continues the rest." : "");
      if (data && expected) {
        progress.max = Math.max(expected, data.count, 1);
        progress.value = data.count;
      }
      if (data) setText($("bulk-note"), `${plural(data.count, "task")} ${ACTIONS[action]}${data.is_complete ? "." : " so far…"}`);
      if (!data || data.is_complete) break;
      path = `admin/actions/${data.id}/continue`;
      options = { method: "POST" };
    }
    progress.hidden = true;
    setEnabled($("bulk-count"), true);
    refresh();
  }

  // --- Actions -----------------------------------------------------------------------------------

  // Sends one write. Its button is disabled meanwhile; `show` displays the problem, if any.
  async function act(button, show, path, options) {
    setEnabled(button, false);
    const { data, problem = null } = await api(path, options);
    setEnabled(button, true);
    show(problem);
    if (data) refresh();
    return data;
  }

  const showAt = (id) => (problem) => showProblem($(id), problem);

  async function processAgain(button) {
    const id = state.openTask;
    const confirmation = await act(button, showAt("detail-problem"), `tasks/${id}/process`, { method: "POST" });
    if (confirmation && id === state.openTask) setText($("detail-note"), confirmation.message);
  }

  async function cancelTask(button) {
    const id = state.openTask;
    const task = await act(button, showAt("detail-problem"), `tasks/${id}/cancel`, { method: "POST" });
    if (task && id === state.openTask) setText($("detail-note"), `Task ${id} cancelled`);
  }

  async function scheduleTask(event) {
    event.preventDefault();
    const button = $("schedule");
    if (button.ariaDisabled === "true") return;
    const id = state.openTask;
    const body = JSON.stringify({ run_at: utcTime($("schedule-at").value) });
    const options = { method: "PATCH", body, headers: { "Content-Type": "application/json" } };
    const task = await act(button, showAt("detail-problem"), `tasks/${id}`, options);
    // A time that has passed means now.
    if (task && id === state.openTask) setText($("detail-note"), `Task ${id} ${task.status === "scheduled" ? "scheduled" : "queued"}`);
  }

  function openConfirm({ heading, text, label, style, run }) {
    state.confirmed = run;
    setText($("confirm-heading"), heading);
    setText($("confirm-text"), text);
    setText($("confirm-run"), label);
    $("confirm-run").className = style;
    showProblem($("confirm-problem"), null);
    $("confirm").showModal();
  }

  async function runConfirmed(button, path, options) {
    const confirmation = await act(button, showAt("confirm-problem"), path, options);
    if (!confirmation) return false;
    $("confirm").close();
    announce(confirmation.message);
    return true;
  }

  function confirmDelete() {
    const id = state.openTask;
    const text = `“${$("detail-title").textContent}” and its timeline will be deleted. This cannot be undone.`;
    const run = async (button) => {
      if (!(await runConfirmed(button, `tasks/${id}`, { method: "DELETE" }))) return;
      $("detail").close();
      $("tasks-heading").focus();
    };
    openConfirm({ heading: `Delete task ${id}?`, text, label: "Delete task", style: "danger", run });
  }

  function confirmRedrive() {
    const messages = plural(state.status.dead_letter_queue.visible, "message");
    const text = `${messages} will be moved back to the task queue and retried.`;
    const run = (button) => runConfirmed(button, "admin/redrive", { method: "POST" });
    openConfirm({ heading: "Redrive the dead-letter queue?", text, label: "Redrive", style: "primary", run });
  }

  function confirmPause() {
    const text = "Messages will wait in the task queue until processing is resumed. Tasks that are being processed are completed.";
    const run = async (button) => {
      const done = await act(button, showAt("confirm-problem"), "admin/processing", json("PUT", { paused: true }));
      if (done) $("confirm").close();
    };
    openConfirm({ heading: "Pause processing?", text, label: "Pause processing", style: "danger", run });
  }

  async function resumeProcessing(button) {
    const done = await act(button, showAt("paused-problem"), "admin/processing", json("PUT", { paused: false }));
    // The button will be hidden, which would lose the focus.
    if (done) $("pause-processing").focus();
  }

  function openSignIn(problem) {
    if ($("sign-in").open) return;
    // A first sign-in follows no failed one: there is no problem to show.
    showProblem($("sign-in-problem"), sessionStorage.getItem("token") ? problem : null);
    $("sign-in").showModal();
  }

  function signIn(event) {
    event.preventDefault();
    sessionStorage.setItem("token", $("token").value.trim());
    event.target.reset();
    $("sign-in").close();
    refresh();
  }

  async function createTask(event) {
    event.preventDefault();
    const form = event.target;
    if ($("create-submit").ariaDisabled === "true") return;
    const { title, description, run_at } = Object.fromEntries(new FormData(form));
    const body = JSON.stringify({ title, description: description || undefined, run_at: utcTime(run_at) });
    // A form that is submitted again creates the same task: its key stays until it succeeds or is
    // edited.
    if (state.draft?.body !== body) state.draft = { body, key: randomKey() };
    const headers = { "Content-Type": "application/json", "Idempotency-Key": state.draft.key };
    const task = await act($("create-submit"), showFormProblem, "tasks", { method: "POST", body, headers });
    if (!task) return;
    state.draft = null;
    form.reset();
    $("create").close();
    announce(`Task ${task.id} ${task.status === "scheduled" ? "scheduled" : "created"}.`);
  }

  // Not crypto.randomUUID, which is available only over https and on localhost.
  function randomKey() {
    return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  function showFormProblem(problem) {
    const fields = ["title", "description", "run_at"];
    const errors = problem?.errors ?? [];
    for (const field of fields) {
      const own = errors.filter(({ pointer }) => pointer === `#/${field}`);
      setText($(`${field}-error`), own.map(({ detail }) => detail).join(" "));
      $(field).ariaInvalid = String(own.length > 0);
    }
    const others = errors.filter(({ pointer }) => !fields.some((field) => pointer === `#/${field}`));
    // Every mistake is shown at its field already.
    const shown = errors.length > 0 && others.length === 0;
    showProblem($("create-problem"), shown ? null : problem && { ...problem, errors: others });
    document.querySelector("#create-form [aria-invalid='true']")?.focus();
  }

  // --- Start -------------------------------------------------------------------------------------

  function listen() {
    onPress($("pause"), togglePause);
    onPress($("redrive"), confirmRedrive);
    onPress($("pause-processing"), confirmPause);
    onPress($("resume-processing"), resumeProcessing);
    onPress($("process"), processAgain);
    onPress($("cancel"), cancelTask);
    onPress($("delete"), confirmDelete);
    onPress($("confirm-run"), (button) => state.confirmed(button));
    onPress($("clear-filters"), clearFilters);
    onPress($("open-bulk"), () => openBulk(state.filter));
    onPress($("bulk-run"), runBulk);
    $("bulk-form").addEventListener("submit", countBulk);
    $("bulk-form").addEventListener("input", resetBulk);
    $("bulk").addEventListener("close", resetBulk);
    $("create-form").addEventListener("submit", createTask);
    $("schedule-form").addEventListener("submit", scheduleTask);
    $("sign-in-form").addEventListener("submit", signIn);
    $("create").addEventListener("close", () => showFormProblem(null));
    $("detail").addEventListener("close", () => {
      // The event comes later: another task may be open already.
      if ($("detail").open) return;
      state.openTask = null;
      visit();
    });
    addEventListener("popstate", () => {
      restore();
      loadList();
    });
    onPress($("export"), exportTasks);
    for (const button of document.querySelectorAll("[data-open-form]")) onPress(button, () => $("create").showModal());
    for (const button of document.querySelectorAll("[data-close]")) onPress(button, closeDialog);
    for (const button of $("pages").children) onPress(button, () => showPage(state.links[button.dataset.rel]));
    for (const button of $("counters").children) onPress(button, filterByCounter);
    $("status-filter").addEventListener("change", (event) => applyFilter({ status: event.target.value }));
    $("search").addEventListener("input", searchSoon);
    document.addEventListener("visibilitychange", followVisibility);
    new ResizeObserver(drawCharts).observe($("throughput-chart"));
    setInterval(tickTimes, 1_000);
  }

  function closeDialog(button) {
    button.closest("dialog").close();
  }

  function filterByCounter(button) {
    applyFilter({ status: button.dataset.status });
    $("tasks-heading").scrollIntoView({ block: "nearest" });
  }

  let searchTimer;
  function searchSoon() {
    clearTimeout(searchTimer);
    searchTimer = setTimeout(() => applyFilter({ q: $("search").value.trim() }), SEARCH_DELAY_MS);
  }

  $("curl-url").textContent = new URL("tasks", API);
  listen();
  restore();
  refresh();
})();
