"""All figures of a proof from its graded live answers: pure, with 95 % bootstrap intervals over groups of prompts.

What is compared is paired: the same prompt, sent to `auto` and to the top tier by name. A prompt that one of the two did not
answer, or whose answer could not be graded, is counted and left out.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from classifiers.choose import Floats
from deployments.prove.live import AUTO
from deployments.prove.split import text_of
from router.learn import evaluation as ev

Row = dict[str, Any]
Json = dict[str, Any]
N_DRAWS = 2000
QUANTILES = (0.50, 0.95)
WORST = 10
SMALLEST_SLICE = 8
"""prompts; of smaller slices nothing is said"""
MOST_SLICES = 24
CLIPPED = 400
"""characters of a text in an example"""
TASKS = ("task", "kind", "category", "language")


def both(row: Mapping[str, Any], top: str) -> bool:
    """Whether `auto` and the top tier have graded answers."""
    return all((row["ways"].get(way) or {}).get("score") is not None for way in (AUTO, top))


def column(rows: Sequence[Row], way: str, name: str) -> Floats:
    """(n,) a number of one way's answers; NaN where it is missing."""
    found = [(row["ways"].get(way) or {}).get(name) for row in rows]
    return np.array([np.nan if value is None else float(value) for value in found], dtype=np.float64)


def weights_of(rows: Sequence[Row], seed: int) -> Floats:
    """(N_DRAWS + 1, n) how often each prompt is drawn; near-duplicates are drawn together. Row 0 is all ones."""
    _, place = np.unique([str(row.get("stem_sha256", row["id"])) for row in rows], return_inverse=True)
    return np.asarray(ev.draws(int(place.max()) + 1, N_DRAWS, seed)[:, place])


def mean(weights: Floats, values: Floats) -> Floats:
    """(n_draws,) the mean of (n,) values, drawn."""
    return np.asarray(weights @ values / np.maximum(weights.sum(axis=1), 1e-12))


def shown(values: Floats, digits: int = 6) -> list[float | None]:
    """[value, low, high] of (n_draws,) values, the estimate first."""
    return ev.estimate(values).rounded(digits)


def figures(rows: Sequence[Row], tiers: Sequence[str], alpha: float, seed: int) -> Json:
    """Everything that is measured. rows: with `ways` (name -> answer with `score`). tiers: cheapest first."""
    top = tiers[-1]
    kept = [row for row in rows if both(row, top)]
    found: Json = {"asked": len(rows), "compared": len(kept), "top": top, "missing": missing(rows, top)}
    if not kept:
        return found | {"verdict": {"saves": False, "worse": False, "shown": False}}
    weights = weights_of(kept, seed)
    quality, cost = compared_quality(kept, top, weights), compared_cost(kept, top, weights)
    return found | {
        "quality": quality,
        "cost": cost,
        "verdict": verdict(quality, cost, alpha),
        "latency": {way: latency([row["ways"][way] for row in kept], seed) for way in (AUTO, top)},
        "tiers": taken(kept, tiers),
        "points": points(kept, tiers, seed),
        "slices": slices(kept, top, seed),
        "worst": worst(kept, top),
        "certificates": dict(Counter(row["ways"][AUTO].get("certificate") or "none" for row in kept).most_common()),
    }


def missing(rows: Sequence[Row], top: str) -> Json:
    """Why prompts were not compared -> how many."""
    found: Counter[str] = Counter()
    for row in rows:
        if not both(row, top):
            answers = {way: row["ways"].get(way) or {"error": "not asked"} for way in (AUTO, top)}
            way = next(way for way, answer in answers.items() if answer.get("score") is None)
            found[f"{way}: {answers[way].get('error') or 'no score'}"[:200]] += 1
    return dict(found.most_common(8))


def compared_quality(rows: Sequence[Row], top: str, weights: Floats) -> Json:
    """Mean scores, their difference and ratio."""
    auto, large = (mean(weights, column(rows, way, "score")) for way in (AUTO, top))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = auto / large
    scores = [(row["ways"][AUTO]["score"], row["ways"][top]["score"]) for row in rows]
    return {
        "auto": shown(auto),
        "top": shown(large),
        "difference": shown(auto - large),
        "ratio": shown(ratio),
        "worse": sum(a < b for a, b in scores),
        "better": sum(a > b for a, b in scores),
        "same": sum(a == b for a, b in scores),
    }


def compared_cost(rows: Sequence[Row], top: str, weights: Floats) -> Json:
    """USD a request, their ratio, and what is saved."""
    auto, large = (mean(weights, np.nan_to_num(column(rows, way, "cost_usd"))) for way in (AUTO, top))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(large > 0, auto / large, np.nan)
    return {"auto": shown(auto, 12), "top": shown(large, 12), "ratio": shown(ratio), "saved": shown(1 - ratio)}


def verdict(quality: Json, cost: Json, alpha: float) -> Json:
    """Whether a saving is shown: the cost's whole interval is below the top tier's, and quality is not shown to be worse by more
    than alpha.
    """
    high = cost["ratio"][2]
    saves = high is not None and high < 1
    best = quality["difference"][2]
    worse = best is not None and best < -alpha
    return {"saves": saves, "worse": worse, "shown": saves and not worse}


