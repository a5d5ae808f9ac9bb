// The status page: takes snapshots from /events and puts them into the document. Nothing is fetched from outside.
import { DASH, makeFormat } from "./format.js";
import { connect } from "./stream.js";
import { TEXTS } from "./texts.js";

const POINTS = 60;
const STALE_AFTER_S = 5;
const SVG = "http://www.w3.org/2000/svg";
const TONES = {
  ready: "good", normal: "good", loading: "warn", warming: "warn", queued: "warn", draining: "warn",
  recovering: "warn", backoff: "warn", pressure: "bad", failed: "bad", quarantined: "bad", blocked: "bad",
};
const MOVING = new Set(["loading", "warming", "draining", "recovering"]);

const $ = (id) => document.getElementById(id);
const remembered = (store, name) => { try { return store.getItem(name); } catch { return null; } };
const remember = (store, name, value) => { try { store.setItem(name, value); } catch { /* private mode: for this visit only */ } };

let language = remembered(localStorage, "ondol.language");
if (!(language in TEXTS)) language = navigator.language?.startsWith("ko") ? "ko" : "en";
let texts = TEXTS[language];
let format = makeFormat(language, texts);
let latest = null;
let connection = { state: "connecting" };
let key = remembered(sessionStorage, "ondol.key");
let staleTimer;
const history = [];

function setText(node, value) {
  if (node.textContent !== value) node.textContent = value;
}

function element(tag, { text, children = [], ...attributes } = {}) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  for (const [name, value] of Object.entries(attributes)) if (value !== undefined) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** Replaces the children only when something changed, so that selections and screen readers are left in peace. */
function fill(parent, nodes) {
  const next = element("div", { children: nodes });
  if (parent.innerHTML !== next.innerHTML) parent.replaceChildren(...nodes);
}

function pill(state, label) {
  return element("span", { class: "pill", "data-tone": TONES[state], "data-moving": MOVING.has(state) ? "" : undefined, text: label });
}

function announce(sentence) {
  setText($("announcer"), sentence);
}

// --- curves -----------------------------------------------------------------------------------------------------

function spark(place, values, { label, show, top }) {
  const known = values.filter((value) => value !== null);
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 100 40");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  const draw = (name, attributes) => {
    const shape = document.createElementNS(SVG, name);
    for (const [key_, value] of Object.entries(attributes)) shape.setAttribute(key_, value);
    svg.append(shape);
  };
  draw("line", { class: "base", x1: 0, x2: 100, y1: 40, y2: 40 });
  if (known.length) {
    const ceiling = top ?? Math.max(...known, 1) * 1.15;
    const x = (i) => 100 - ((values.length - 1 - i) * 100) / (POINTS - 1);
    const points = values.flatMap((value, i) => (value === null ? [] : [[x(i), 38 - (36 * value) / ceiling]]));
    const path = points.map(([px, py]) => `${px.toFixed(2)},${py.toFixed(2)}`).join("L");
    draw("path", { class: "area", d: `M${path}L100,40L${points[0][0].toFixed(2)},40Z` });
    // A single point is drawn as a dot: a line of no length with round ends.
    draw("path", { class: "line", d: `M${path}${points.length === 1 ? "h0" : ""}` });
    const [low, high] = [Math.min(...known), Math.max(...known)];
    svg.setAttribute("aria-label", texts.sparkLabel(label, show(known.at(-1)), show(low), show(high), history.at(-1).at - history[0].at));
  } else {
    svg.setAttribute("aria-label", `${label}: ${DASH}`);
  }
  place.replaceChildren(svg);
}

function renderCurves() {
  const pick = (name) => history.map((point) => point[name]);
  spark($("spark-hits"), pick("hitRate"), { label: texts.hitRate, show: format.percent, top: 100 });
  spark($("spark-memory"), pick("memory"), { label: texts.memory, show: format.percent, top: 100 });
  spark($("spark-rate"), pick("rate"), { label: texts.requests, show: format.rate });
  if (!$("twin").open) return;
  const now = history.at(-1).at;
  fill($("twin-rows"), history.toReversed().map((point) => element("tr", {
    children: [
      element("th", { scope: "row", text: format.count(now - point.at) }),
      ...[format.percent(point.hitRate), format.percent(point.memory), format.rate(point.rate)].map((text) => element("td", { text })),
    ],
  })));
}

