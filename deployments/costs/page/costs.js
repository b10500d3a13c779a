// The page: asks for figures, fills the parts. All figures are /costs.json's; nothing is computed here but shares of widths.
import { ask, get, hasKey, keep } from "./api.js";
import { bars, clear, curve, tierColour, watch } from "./charts.js";
import { at, el, fill, name, swatch, table } from "./dom.js";
import { DASH, bucket, compact, count, day, moment, percent, seconds, signed, tierName, usd } from "./format.js";
import { learning } from "./learning.js";

const LADDER_MS = 10_000, REASONS = 8, DECISIONS = "15";
let shown = null;
let asking = null;
let next = null;

// -- what is asked for -------------------------------------------------------------------------------------------------

function query() {
  const asked = new URLSearchParams();
  const range = at("range").value;
  if (range !== "days") asked.set("since", range);
  else {
    if (at("since").value) asked.set("since", at("since").value);
    if (at("until").value) asked.set("until", at("until").value);
  }
  for (const field of ["key", "tier"]) if (at(field).value) asked.set(field, at(field).value);
  return asked;
}

/** The address says what is shown, so that it can be kept or passed on; it never holds the key. */
function readAddress() {
  const asked = new URLSearchParams(location.search);
  const since = asked.get("since") || "7d", known = [...at("range").options].some((option) => option.value === since);
  at("range").value = known ? since : "days";
  at("since").value = known ? "" : since;
  at("until").value = asked.get("until") || "";
  for (const field of ["key", "tier"]) if (asked.get(field)) choose(at(field), asked.get(field));
}

function choose(select, value) {
  if (![...select.options].some((option) => option.value === value)) select.append(new Option(value, value));
  select.value = value;
}

function options(select, first, values) {
  const chosen = select.value;
  select.replaceChildren(new Option(first, ""), ...values.map(([value, text]) => new Option(text, value)));
  if (chosen) choose(select, chosen);
}

async function load() {
  asking?.abort();
  const mine = (asking = new AbortController());
  const days = at("range").value === "days";
  document.querySelectorAll(".days").forEach((field) => { field.hidden = !days; });
  if (days && shown && !at("since").value) at("since").value = day(shown.since);
  if (days && shown && !at("until").value) at("until").value = day(shown.until - 1);
  at("status").className = "status";
  at("status").textContent = "Loading …";
  try {
    const asked = query();
    history.replaceState(null, "", `?${asked}`);
    const access = hasKey() && shown ? { allowed: true } : await get("costs/access.json", mine.signal);
    if (!access.allowed) return locked(access.why);
    const [figures, decisions] = await Promise.all([
      get(`costs.json?${asked}`, mine.signal), get(`costs/decisions.json?${new URLSearchParams([...asked, ["limit", DECISIONS]])}`, mine.signal),
    ]);
    show(figures);
    showDecisions(decisions, false);
    ladder();
    learning();
  } catch (error) {
    failed(error);
  }
}

function failed(error) {
  if (error.name === "AbortError") return;
  if (error.status === 401 || error.status === 403) return locked(error.message);
  at("filters").hidden = false;
  at("status").className = "status bad";
  at("status").textContent = error.message;
}

function locked(why) {
  shown = null;
  for (const id of ["figures", "filters", "forget"]) at(id).hidden = true;
  ask(why, load);
}

// -- what is shown -------------------------------------------------------------------------------------------------------

function show(figures) {
  shown = figures;
  for (const id of ["figures", "filters"]) at(id).hidden = false;
  at("forget").hidden = !hasKey();
  options(at("key"), "All keys", figures.keys.map((key) => [key.id, `${key.name || key.id}${key.revoked ? " (revoked)" : ""}`]));
  options(at("tier"), "All tiers", [...figures.tiers, ...figures.services].map((tier) => [tier, tier]));
  const from = `${bucket(figures.since, 3600)} to ${bucket(figures.until, 3600)} UTC`;
  at("status").textContent = figures.rounded ? `${from}, whole hours` : from;
  tiles(figures);
  fill("note", figures.note);
  overTime();
  byTier(figures);
  machines(figures);
  quality(figures);
  byKey(figures);
  reasons(figures);
  fill("means", Object.entries(figures.means).flatMap(([term, text]) => [el("dt", {}, term), el("dd", {}, text)]));
}

