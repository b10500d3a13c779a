// The section Learning: what is collected, the run under way, generations of tiers, past runs, what promotions saved.
import { get } from "./api.js";
import { el, fill, name, table } from "./dom.js";
import { DASH, compact, count, moment, percent, usd } from "./format.js";

const STAGES = ["collecting", "training", "shadow", "canary", "promoted"];
const ENDS = { done: "ok", promoted: "ok", refused: "warn", "rolled back": "warn", failed: "warn" };
const SOURCES = { feedback: "feedback", tests: "the client's tests", agreement: "agreement with the top tier", judge: "the top tier as a judge", top: "the top tier's own answers", none: "could not be graded" };
const OFF = "learning: {collect: consented, start: auto}";

export async function learning() {
  try {
    const found = await get("costs/learning.json");
    const parts = [notes(found), !found.collect || found.collect === "off" ? off() : null, found.progress ? [progress(found), kept(found.counts || {})] : null,
      found.run ? run(found.run) : null, generations(found.generations || []), promotions(found.promotions || []), runs(found.runs || []), now(found.in_use || {})];
    fill("learning", ...parts.flat(Infinity));
  } catch (error) {
    fill("learning", el("p", { className: "empty" }, `Not known: ${error.message}`));
  }
}

function off() {
  return el("p", { className: "empty", id: "learning-off" }, "Nothing is kept to learn from. To turn it on, write ", el("code", {}, OFF),
    " into the configuration, allow it for some keys (", el("code", {}, "stepdown keys create NAME --learning all"), ") and restart the server.");
}

/** What is wrong, first of all. */
function notes({ unknown, in_use: used = {} }) {
  const lines = [unknown, used.ignored && `A promotion is ignored: ${used.ignored}`, used.database && `Promotions are not seen: ${used.database}`,
    ...Object.entries(used.not_loaded || {}).map(([slot, why]) => `The artefact in the slot ${slot} is not used: ${why}`)];
  return lines.filter(Boolean).map((line) => el("p", { className: "banner" }, line));
}

// -- how far it is -----------------------------------------------------------------------------------------------------

function progress({ progress: of, run: under, collect }) {
  if (collect === "off" && !under) return [];
  const at = of.stage === "waiting" ? "shadow" : of.stage, here = STAGES.indexOf(at);
  const strip = el("ol", { className: "stages", "aria-label": "Stages" }, STAGES.map((stage, i) => {
    const state = i < here ? "past" : i === here ? "here" : "";
    return el("li", { className: state, "aria-current": state === "here" ? "step" : undefined }, stage === "shadow" && of.stage === "waiting" ? "shadow: passed, waits for you" : stage);
  }));
  const share = of.needed ? Math.min(1, of.pairs / of.needed) : null;
  return [strip, el("p", { className: "big", id: "learning-line" }, of.line), share === null ? null : bar(share, "long"),
    of.saving ? el("p", { className: "fine" }, sentence(of.saving.text)) : null,
    (of.why || []).length ? el("ul", { className: "why", "aria-label": "Why it does not save yet" }, of.why.map((line) => el("li", {}, sentence(line)))) : null].filter(Boolean);
}