function keep(snapshot) {
  const at = Math.round(snapshot.uptime_s ?? 0);
  // A restarted server counts from zero: its curve begins anew.
  if (history.length && at < history.at(-1).at) history.length = 0;
  const lookups = (snapshot.cache.hits ?? 0) + (snapshot.cache.misses ?? 0);
  history.push({
    at, hitRate: lookups ? snapshot.cache.hit_rate : null, memory: snapshot.memory.percent, rate: snapshot.requests.per_s,
  });
  if (history.length > POINTS) history.shift();
}

// --- sections ---------------------------------------------------------------------------------------------------

function headline(s, ready) {
  if (!s.is_ready) return texts.notReady;
  if (!s.models.length) return texts.readyNoModels;
  if (ready === s.models.length) return texts.ready;
  return ready ? texts.readySome : texts.readyLazy;
}

function renderHead(s) {
  const ready = s.models.filter((model) => model.is_ready).length;
  setText($("headline"), headline(s, ready));
  const parts = s.models.length ? [texts.modelsReady(ready, s.models.length)] : [];
  setText($("subline"), [...parts, texts.running(format.duration(s.uptime_s))].join(" · "));
  setText($("environment"), s.environment);
  $("environment").hidden = !s.environment;
  setText($("foot"), texts.foot(s.version, format.percent(s.process.cpu_percent), format.count(s.process.threads)));
}

function renderTiles(s) {
  const hasLookups = s.cache.hits + s.cache.misses > 0;
  setText($("hit-rate"), hasLookups ? format.percent(s.cache.hit_rate) : DASH);
  setText($("hit-note"), hasLookups ? texts.hits(format.count(s.cache.hits), format.count(s.cache.misses)) : texts.noLookups);
  setText($("memory"), format.percent(s.memory.percent));
  fill($("memory-note"), [
    element("span", { text: texts.memoryOf(format.bytes(s.memory.used_bytes), format.bytes(s.memory.limit_bytes)) }),
    element("span", { text: texts.process(format.bytes(s.memory.rss_bytes)) }),
  ]);
  fill($("rate"), [format.rate(s.requests.per_s), element("small", { text: ` ${texts.perSecond}` })]);
  fill($("rate-note"), s.requests.count
    ? [
      element("span", { text: texts.latency(format.seconds(s.requests.p50_s), format.seconds(s.requests.p99_s)) }),
      element("span", { text: texts.lately }),
    ]
    : [texts.noRequests]);
}

/** How long ago something of a model was, by the server's clock, with the time itself as title; nothing when unknown. */
function when(model, at, say = (ago) => ago) {
  const date = new Date(typeof at === "number" ? Math.round(at) * 1000 : NaN);
  if (Number.isNaN(date.getTime())) return [];
  const now = typeof model.since_s === "number" ? model.changed_at + model.since_s : Date.now() / 1000;
  const ago = format.ago(now - at);
  return [element("time", { datetime: date.toISOString(), title: format.moment(date), text: say(ago) })];
}

/** The state of a model, and since when; while it is on its way also how far it is, and how long it still takes. */
function stateOf(model) {
  const isOnItsWay = typeof model.progress === "number" && model.progress < 1;
  const percent = format.percent(isOnItsWay ? 100 * model.progress : null);
  const soon = (seconds) => format.seconds(Math.max(0.1, Math.round(seconds * 10) / 10));
  const notes = isOnItsWay ? [percent] : [];
  if (typeof model.retry_in_s === "number") notes.push(texts.retryIn(soon(model.retry_in_s)));
  else if (typeof model.eta_s === "number") notes.push(texts.timeLeft(soon(model.eta_s)));
  return [
    pill(model.state, texts[`state_${model.state}`] ?? model.state),
    ...(isOnItsWay ? [element("progress", { max: 1, value: model.progress, "aria-label": texts.progressOf(model.name, percent) })] : []),
    ...(notes.length ? [element("span", { class: "note", text: notes.join(" · ") })] : []),
    ...when(model, model.changed_at),
  ];
}

function reasonOf(model) {
  const reason = element("span", { lang: "en", text: model.reason });
  if (!model.last_error) return [reason];
  const time = when(model, model.last_error_at);
  const isNew = !model.reason.includes(model.last_error);
  if (!isNew && !time.length) return [reason];
  const error = isNew ? [element("span", { lang: "en", text: model.last_error }), ...(time.length ? [" · "] : [])] : [];
  return [reason, element("span", { class: "last", children: [element("b", { text: texts.lastError }), " ", ...error, ...time] })];
}

