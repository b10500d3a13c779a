// One request: what was decided and why, each call, and the texts where they are kept.
import { ask, get } from "./api.js";
import { at, el, fill, name, table } from "./dom.js";
import { DASH, count, moment, percent, seconds, tierName, usd } from "./format.js";

const id = decodeURIComponent(location.pathname.split("/").pop());

async function load() {
  at("status").textContent = "Loading …";
  try {
    const access = await get("../access.json");
    if (!access.allowed) {
      at("status").textContent = "";
      return ask(access.why, load);
    }
    show(await get(`${encodeURIComponent(id)}.json`));
    at("status").textContent = "";
  } catch (error) {
    at("status").textContent = error.message;
  }
}

function show(trace) {
  at("trace").hidden = false;
  document.title = `Trace ${trace.id.slice(0, 8)} · Stepdown`;
  fill("what", [
    ["Trace", el("code", {}, trace.id)], ["When, UTC", moment(trace.began_s)], ["Key", trace.key_id || DASH], ["Asked for", trace.wanted],
    ["Target", trace.target || DASH], ["Answered by", tierName(trace.tier)], ["Reason", trace.reason || DASH], ["Flow", trace.flow],
    ["Chance", percent(trace.confidence)], ["Unlike training", percent(trace.unfamiliar)], ["Certificate", trace.certificate || DASH],
    ["Status", trace.error ? `${trace.status} ${trace.error}` : String(trace.status)], ["Cost", usd(trace.cost_usd)],
    ["Top tier alone", trace.counterfactual_usd === null ? DASH : `${usd(trace.counterfactual_usd)}${trace.counterfactual_estimated ? ", estimated" : ""}`],
    ["Took", seconds(trace.took_s)], ["First byte", seconds(trace.first_byte_s)], ["Decision", `${trace.decision_ms.toFixed(2)} ms`], ["Path", trace.path],
  ].flatMap(([term, value]) => el("div", {}, el("dt", {}, term), el("dd", {}, value))));
  fill("chances", table({ text: "Chances", hidden: true }, [
    { name: "Tier", head: true, cell: (row) => name(row[0]) }, { name: "Chance", number: true, cell: (row) => percent(row[1]) },
  ], Object.entries(trace.p), "Nobody asked the classifier."));
  fill("calls", table({ text: "Calls in the order they began", hidden: true }, [
    { name: "After", head: true, cell: (row) => seconds(Math.max(0, row.began_s - trace.began_s)) },
    { name: "Role", cell: (row) => row.role }, { name: "Tier", cell: (row) => name(row.tier) }, { name: "Outcome", cell: (row) => name(row.outcome) },
    { name: "In", number: true, cell: (row) => count(row.input_tokens) }, { name: "cached", number: true, cell: (row) => count(row.cached_tokens) },
    { name: "Out", number: true, cell: (row) => `${count(row.output_tokens)}${row.estimated ? " est." : ""}` },
    { name: "Cost", number: true, cell: (row) => usd(row.cost_usd) }, { name: "Busy", number: true, cell: (row) => seconds(row.busy_s) },
    { name: "GPU cost", number: true, cell: (row) => usd(row.gpu_usd) }, { name: "Took", number: true, cell: (row) => seconds(row.took_s) },
    { name: "First token", number: true, cell: (row) => seconds(row.first_token_s) }, { name: "Replica", cell: (row) => name(row.replica || DASH) },
  ], trace.calls, "No calls."));
  fill("kept", kept(trace.kept));
  fill("feedback", table({ text: "Feedback, the last first", hidden: false }, [
    { name: "When, UTC", head: true, cell: (row) => moment(row.at_s) }, { name: "Key", cell: (row) => name(row.key_id) },
    { name: "Score", number: true, cell: (row) => row.score === null ? DASH : String(row.score) },
    { name: "Correction", cell: (row) => name(row.correction ?? DASH) }, { name: "Comment", cell: (row) => name(row.comment ?? DASH) },
  ], trace.feedback, "Nobody said how good the answer was."));
  const texts = [["Prompt", trace.prompt], ["Answer", trace.answer]].filter(([, text]) => text !== null);
  fill("prompt", texts.length ? texts.flatMap(([term, text]) => [el("h3", {}, term), el("pre", { className: "text", tabIndex: 0 }, text)])
    : el("p", { className: "empty" }, "Texts are not kept (ledger.store)."));
}

function kept(row) {
  if (!row) return el("p", { className: "empty" }, "It is not kept (learning.collect, the key's learning, store).");
  const grades = row.grades.map((grade) => `${grade.tier} ${grade.score === null ? DASH : grade.score} (${grade.source})`);
  return el("dl", { className: "facts" }, ...[
    ["Kept by", row.consent === "all" ? "its key" : "its store: true"], ["Licence", row.licence || DASH], ["Redacted by", row.redaction || DASH],
    ["Until, UTC", row.expires_s === null ? "for ever" : moment(row.expires_s)],
    ["Answers", row.answers.map((answer) => `${answer.tier} (${answer.role})`).join(", ")], ["Grades", grades.join(", ") || DASH],
  ].map(([term, value]) => el("div", {}, el("dt", {}, term), el("dd", {}, value))));
}

load();