const sentence = (text) => `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;

function bar(share, kind = "", against = false) {
  const inner = el("span", { className: against ? "against" : "" });
  inner.style.width = `${Math.min(100, Math.max(0, share * 100))}%`;
  return el("span", { className: `meter ${kind}`, "aria-hidden": "true" }, inner);
}

const fact = (term, value, under) => el("div", {}, el("dt", {}, term), el("dd", {}, value, under ? el("span", { className: "dim" }, ` ${under}`) : ""));

function kept(of) {
  const spent = (of.fill_usd || 0) + (of.judge_usd || 0);
  const sources = Object.entries(of.by_source || {}).filter(([, n]) => n).sort((a, b) => b[1] - a[1]), all = sources.reduce((sum, [, n]) => sum + n, 0);
  return [el("dl", { className: "facts", id: "learning-kept" },
    fact("Requests kept", compact(of.kept || 0)),
    fact("Drawn to be filled in", compact(of.drawn || 0), of.waiting ? `${compact(of.waiting)} waiting` : ""),
    fact("Graded for all tiers", compact(of.complete || 0), of.failed || of.dropped ? `${compact((of.failed || 0) + (of.dropped || 0))} could not be` : ""),
    fact("Filling in and judging cost", usd(spent))),
  sources.length ? el("details", { className: "more" }, el("summary", {}, "What the grades rest on"), table({ text: "Grades by source", hidden: true }, [
    { name: "Source", head: true, cell: ([source]) => SOURCES[source] || source },
    { name: "Grades", number: true, cell: ([, n]) => count(n) },
    { name: "Share", cell: ([, n]) => el("span", {}, bar(n / all), percent(n / all, 0)) },
  ], sources)) : null].filter(Boolean);
}

// -- the run under way -----------------------------------------------------------------------------------------------------

function run(of) {
  const settings = (of.settings || {}).flywheel || {};
  const rows = evidence(of, settings);
  return [el("h3", {}, name(of.id), " is in ", of.stage, el("span", { className: "dim" }, ` since ${moment(of.since_s || of.began_s)} UTC`)),
    rows.length ? table({ text: "Evidence", hidden: true }, [
      { name: "Evidence", head: true, cell: (row) => row.what },
      { name: "", cell: (row) => (row.share === null ? "" : bar(row.share, "wide", row.against)) },
      { name: "Now", number: true, cell: (row) => row.now },
      { name: "Decides at", number: true, cell: (row) => row.most },
    ], rows) : null,
    of.why ? el("p", { className: "fine" }, sentence(of.why)) : null, steps(of), gates(of.gates)].filter(Boolean);
}

const wealth = (value) => (value >= 100 ? count(value) : value.toFixed(value < 10 ? 2 : 1));
/** Evidence multiplies, so its bar is logarithmic: a wealth of 1 is none. */
const reached = (value, most) => (value > 1 && most > 1 ? Math.log(value) / Math.log(most) : 0);

function evidence(of, settings) {
  if (!["shadow", "waiting", "canary", "promoted"].includes(of.stage)) return [];
  const rows = [];
  const add = (what, value, most, share, format, against = false) => {
    if (value !== null && value !== undefined) rows.push({ what, now: format(value), most: most ? format(most) : DASH, share: most ? share : null, against });
  };
  const { shadow_pairs: pairs, shadow_wealth: enough, rollback_wealth: back, canary_requests: requests } = settings;
  const asked = of.counts?.candidate?.requests, early = of.stage === "shadow" || of.stage === "waiting";
  add("Graded pairs", of.graded, early ? pairs : null, of.graded / (pairs || 1), count);
  if (early) add("That it is not worse (wealth)", of.wealth, enough, reached(of.wealth, enough), wealth);
  add("That it is worse (wealth)", of.wealth_against, back, reached(of.wealth_against, back), wealth, true);
  if (of.stage === "canary") add("Requests it decided", asked, requests, asked / (requests || 1), count);
  add("Lost", of.lost, null, 0, count);
  add("Won", of.won, null, 0, count);
  add("Mean difference in score", of.mean_difference, null, 0, (value) => `${value > 0 ? "+" : ""}${value.toFixed(3)}`.replace("-", "−"));
  add("Saves, of always the top tier", of.saving, null, 0, percent);
  return rows;
}

/** What a training has done, and how far it is. */
function steps(of) {
  const rows = of.stage === "training" ? of.steps || [] : [];
  return rows.length ? el("ul", { className: "why", id: "learning-steps", "aria-label": "Steps of the training" },
    rows.map((row) => el("li", {}, `${row.done ? "✓ " : ""}${row.why || row.step}`))) : null;
}

const listed = (found) => (Array.isArray(found) ? found : Object.entries(found || {}).map(([key, of]) => ({ name: key, ...of })));

function gates(found) {
  const rows = listed(found);
  return rows.length ? [el("h3", {}, "Gates before the shadow"), table({ text: "Gates", hidden: true }, [
    { name: "Gate", head: true, cell: (row) => row.name },
    { name: "", cell: (row) => el("span", { className: `pill ${row.passed ? "ok" : "warn"}` }, row.passed ? "passed" : "failed") },
    { name: "What decided", cell: (row) => el("span", { className: "said" }, row.why || "") },
  ], rows)] : [];
}

// -- generations -----------------------------------------------------------------------------------------------------------

const STATES = { promoted: "ok", refused: "warn", undecided: "warn", "rolled back": "warn", failed: "warn" };

/** Each set of weights that a tier has learned, the newest first. */
function generations(rows) {
  const known = (value, format) => (value === null || value === undefined ? DASH : format(value));
  return rows.length ? [el("h3", {}, "Generations of tiers"), table({ text: "Generations", hidden: true }, [
    { name: "Tier", head: true, cell: (row) => el("span", {}, name(row.tier), el("span", { className: "dim" }, ` ${row.digest.slice(0, 12)}`)) },
    { name: "Made, UTC", cell: (row) => moment(row.made_s) },
    { name: "", cell: (row) => el("span", { className: `pill ${STATES[row.state] || ""}` }, row.state || DASH) },
    { name: "From", cell: (row) => el("span", { className: "said" }, made(row)) },
    { name: "Learned", cell: (row) => gained(row.learned || {}) },
    { name: "Cost", number: true, cell: (row) => el("span", {}, known(row.cost_usd, usd), el("span", { className: "dim" }, row.seconds ? ` ${count(Math.round(row.seconds))} s` : "")) },
    { name: "Saves a day", number: true, cell: (row) => el("span", { className: row.saves_usd_day > 0 ? "good" : "" }, known(row.saves_usd_day, usd)) },
  ], rows)] : [];
}

function made(row) {
  const train = Object.values((row.rows || {}).counts?.train || {}), failures = (row.rows || {}).counts?.train?.failure;
  const all = train.reduce((sum, n) => sum + n, 0);
  const from = all ? `${count(all)} requests${failures === undefined ? "" : `, ${count(failures)} of them failures`}` : row.method || DASH;
  return row.parent ? `${from}; after ${row.parent.slice(0, 12)}` : from;
}

const SLICES = 6;
/** Scores before and after, of all and of the slices that changed most. */
function gained(slices) {
  const names = Object.keys(slices).filter((key) => key !== "all").sort((a, b) => change(slices[b]) - change(slices[a])).slice(0, SLICES);
  const line = (key) => el("li", {}, `${key} ${slices[key].before.toFixed(3)} → ${slices[key].after.toFixed(3)}`, el("span", { className: "dim" }, ` (${count(slices[key].n)})`));
  if (!slices.all && !names.length) return DASH;
  return el("span", {}, slices.all ? `${slices.all.before.toFixed(3)} → ${slices.all.after.toFixed(3)}` : "",
    names.length ? el("details", { className: "more" }, el("summary", {}, "by slice"), el("ul", { className: "plain" }, names.map(line))) : "");
}

const change = (of) => Math.abs(of.after - of.before);

// -- what was ---------------------------------------------------------------------------------------------------------------

function promotions(rows) {
  return rows.length ? [el("h3", {}, "Saved since each promotion"), table({ text: "Savings since each promotion", hidden: true }, [
    { name: "From, UTC", head: true, cell: (row) => moment(row.at_s) },
    { name: "Run", cell: (row) => name(row.run_id) },
    { name: "Requests", number: true, cell: (row) => compact(row.saved.requests) },
    { name: "Cost", number: true, cell: (row) => usd(row.saved.cost_usd) },
    { name: "Audits and learning", number: true, cell: (row) => usd(row.saved.unasked_usd) },
    { name: "Saved", number: true, cell: (row) => el("span", { className: row.saved.saved_usd > 0 ? "good" : "" }, usd(row.saved.saved_usd)) },
    { name: "of always the top tier", number: true, cell: (row) => percent(row.saved.saved_share) },
  ], rows)] : [];
}

function runs(rows) {
  return rows.length ? [el("h3", {}, "Runs"), table({ text: "Runs", hidden: true }, [
    { name: "Run", head: true, cell: (row) => name(row.id) },
    { name: "Began, UTC", cell: (row) => moment(row.began_s) },
    { name: "Stage", cell: (row) => el("span", { className: `pill ${ENDS[row.stage] || ""}` }, row.stage) },
    { name: "Pairs", number: true, cell: (row) => (row.pairs === null || row.pairs === undefined ? DASH : count(row.pairs)) },
    { name: "Gates", number: true, cell: (row) => passed(listed(row.gates)) },
    { name: "Why", cell: (row) => el("span", { className: "said" }, row.why || DASH) },
  ], rows)] : [];
}

const passed = (rows) => (rows.length ? `${rows.filter((row) => row.passed).length} of ${rows.length}` : DASH);

function now({ active, configured, canary, share }) {
  if (active === undefined) return [];
  const which = !active ? "no artefact: auto is the top tier" : active === configured ? "the configured artefact" : `the learned artefact ${active.slice(0, 12)}`;
  return el("p", { className: "fine" }, `This ingress decides by ${which}${canary ? `, and on ${percent(share)} of the conversations by the canary ${canary.slice(0, 12)}` : ""}.`);
}