function tile(term, figure, under, options = {}) {
  return el("div", { className: "tile" }, el("dt", {}, term),
    el("dd", { className: `figure ${options.good ? "good" : ""}`, id: options.id, title: options.title }, figure), el("dd", { className: "under" }, under));
}

function unasked(sum) {
  const parts = [sum.audits && `${usd(sum.audit_usd)} of it for audits`, sum.learning_calls && `${usd(sum.learning_usd)} ${sum.audits ? "" : "of it "}to learn from`];
  return parts.filter(Boolean).join(", ");
}

function tiles({ totals: sum, gpu, covers, tiers, currency }) {
  const top = tiers[tiers.length - 1];
  const off = covers.error.mean_absolute === null ? "its error is not measured yet" : `off by ${percent(covers.error.mean_absolute, 0)} a request, ${signed(covers.error.bias)} in sum, measured on ${count(covers.error.requests)}`;
  const covered = covers.of_cost !== null && covers.of_cost < 0.9995 ? `; covers ${percent(covers.of_cost)} of the cost` : "";
  fill("tiles", [
    tile("Cost by token price", usd(sum.cost_usd), unasked(sum) || currency, { id: "cost", title: String(sum.cost_usd) }),
    tile(`Always ${top} instead`, usd(sum.counterfactual_usd), `${off}${covered}`, { id: "counterfactual", title: covers.error.means }),
    tile("Saved, by token price", `${usd(sum.saving_usd)}`, `${percent(sum.saving_share)} less than always ${top}`, { id: "saving", good: sum.saving_usd > 0 }),
    tile("Machines held", gpu.held_s ? usd(gpu.held_usd) : DASH, gpu.held_s ? `${seconds(gpu.held_s)}, ${percent(gpu.busy_share, 0)} busy` : "no accelerator time recorded", { id: "held" }),
    tile("Requests", compact(sum.requests), `${count(sum.failed)} failed · ${compact(sum.escalations)} escalations · ${compact(sum.delegations)} delegated`, { id: "requests", title: count(sum.requests) }),
    tile("Tokens", compact(sum.tokens), `${compact(sum.input_tokens)} in (${compact(sum.cached_tokens)} cached), ${compact(sum.output_tokens)} out`, { id: "tokens", title: count(sum.tokens) }),
  ]);
}

const MEASURES = {
  cost: { of: (part) => part.cost_usd, format: usd, line: (row) => row.counterfactual_usd },
  gpu: { of: (part) => part.busy_s, format: seconds, idle: (row) => row.idle_s + row.nobody_s },
  tokens: { of: (part) => part.tokens, format: compact },
  requests: { of: (part) => part.requests, format: compact },
};

function overTime() {
  const rows = shown.by.day, step = shown.step_s;
  const measure = MEASURES[document.querySelector("input[name=measure]:checked").value];
  at("time-title").textContent = step >= 86_400 ? "By day" : "By hour";
  const tiers = tiersIn(shown);
  const first = rows.length ? rows[0].day : 0, n = rows.length ? (rows[rows.length - 1].day - first) / step + 1 : 0;
  const found = new Map(rows.map((row) => [row.day, row])), times = Array.from({ length: n }, (_, i) => first + i * step);
  const along = (value) => times.map((time) => (found.has(time) ? value(found.get(time)) : 0));
  const parts = tiers.map((tier) => ({ name: tierName(tier), colour: tierColour(shown.tiers, tier), values: along((row) => (row.tiers[tier] ? measure.of(row.tiers[tier]) : 0)) }));
  if (measure.idle) parts.push({ name: "idle", colour: "idle", values: along(measure.idle) });
  const line = measure.line && { name: `always ${shown.tiers[shown.tiers.length - 1]}`, colour: "alone", values: along(measure.line) };
  if (times.length) bars("time-chart", "time-legend", times, step, parts, line, measure.format);
  else { fill("time-legend"); clear("time-chart", "Nothing in this interval."); }
  const columns = [{ name: step >= 86_400 ? "Day" : "Hour", head: true, cell: (row) => bucket(row.day, step) }, ...MONEY, ...MACHINE];
  fill("by-day", table({ text: "By day", hidden: true }, columns, [...rows].reverse()));
}

const tiersIn = (figures) => [...new Set([...figures.tiers, ...figures.by.tier.map((row) => row.tier)])];