def latency(answers: Sequence[Mapping[str, Any]], seed: int) -> Json:
    """Seconds to the first token and to the end: quantiles with intervals, and the distribution."""
    found: Json = {}
    for name in ("ttft_s", "total_s"):
        values = np.array([float(a[name]) for a in answers if a.get(name) is not None])
        if not len(values):
            continue
        drawn = np.random.default_rng(seed).integers(0, len(values), (500, len(values)))
        spread = np.quantile(values[drawn], QUANTILES, axis=1)
        at = np.quantile(values, QUANTILES)
        found[name] = {
            f"p{100 * q:.0f}": [round(float(at[k]), 4), *(round(float(v), 4) for v in np.quantile(spread[k], [0.025, 0.975]))]
            for k, q in enumerate(QUANTILES)
        }
        found[name]["curve"] = [round(float(v), 4) for v in np.quantile(values, np.linspace(0, 1, 41))]
    return found


def taken(rows: Sequence[Row], tiers: Sequence[str]) -> list[Json]:
    """What each tier took of `auto`: answers, calls and USD."""
    answers = Counter(row["ways"][AUTO].get("tier") for row in rows)
    calls: Counter[str] = Counter()
    usd: dict[str, float] = defaultdict(float)
    for row in rows:
        for call in row["ways"][AUTO].get("calls") or ():
            calls[call["tier"]] += 1
            usd[call["tier"]] += float(call.get("cost_usd") or 0.0)
    total = max(sum(usd.values()), 1e-18)
    return [
        {
            "tier": tier,
            "answers": answers[tier],
            "share": answers[tier] / len(rows),
            "calls": calls[tier],
            "usd": round(usd[tier], 12),
            "of_cost": round(usd[tier] / total, 6),
        }
        for tier in tiers
    ]


def points(rows: Sequence[Row], tiers: Sequence[str], seed: int) -> list[Json]:
    """Cost, as a share of always the top tier, and quality of `auto` and of each tier alone, on the prompts that all answered."""
    ways = [*tiers, AUTO]
    asked = [way for way in ways if any(np.isfinite(column(rows, way, "score")))]
    kept = [row for row in rows if all((row["ways"].get(way) or {}).get("score") is not None for way in asked)]
    if not kept:
        return []
    weights = weights_of(kept, seed)
    top = mean(weights, np.nan_to_num(column(kept, tiers[-1], "cost_usd")))
    found = []
    for way in asked:
        usd = mean(weights, np.nan_to_num(column(kept, way, "cost_usd")))
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(top > 0, usd / top, np.nan)
        quality = mean(weights, column(kept, way, "score"))
        found.append({"way": way, "cost": shown(share), "quality": shown(quality), "prompts": len(kept)})
    return found


# -- where it fails -------------------------------------------------------------------------------------------------------------


def labels_of(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The slices that a row is in: its task, its metadata."""
    found = [(name, str(row[name])[:60]) for name in TASKS if row.get(name) not in (None, "")]
    metadata = row.get("metadata")
    if isinstance(metadata, Mapping):
        found += [(f"metadata.{name}"[:60], str(value)[:60]) for name, value in metadata.items()]
    return found


def slices(rows: Sequence[Row], top: str, seed: int) -> list[Json]:
    """Quality and cost by task, metadata and length, the worst first."""
    sizes = np.array([len(text_of(row)) for row in rows])
    edges = np.quantile(sizes, [1 / 3, 2 / 3])
    names = ("short", "middling", "long")
    by_name: dict[tuple[str, str], list[Row]] = {}
    for row, size in zip(rows, sizes, strict=True):
        for label in [*labels_of(row), ("length", names[int(np.searchsorted(edges, size))])]:
            by_name.setdefault(label, []).append(row)
    found = [
        {"by": by, "name": name, **slice_of(members, top, seed)}
        for (by, name), members in by_name.items()
        if len(members) >= SMALLEST_SLICE and (len(members) < len(rows) or by == "length")
    ]
    return sorted(found, key=lambda one: (one["difference"][0], one["name"]))[:MOST_SLICES]


def slice_of(rows: Sequence[Row], top: str, seed: int) -> Json:
    weights = weights_of(rows, seed)
    quality, cost = compared_quality(rows, top, weights), compared_cost(rows, top, weights)
    return {
        "prompts": len(rows),
        "auto": quality["auto"][0],
        "top": quality["top"][0],
        "difference": quality["difference"],
        "cost": cost["ratio"],
    }


def worst(rows: Sequence[Row], top: str) -> list[Json]:
    """Prompts on which `auto` lost most, in short."""

    def lost(row: Row) -> float:
        return float(row["ways"][top]["score"] - row["ways"][AUTO]["score"])

    losing = sorted((row for row in rows if lost(row) > 0), key=lambda row: (-lost(row), str(row["id"])))
    return [
        {
            "id": str(row["id"]),
            "prompt": clipped(text_of(row)),
            "reference": clipped("" if row.get("answer") is None else str(row["answer"])),
            "tier": row["ways"][AUTO].get("tier"),
            "auto": clipped(row["ways"][AUTO].get("answer") or ""),
            "top": clipped(row["ways"][top].get("answer") or ""),
            "scores": [row["ways"][AUTO]["score"], row["ways"][top]["score"]],
        }
        for row in losing[:WORST]
    ]


def clipped(text: str) -> str:
    return text if len(text) <= CLIPPED else f"{text[: CLIPPED - 1]}…"
