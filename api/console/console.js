// The operators' console: one page over the public admin routes. Text goes in as text, never as markup.
const POLL_MS = 2000;
const element = (id) => document.getElementById(id);

// -- talking to the API ---------------------------------------------------------------------------------------------

const session = {
  get: () => JSON.parse(sessionStorage.getItem("tokens") ?? "null"),
  set: (tokens) => sessionStorage.setItem("tokens", JSON.stringify(tokens)),
  clear: () => sessionStorage.removeItem("tokens"),
};

class Problem extends Error {
  constructor(body, status) {
    super(body?.detail ?? `The API answered ${status}.`);
    this.code = body?.code;
    this.status = status;
  }
}

async function send(method, path, body, token) {
  const headers = {};
  if (token) headers.authorization = `Bearer ${token}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  const answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  const text = await answer.text();
  const json = text ? JSON.parse(text) : null;
  if (!answer.ok) throw new Problem(json, answer.status);
  return json;
}

let refreshing = null; // one refresh at a time: a token is good for one alone

async function call(method, path, body) {
  const tokens = session.get();
  try {
    return await send(method, path, body, tokens?.access_token);
  } catch (problem) {
    if (problem.code !== "token_expired" || !tokens) throw problem;
  }
  refreshing ??= send("POST", "/api/v1/auth/refresh", { refresh_token: tokens.refresh_token })
    .then((answer) => session.set(answer.data.tokens))
    .finally(() => (refreshing = null));
  await refreshing;
  return send(method, path, body, session.get().access_token);
}

// -- showing --------------------------------------------------------------------------------------------------------

function make(name, text = "", kind = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

const when = (time) => (time ? new Date(time).toISOString().replace("T", " ").slice(0, 19) : "–");
const count = (number) => Number(number).toLocaleString("en-US");
const dollars = (micros) => `$${(micros / 1_000_000).toFixed(6)}`;

function fill(table, rows) {
  element(table).tBodies[0].replaceChildren(
    ...rows.map((cells) => {
      const row = make("tr");
      row.append(...cells.map((cell) => wrap("td", cell)));
      return row;
    }),
  );
}

function wrap(name, content) {
  const made = make(name);
  made.append(content instanceof Node ? content : String(content ?? "–"));
  return made;
}

function facts(list, pairs) {
  element(list).replaceChildren(...pairs.flatMap(([name, value]) => [make("dt", name), wrap("dd", value)]));
}

function tell(problem) {
  const lost = problem?.status === 401;
  if (lost) session.clear();
  element("message").textContent = problem ? problem.message : "";
  element("message").hidden = !problem;
  if (lost) show();
}

// -- pages ----------------------------------------------------------------------------------------------------------

async function overview() {
  const { data } = await call("GET", "/api/admin/ops/overview");
  element("as-of").textContent = when(data.now);
  const behind = data.agents.reduce((sum, agent) => sum + agent.lag, 0);
  const report = data.reconciliation;
  const tiles = [
    ["rows in the outbox", count(data.relay.pending), data.relay.oldest_ms < 60_000],
    ["oldest row, ms", count(data.relay.oldest_ms), data.relay.oldest_ms < 60_000],
    ["records behind", count(behind), behind < 10_000],
    ["dead letters parked", count(data.dead_letters.parked), data.dead_letters.parked === 0],
    ["e-mails of unknown fate", count(data.emails.unknown ?? 0), !data.emails.unknown],
    report
      ? [`differences on ${report.day}`, count(report.differences), report.ok]
      : ["reconciliation", "none yet", true],
  ];
  element("tiles").replaceChildren(
    ...tiles.map(([name, value, good]) => {
      const tile = make("div", name);
      tile.prepend(make("b", value, good ? "good" : "bad"));
      return tile;
    }),
  );
  fill("agents", data.agents.map((a) => [
    a.agent, a.topic, count(a.lag), a.partitions.length,
    a.partitions.map((p) => p.applied_offset).join(" "), when(a.updated_at),
  ]));
  fill("gate", data.gate.map((g) => [
    g.shard, make("span", g.state, g.state === "open" ? "good" : "bad"),
    when(g.opened_at), when(g.lost_at), when(g.ticked_until),
  ]));
  fill("days", data.days.map((d) => [d.day, d.shards_closed, when(d.charged_at), when(d.reconciled_at)]));
}

let letterCursor = null;
let letterRows = [];

async function letters(more = false) {
  const query = new URLSearchParams({ status: element("letter-status").value });
  if (more && letterCursor) query.set("cursor", letterCursor);
  const { data, meta } = await call("GET", `/api/admin/ops/dead-letters?${query}`);
  letterRows = more ? letterRows.concat(data) : data;
  letterCursor = meta.next_cursor;
  element("more-letters").hidden = !letterCursor;
  fill("letter-list", letterRows.map((l) => {
    const open = make("button", "Open");
    open.addEventListener("click", () => letter(l.id).catch(tell));
    return [when(l.created_at), l.source, l.topic, l.key, l.event_type, l.reason, open];
  }));
}

async function letter(id) {
  showLetter((await call("GET", `/api/admin/ops/dead-letters/${id}`)).data);
}

function showLetter(data) {
  element("letter").hidden = false;
  element("letter").dataset.id = data.id;
  element("letter-id").textContent = data.id;
  element("letter-decision").hidden = data.status === "discarded";
  facts("letter-facts", [
    ["status", data.status], ["source", data.source], ["place", `${data.topic}-${data.partition} at ${data.offset}`],
    ["key", data.key], ["event", `${data.event_type ?? "–"} ${data.event_id ?? ""}`], ["reason", data.reason],
    ["error", data.error], ["attempts", data.attempts],
    ["decided", data.decided_at ? `${when(data.decided_at)} by ${data.decided_by} ${data.decision_reason ?? ""}` : "–"],
  ]);
  element("letter-record").textContent = data.decoded ? JSON.stringify(data.decoded, null, 2) : data.payload;
}

async function decide(action, body) {
  const id = element("letter").dataset.id;
  showLetter((await call("POST", `/api/admin/ops/dead-letters/${id}/${action}`, body)).data);
  await letters();
}

async function report(day) {
  const { data } = await call("GET", `/api/admin/ops/reconciliation?day=${day}`);
  facts("report", [
    ["outcome", make("span", data.ok ? "no difference" : "differences", data.ok ? "good" : "bad")],
    ["closed", data.closed ? "yes" : "not yet"], ["accepted", count(data.accepted)],
    ["impressions", data.impressions], ["clicks", data.clicks],
    ["spend", data.spend_micros === null ? "–" : dollars(data.spend_micros)], ["adjustments", data.adjustments],
  ]);
  fill("differences", data.differences.map((d) => [d.level, d.key, JSON.stringify(d.expected), JSON.stringify(d.found)]));
}

let watched = null;

async function live() {
  if (!watched) return;
  const { data } = await call("GET", `/api/admin/ops/ads/${watched}/live`);
  facts("live", [
    ["day", data.day], ["impressions", count(data.impressions)], ["clicks", count(data.clicks)],
    ["spend", dollars(data.spend_micros)], ["reserved", dollars(data.reserved_micros)],
    ["budget", dollars(data.budget_micros)], ["as of", when(data.as_of)],
    ["lag", data.lag_ms === null ? "–" : `${count(data.lag_ms)} ms`],
  ]);
}

// -- moving between them --------------------------------------------------------------------------------------------

const PAGES = { overview, letters, reconciliation: async () => {}, ad: live };
const POLLED = new Set(["overview", "ad"]);
const page = () => (location.hash.slice(1) in PAGES ? location.hash.slice(1) : "overview");

function show() {
  const inside = session.get() !== null;
  element("enter").hidden = inside;
  element("pages").hidden = element("leave").hidden = !inside;
  for (const name of Object.keys(PAGES)) {
    element(name).hidden = !inside || name !== page();
    const link = document.querySelector(`nav a[href="#${name}"]`);
    if (name === page()) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

async function enter(form) {
  const { data } = await send("POST", "/api/admin/auth/login", { email: form.email.value, password: form.password.value });
  session.set(data.tokens);
  form.reset();
  await go();
}

async function go() {
  tell(null);
  show();
  if (session.get()) await PAGES[page()]();
}

async function poll() {
  if (session.get() && POLLED.has(page()) && !document.hidden) await PAGES[page()]().catch(tell);
  setTimeout(poll, POLL_MS);
}

function on(id, event, act) {
  element(id).addEventListener(event, (what) => {
    what.preventDefault();
    tell(null);
    Promise.resolve(act(what.target)).catch(tell);
  });
}

on("enter", "submit", enter);
on("leave", "click", async () => {
  await call("POST", "/api/v1/auth/logout").catch(() => {});
  session.clear();
  show();
});
on("letter-status", "change", () => letters());
on("more-letters", "click", () => letters(true));
on("replay", "click", () => decide("replay"));
on("discard", "submit", (form) => decide("discard", { reason: form.reason.value }));
on("find-day", "submit", (form) => report(form.day.value));
on("find-ad", "submit", (form) => {
  watched = form.ad_id.value;
  return live();
});
window.addEventListener("hashchange", () => go().catch(tell));
go().catch(tell);
setTimeout(poll, POLL_MS);