const MONEY = [
  { name: "Requests", number: true, cell: (row) => count(row.requests) },
  { name: "Tokens", number: true, cell: (row) => compact(row.tokens) },
  { name: "Cost", number: true, cell: (row) => usd(row.cost_usd) },
  { name: "Saved", number: true, cell: (row) => usd(row.saving_usd) },
];
const MACHINE = [
  { name: "GPU busy", number: true, cell: (row) => seconds(row.busy_s) },
  { name: "GPU idle", number: true, cell: (row) => seconds(row.idle_s + row.nobody_s) },
  { name: "GPU cost", number: true, cell: (row) => usd(row.held_usd) },
];

function tierCell(row) {
  return el("span", {}, swatch(`var(--${tierColour(shown.tiers, row.tier)})`), " ", name(tierName(row.tier)));
}

function byTier({ by, tiers }) {
  const lines = [["requests", "Requests"], ["tokens", "Tokens"], ["cost", "Cost"], ["gpu", "GPU time"]];
  fill("tier-shares", lines.map(([of, label]) => shares(label, by.tier.map((row) => [tierName(row.tier), row.shares[of], tierColour(tiers, row.tier)]))));
  const more = [{ name: "Escalated", number: true, cell: (row) => (row.attempts ? `${compact(row.escalations)} of ${compact(row.attempts)}` : DASH) }];
  fill("by-tier", table({ text: "By tier: requests it answered, calls made to it", hidden: true }, [{ name: "Tier", head: true, cell: tierCell }, ...MONEY, ...more], by.tier));
}

function shares(label, parts) {
  const some = parts.filter(([, share]) => share > 0);
  const told = some.map(([part, share]) => `${part} ${percent(share, 0)}`).join(", ") || "none";
  const stack = el("div", { className: "stack", role: "img", "aria-label": `${label}: ${told}` }, some.map(([part, share, hue]) => {
    const node = el("span", { title: `${part} ${percent(share)}` }, share > 0.08 ? percent(share, 0) : "");
    node.style.flex = `${share} 1 0`;
    node.style.background = `var(--${hue})`;
    return node;
  }));
  return el("div", { className: "share" }, el("span", {}, label), stack);
}

function machines({ gpu, by, key }) {
  if (!gpu.held_s) {
    fill("gpu", el("p", { className: "empty" }, "No accelerator time was recorded in this interval: tiers without replicas of their own, or nothing ran."));
    return;
  }
  const whole = gpu.held_s;
  const parts = [["busy", (gpu.busy_s + gpu.over_s) / whole, "accent"], ["idle", gpu.idle_s / whole, "idle"], ["nobody's", gpu.nobody_s / whole, "nobody"]];
  const rows = [
    { what: "Busy", seconds: gpu.busy_s, usd: gpu.busy_usd, why: "a request was worked on" },
    { what: "Idle", seconds: gpu.idle_s, usd: gpu.idle_usd, why: "between requests" },
    { what: "Nobody's", seconds: gpu.nobody_s, usd: gpu.nobody_usd, why: "hours without a request" },
    ...(gpu.over_s < 0 ? [{ what: "Over", seconds: gpu.over_s, usd: gpu.over_usd, why: "measured beyond what was held" }] : []),
    { what: "Held", seconds: gpu.held_s, usd: gpu.held_usd, why: "in all" },
  ];
  fill("gpu", 
    el("p", { className: "fine" }, key ? "Of the chosen key: its own busy time and the idle time it bears." : "Accelerator time that was held, used or not. Token prices above are what a list would say; this is what the machines cost."),
    el("div", { className: "shares" }, shares("Held", parts)),
    table({ text: "Accelerator time", hidden: true }, [
      { name: "", head: true, cell: (row) => row.what },
      { name: "Time", number: true, cell: (row) => seconds(row.seconds) },
      { name: "Cost", number: true, cell: (row) => usd(row.usd) },
      { name: "", cell: (row) => el("span", { className: "dim" }, row.why) },
    ], rows),
    el("h3", {}, "By tier"),
    table({ text: "Accelerator time by tier", hidden: true }, [{ name: "Tier", head: true, cell: tierCell }, ...MACHINE], by.tier.filter((row) => row.tier)));
}

