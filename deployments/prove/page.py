"""The page of a proof: one HTML file without network or script, from the figures alone. Every text in it is escaped."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from deployments.prove import charts

Json = Mapping[str, Any]
HERE = Path(__file__).parent
UNKNOWN = "–"


def number(value: float | None, form: str) -> str:
    return UNKNOWN if value is None else format(value, form)


def interval(found: Sequence[float | None], form: str) -> str:
    """A value with its interval: `0.951 [0.912, 0.978]`."""
    value, low, high = found
    return number(value, form) if low is None or high is None else f"{value:{form}} [{low:{form}}, {high:{form}}]"


FILTERS = {
    "score": lambda found: interval(found, ".3f"),
    "signed": lambda found: interval(found, "+.3f"),
    "share": lambda found: interval(found, ".1%"),
    "percent": lambda value: number(value, ".1%"),
}


@cache
def environment() -> Environment:
    made = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    made.filters.update(FILTERS)
    return made


def page(figures: Json, about: Json, texts: bool = True) -> str:
    """The whole file. texts: show prompts and answers as examples."""
    tiers = list(about["tiers"])
    drawn = {}
    if figures["compared"]:
        drawn = {
            "points": charts.cost_quality(figures["points"], tiers),
            "shares": charts.shares(figures["tiers"], tiers),
            "ttft": charts.distribution(figures["latency"], "ttft_s", "Time to the first text", tiers),
            "total": charts.distribution(figures["latency"], "total_s", "Time to the end of the answer", tiers),
        }
    template = environment().from_string((HERE / "page.html").read_text("utf-8"))
    css = Markup((HERE / "page.css").read_text("utf-8"))
    return template.render(figures=figures, about=about, said=said(figures, about), charts=drawn, css=css, texts=texts)


def said(figures: Json, about: Json) -> dict[str, Any]:
    """The sentences of the page."""
    return {
        "verdict": verdict(figures),
        "notes": about["notes"],
        "tiles": tiles(figures, about) if figures["compared"] else [],
        "certificates": [{"said": certificate(one), "text": one.get("text", "")} for one in about["certificates"].values()],
        "paid": paid(figures, about),
    }


def verdict(figures: Json) -> str:
    if not figures["compared"]:
        why = figures.get("why") or "; ".join(f"{n} x {what}" for what, n in figures["missing"].items())
        return f"Nothing could be compared: {why or 'no prompt was tried live'}."
    top, saved, quality = figures["top"], figures["cost"]["saved"], figures["quality"]["difference"]
    if figures["verdict"]["shown"]:
        return (
            f"auto cost {interval(saved, '.0%')} less than {top} alone, at a mean score {interval(quality, '+.3f')} against it."
        )
    if figures["verdict"]["worse"]:
        return f"No saving worth having is shown: auto is worse than {top}, {interval(quality, '+.3f')} in mean score."
    return f"No saving could be shown: auto cost {interval(figures['cost']['ratio'], '.0%')} of {top} alone."


def tiles(figures: Json, about: Json) -> list[dict[str, str]]:
    cost, quality, top = figures["cost"], figures["quality"], figures["top"]
    auto, large = (figures["latency"][way].get("total_s") for way in ("auto", top))
    seconds = f"{auto['p50'][0]:.2f} s" if auto else UNKNOWN
    beside = f"{top}: {large['p50'][0]:.2f} s; p95 {auto['p95'][0]:.2f} against {large['p95'][0]:.2f} s" if auto and large else ""
    small = sum(row["share"] for row in figures["tiers"] if row["tier"] != top)
    return [
        {"name": "cost saved", "value": number(cost["saved"][0], ".0%"), "under": f"95 %: {interval(cost['saved'], '.1%')}"},
        {
            "name": f"of {top}'s score",
            "value": number(quality["ratio"][0], ".1%"),
            "under": f"difference {interval(quality['difference'], '+.3f')}",
        },
        {"name": "answered below the top", "value": f"{small:.0%}", "under": f"of {figures['compared']} prompts"},
        {"name": "half of the answers end within", "value": seconds, "under": beside},
        {
            "name": "USD for 1,000 requests",
            "value": f"{1000 * cost['auto'][0]:.4g}",
            "under": f"{top} alone: {1000 * cost['top'][0]:.4g}; {about['price_note']}",
        },
    ]


def certificate(found: Json) -> str:
    """What is promised, or why nothing is."""
    if found["kind"] == "certificate":
        return (
            f"auto:{found['rule']}: with confidence {1 - found['delta']:.0%}, at most {found['alpha']:.1%} of all requests get a "
            f"smaller tier's answer that is worse than the top tier's. Made of {found['n']} prompts that were not trained on, "
            f"{found['k']} of them worse; smaller tiers answered {found['coverage']:.1%} of them. It holds for these models, "
            "templates and engines, at temperature 0, and for requests like these."
        )
    if found["kind"] == "infeasible":
        more = f" {found['n']} prompts were not trained on; more of them may prove more." if found.get("n") else ""
        return f"auto:{found['rule']}: no certificate: {found['reason']}. So every request goes to the top tier.{more}"
    return f"auto:{found['rule']}: no certificate: {found['reason']}."


def paid(figures: Json, about: Json) -> str:
    parts = ", ".join(f"{what} {usd:.4g}" for what, usd in about["paid"].items()) or "nothing"
    total = sum(about["paid"].values())
    told = f"Paid by token prices, in USD: {parts}; {total:.4g} in all."
    if not figures["compared"] or not figures["verdict"]["saves"]:
        return told
    each = figures["cost"]["top"][0] - figures["cost"]["auto"][0]
    return f"{told} At the saving above, {total / each:,.0f} requests pay for it." if each > 0 else told