function renderModels(s) {
  const cell = (head, text, name) => element("td", { "data-head": head, class: name, text });
  // Before a model is loaded, size and load time are what it is expected to take.
  const about = (model, text) => (model.is_ready || text === DASH ? text : `≈\u00a0${text}`);
  fill($("model-rows"), s.models.map((model) => element("tr", {
    children: [
      element("th", { scope: "row", children: [model.name, ...(model.is_pinned ? [" ", element("span", { class: "badge", text: texts.pinned })] : [])] }),
      element("td", { class: "state", children: stateOf(model) }),
      element("td", { class: "why", children: reasonOf(model) }),
      element("td", { "data-head": texts.inUse, class: "n", children: [
        element("span", { children: [format.count(model.leases), ...when(model, model.last_used_at, texts.usedAgo)] }),
      ] }),
      cell(texts.size, about(model, format.bytes(model.size_bytes)), "n"),
      cell(texts.loadTime, about(model, format.seconds(model.load_seconds)), "n"),
    ],
  })));
  setText($("model-count"), s.models.length ? String(s.models.length) : "");
  $("models").hidden = !s.models.length;
  $("models-empty").hidden = s.models.length > 0;
}

/** A moment by this machine's clock, said by `say`; nothing when it is not known. */
function moment(at, say = (time) => time) {
  const date = new Date(typeof at === "number" ? Math.round(at) * 1000 : NaN);
  if (Number.isNaN(date.getTime())) return [];
  return [element("time", { datetime: date.toISOString(), title: format.moment(date), text: say(format.clock(date)) })];
}

/** The nodes with a dot between each two. */
function dotted(nodes) {
  return nodes.flatMap((node, i) => (i ? [" · ", node] : [node]));
}

function silenceOf(alert) {
  if (!alert.is_silenced) return [];
  const until = moment(alert.silenced_until, texts.silencedUntil);
  return until.length ? until : [texts.silenced];
}

function alertItem(alert, facts) {
  return element("li", {
    "data-severity": alert.severity,
    "data-silenced": alert.is_silenced ? "" : undefined,
    children: [
      element("span", { class: "pill", text: texts[`severity_${alert.severity}`] ?? alert.severity }),
      element("b", { text: alert.name }),
      ...(facts.length ? [element("span", { class: "facts", children: dotted(facts) })] : []),
      ...[alert.reason, alert.message].filter(Boolean).map((text) => element("span", { lang: "en", class: "said", text })),
    ],
  });
}

function valueOf(alert) {
  return typeof alert.value === "number" ? [texts.valueIs(format.figure(alert.value))] : [];
}

function eventItem(event) {
  return element("li", {
    title: event.reason,
    children: [
      ...moment(event.at),
      element("b", { text: event.name }),
      element("span", {
        class: "pill",
        "data-tone": event.state === "resolved" ? "good" : event.severity === "critical" ? "bad" : "warn",
        text: texts[`event_${event.state}`] ?? event.state,
      }),
    ],
  });
}

function noticeRow(notifier) {
  const counts = texts.noticeCounts(format.count(notifier.sent), format.count(notifier.failed), format.count(notifier.queued));
  const error = notifier.last_error ? [element("span", { class: "last", lang: "en", text: notifier.last_error })] : [];
  return element("div", { children: [element("dt", { text: notifier.name }), element("dd", { children: [counts, ...error] })] });
}

function renderAlerts(s) {
  fill($("alerts"), s.alerts.map((alert) => alertItem(alert, [...moment(alert.starts_at, texts.since), ...valueOf(alert), ...silenceOf(alert)])));
  fill($("pending-alerts"), s.pending_alerts.map((alert) => alertItem(alert, [texts.pending, ...valueOf(alert)])));
  fill($("alert-events"), s.alert_events.map(eventItem));
  fill($("notices"), s.notices.map(noticeRow));
  $("alert-events-part").hidden = !s.alert_events.length;
  $("notices-part").hidden = !s.notices.length;
  setText($("alert-count"), s.alerts.length ? String(s.alerts.length) : "");
  const none = s.is_monitored ? texts.noAlerts : texts.notMonitored;
  setText($("alerts-empty"), none);
  $("alerts-empty").classList.toggle("calm", s.is_monitored);
  $("alerts-empty").hidden = s.alerts.length > 0;
  if (s.alerts.length !== (latest?.alerts.length ?? 0)) announce(s.alerts.length ? texts.saidAlerts(s.alerts.length) : none);
}