function quality({ curve: found, tiers }) {
  const top = tiers[tiers.length - 1];
  const now = found.live.filter((point) => point.cost !== null).map((point) => ({ ...point, label: point.target === "all" ? "now" : point.target }));
  const all = now.filter((point) => point.target === "all");
  curve("curve-chart", "curve-legend", found.points, found.targets.map((target) => ({ ...target, label: target.target })), all, top);
  const rows = [...new Set([...found.targets.map((t) => t.target), ...found.live.map((t) => t.target)])].map((target) => ({
    target, promised: found.targets.find((t) => t.target === target), live: found.live.find((t) => t.target === target),
  }));
  fill("curve",
    found.why ? el("p", { className: "fine" }, `No curve is stored: ${found.why}.`) : null,
    table({ text: "Cost and quality by target, relative to the top tier", hidden: true }, [
      { name: "Target", head: true, cell: (row) => name(row.target) },
      { name: "Requests", number: true, cell: (row) => (row.live ? compact(row.live.requests) : DASH) },
      { name: "Cost (promised)", number: true, cell: (row) => both(row.live?.cost, row.promised?.cost) },
      { name: "Quality (promised)", number: true, cell: (row) => both(row.live?.quality, row.promised?.quality) },
    ], rows, "No routed requests in this interval."),
    el("p", { className: "fine" }, `Relative to always ${top}. Quality now is estimated: ${top}'s answers count 1, others the chance they were given before they were seen; where answers are looked at, it is at least that.${found.points.length && !found.whole ? " The artefact holds its targets only; lines between them are straight." : ""}`));
}

const both = (now, promised) => el("span", {}, percent(now), promised === undefined ? "" : el("span", { className: "dim" }, ` (${percent(promised)})`));

function keyCell(row) {
  return el("span", {}, name(row.name || row.key || "no key"), row.name ? el("span", { className: "dim" }, ` ${row.key}`) : "");
}

function byKey({ by, budgets }) {
  fill("by-key", table({ text: "By key", hidden: true }, [
    { name: "Key", head: true, cell: keyCell }, ...MONEY,
    { name: "of cost", number: true, cell: (row) => percent(row.shares.cost) },
    { name: "of tokens", number: true, cell: (row) => percent(row.shares.tokens) },
    { name: "of GPU time", number: true, cell: (row) => percent(row.shares.gpu) },
    ...MACHINE,
  ], by.key));
  fill("budgets", budgets.length ? [el("h3", {}, "Budgets now"), table({ text: "Budgets now", hidden: true }, [
    { name: "Key", head: true, cell: keyCell },
    { name: "Period", cell: (row) => row.period },
    { name: "Spent", number: true, cell: (row) => usd(row.spent_usd) },
    { name: "Reserved", number: true, cell: (row) => usd(row.reserved_usd) },
    { name: "Limit", number: true, cell: (row) => usd(row.limit_usd) },
    { name: "Used", cell: (row) => meter((row.spent_usd + row.reserved_usd) / (row.limit_usd || 1)) },
  ], budgets)] : null);
}

function meter(share) {
  const inner = el("span");
  inner.style.width = `${Math.min(100, share * 100)}%`;
  return el("span", {}, el("span", { className: "meter", "aria-hidden": "true" }, inner), percent(share, 0));
}

function reasons({ reasons: rows, totals }) {
  const columns = [
    { name: "Answered by", head: true, cell: tierCell },
    { name: "Reason", cell: (row) => name(row.reason || DASH) },
    { name: "Flow", cell: (row) => row.flow },
    { name: "Requests", number: true, cell: (row) => count(row.requests) },
    { name: "Share", cell: (row) => meter(row.requests / (totals.requests || 1)) },
    { name: "Failed", number: true, cell: (row) => count(row.failed) },
  ];
  const rest = rows.slice(REASONS);
  fill("reasons", table({ text: "Requests by tier and reason", hidden: true }, columns, rows.slice(0, REASONS)),
    rest.length ? el("details", { className: "more" }, el("summary", {}, `${rest.length} rarer ones`), table({ text: "The rarer ones", hidden: true }, columns, rest)) : null);
}

// -- the ladder as it is now ------------------------------------------------------------------------------------------

async function ladder() {
  try {
    const now = await get("costs/live.json");
    fill("ladder", table({ text: "The ladder", hidden: true }, [
      { name: "Tier", head: true, cell: tierCell },
      { name: "Replicas", number: true, cell: (row) => row.replicas ?? DASH },
      { name: "Running", number: true, cell: (row) => row.running ?? DASH },
      { name: "Queue", number: true, cell: (row) => row.queue ?? DASH },
      { name: "Price", cell: (row) => el("div", { className: "lines" }, price(row.price || {}).map((line) => el("span", {}, line))) },
    ], now.tiers || []), certificates(now.certificates || {}), now.ledger ? el("p", { className: "fine" }, `Ledger: ${now.ledger}`) : null);
  } catch (error) {
    fill("ladder", el("p", { className: "empty" }, `Not known: ${error.message}`));
  }
}

function price(of) {
  const lists = of.usd_per_1m_input !== null && of.usd_per_1m_input !== undefined ? `${usd(of.usd_per_1m_input)} in, ${usd(of.usd_per_1m_output)} out per 1M` : "";
  const hour = of.usd_per_accelerator_hour !== null && of.usd_per_accelerator_hour !== undefined ? `${usd(of.usd_per_accelerator_hour)} an accelerator-hour` : "";
  const known = [lists, hour].filter(Boolean);
  return known.length ? known : [DASH];
}

const STATES = { valid: "ok", retired: "warn", stale: "warn", infeasible: "warn" };

function certificates(found) {
  const rows = Object.entries(found).map(([target, of]) => ({ target, ...of }));
  if (!rows.length) return el("p", { className: "fine" }, "No certificates: nothing is promised of smaller tiers' answers (stepdown calibrate).");
  return el("div", {}, el("h3", {}, "Certificates"), table({ text: "Certificates", hidden: true }, [
    { name: "Target", head: true, cell: (row) => name(row.target) },
    { name: "State", cell: (row) => el("span", { className: `pill ${STATES[row.state] || ""}`, title: row.retired || "" }, row.state) },
    { name: "At most worse", number: true, cell: (row) => percent(row.alpha) },
    { name: "Audited", number: true, cell: (row) => (row.audits === undefined ? DASH : `${count(row.audit_errors)} of ${count(row.audits)} differed`) },
  ], rows));
}

// -- single decisions -----------------------------------------------------------------------------------------------------

const DECISION = [
  { name: "Time, UTC", head: true, cell: (row) => el("a", { href: `costs/traces/${encodeURIComponent(row.id)}` }, moment(row.began_s)) },
  { name: "Asked for", cell: (row) => name(row.wanted) },
  { name: "Answered by", cell: tierCell },
  { name: "Reason", cell: (row) => name(row.reason || DASH) },
  { name: "Chance", number: true, cell: (row) => percent(row.confidence, 0) },
  { name: "Flow", cell: (row) => row.flow },
  { name: "Cost", number: true, cell: (row) => usd(row.cost_usd) },
  { name: "Alone", number: true, cell: (row) => usd(row.counterfactual_usd) },
  { name: "Took", number: true, cell: (row) => seconds(row.took_s) },
  { name: "Status", cell: (row) => (row.status < 400 ? String(row.status) : el("span", { className: "bad" }, `${row.status} ${row.error}`)) },
  { name: "Key", cell: (row) => name(keyName(row.key_id)) },
];

const keyName = (id) => shown.keys.find((key) => key.id === id)?.name || id;

function showDecisions(found, more) {
  next = found.next;
  at("older").hidden = !next;
  const made = table({ text: "Recent decisions; the time leads to the trace", hidden: true }, DECISION, found.decisions, "No requests in this interval; single rows are kept for ledger.keep_days.");
  if (more) at("decisions").querySelector("tbody")?.append(...(made.querySelector("tbody")?.children || []));
  else fill("decisions", made);
}

async function older() {
  try {
    const asked = new URLSearchParams([...query(), ["limit", DECISIONS], ["before", next]]);
    showDecisions(await get(`costs/decisions.json?${asked}`), true);
  } catch (error) {
    failed(error);
  }
}

// -- start -----------------------------------------------------------------------------------------------------------------

readAddress();
watch("time-chart", "curve-chart");
at("filters").addEventListener("change", load);
at("filters").addEventListener("submit", (event) => event.preventDefault());
at("measure").addEventListener("change", overTime);
at("older").addEventListener("click", older);
at("forget").addEventListener("click", () => { keep(""); location.reload(); });
document.addEventListener("themechange", () => { if (shown) { overTime(); quality(shown); } });
setInterval(() => { if (shown && !document.hidden && !at("figures").hidden) { ladder(); learning(); } }, LADDER_MS);
load();