function renderTuning(s) {
  const state = s.tuner.mode === "off" ? "off" : s.tuner.state;
  const label = $("tuner-state");
  setText(label, texts[`tuner_${state}`] ?? state);
  label.dataset.tone = TONES[state] ?? "";
  fill($("decisions"), s.tuner.decisions.map((text) => element("li", { text, lang: "en" })));
  $("decisions-empty").hidden = s.tuner.decisions.length > 0;
}

function rows(pairs) {
  return pairs.map(([name, value]) => element("div", { children: [element("dt", { text: name }), element("dd", { text: value })] }));
}

function renderCache(s) {
  const { used_bytes: used, max_bytes: bound } = s.cache;
  fill($("cache"), rows([
    [texts.used, texts.of(format.bytes(used), format.bytes(bound))],
    [texts.entries, format.count(s.cache.entries)],
    [texts.evictions, format.count(s.cache.evictions)],
    [texts.saved, format.seconds(s.cache.saved_seconds)],
    [texts.policy, s.cache.policy_in_charge ?? DASH],
    ...Object.entries(s.cache.tiers ?? {}).map(([name, tier]) => [
      texts.tiers[name] ?? name,
      tier.is_up ? texts.tierHits(format.count(tier.hits)) : texts.tierDown,
    ]),
  ]));
}

function renderPreload(s) {
  const p = s.preloader;
  const blocked = p.blocked.map((model) => texts.waitsOn(model.name, model.waits_on.join(", "))).join(", ");
  fill($("preload"), rows([
    [texts.successRate, p.attempts ? format.percent(p.success_rate) : DASH],
    [texts.queued, format.count(p.queued)],
    [texts.loading, format.count(p.loading)],
    [texts.failed, format.count(p.failed)],
    [texts.blocked, blocked || texts.none],
    ...(p.paused_reason ? [[texts.paused, p.paused_reason]] : []),
  ]));
}

function render(s) {
  for (const part of [renderHead, renderTiles, renderModels, renderAlerts, renderTuning, renderCache, renderPreload, renderCurves]) part(s);
  $("figures").hidden = false;
  $("key-form").hidden = true;
}

// --- connection and language ------------------------------------------------------------------------------------

function renderConnection() {
  const { state, waitS } = connection;
  $("connection").dataset.state = state;
  setText($("connection-text"), state === "lost" ? texts.lost(waitS) : texts[state]);
  document.body.classList.toggle("is-stale", state === "lost" || state === "stale");
}

function setConnection(state, more = {}) {
  if (state === "live" && connection.state !== "live") announce(texts.saidConnected);
  connection = { state, ...more };
  renderConnection();
}

function onState(state, { waitS, isKeyRefused } = {}) {
  if (state === "open") return; // "Live" is shown when the first figures are here.
  clearTimeout(staleTimer);
  setConnection(state, { waitS });
  if (state === "lost") announce(texts.lost(waitS));
  if (state !== "locked") return;
  $("figures").hidden = true;
  $("key-form").hidden = false;
  setText($("key-error"), isKeyRefused ? texts.keyWrong : "");
  setText($("headline"), texts.locked);
  setText($("subline"), "");
  $("key").focus();
}

function onEvent(name, data) {
  if (name !== "snapshot") return;
  const snapshot = JSON.parse(data);
  keep(snapshot);
  render(snapshot);
  latest = snapshot;
  setConnection("live");
  clearTimeout(staleTimer);
  staleTimer = setTimeout(() => setConnection("stale"), STALE_AFTER_S * 1000);
}

function setLanguage(next) {
  language = next;
  texts = TEXTS[language];
  format = makeFormat(language, texts);
  document.documentElement.lang = language;
  for (const node of document.querySelectorAll("[data-text]")) setText(node, texts[node.dataset.text]);
  for (const node of document.querySelectorAll("[data-label]")) node.setAttribute("aria-label", texts[node.dataset.label]);
  for (const button of document.querySelectorAll("[data-language]")) button.setAttribute("aria-pressed", String(button.dataset.language === language));
  renderConnection();
  if (latest) render(latest);
  if (connection.state === "locked") setText($("headline"), texts.locked);
}

for (const button of document.querySelectorAll("[data-language]")) {
  button.addEventListener("click", () => {
    remember(localStorage, "ondol.language", button.dataset.language);
    setLanguage(button.dataset.language);
  });
}
$("twin").addEventListener("toggle", () => { if (latest) renderCurves(); });

setLanguage(language);
const stream = connect("/events", { getKey: () => key, onEvent, onState });
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key = $("key").value.trim();
  remember(sessionStorage, "ondol.key", key);
  $("key").value = "";
  stream.retryNow();
});
