"""The report of `stepdown simulate`: cost at quality of routing, cascading and both, as data, text and a picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from classifiers.choose import Floats
from classifiers.replies.posterior import Posterior
from router.learn import evaluation as ev
from router.learn.evaluation import Frontier
from router.learn.report import draw_band
from router.learn.simulate import Rows, costs_at, frontier_of, play_all

SHARES = (0.95, 0.98, 0.99, 1.0)  # of the top tier's quality
POLICIES = {
    "routing": "the classifier alone",
    "cascading": "cheapest first, then up",
    "both": "as served: decides again after each answer",
}


def simulate(
    posterior: Posterior, rows: Rows, best_of: bool, n_draws: int = 300, seed: int = 0
) -> tuple[dict[str, Any], dict[str, Frontier]]:
    """All figures, and the frontiers for `draw`."""
    played = play_all(posterior, rows, best_of)
    weights = ev.draws(len(rows), n_draws, seed, rows.weights)
    frontiers = {name: frontier_of(p, rows, weights) for name, p in played.items()}
    found = costs_at(frontiers, SHARES)
    return {
        "rows": len(rows),
        "top_is_final": not best_of,
        "quality": np.average(rows.scores, axis=0, weights=rows.weights).round(4).tolist(),
        "cost": relative(rows).round(4).tolist(),
        "cost_at": {name: {share: e.rounded(4) for share, e in by.items()} for name, by in found.items()},
    }, frontiers


def relative(rows: Rows) -> Floats:
    """(n_tiers,) mean cost, the top tier's = 1."""
    mean = np.average(rows.costs, axis=0, weights=rows.weights)
    return np.asarray(mean / mean[-1])


def _cell(value: list[float | None]) -> str:
    if value[0] is None:
        return "never reached"
    low, high = ("-" if v is None else f"{v:.3f}" for v in value[1:])
    return f"{value[0]:.3f} [{low}, {high}]"


def text(found: Mapping[str, Any], tiers: list[str]) -> str:
    """The figures as text."""
    lines = [f"{found['rows']} rows; cost as a share of always asking {tiers[-1]}, every call counted, 95 % intervals", ""]
    lines.append(" " * 12 + "".join(f"{f'{share:g} % of its score':24}" for share in (100 * s for s in SHARES)))
    for name, by in found["cost_at"].items():
        lines.append(f"{name:12}" + "".join(f"{_cell(by[f'{s * 100:g}']):24}" for s in SHARES) + POLICIES[name])
    lines += ["", "always one tier:"]
    lines += [f"  {t:12} score {q:.3f}  cost {c:.3f}" for t, q, c in zip(tiers, found["quality"], found["cost"], strict=True)]
    return "\n".join(lines)


def draw(frontiers: Mapping[str, Frontier], rows: Rows, tiers: list[str], path: Path) -> None:
    """Draw the cost-quality curve of each policy with its 95 % interval, and the single tiers."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 5), layout="constrained")
    axes = figure.subplots()
    for i, (name, description) in enumerate(POLICIES.items()):
        draw_band(axes, frontiers[name], f"{name}: {description}", f"C{i}")
    cost, quality = relative(rows), np.average(rows.scores, axis=0, weights=rows.weights)
    quality = quality / quality[-1]
    axes.plot(cost, quality, "k.", markersize=8)
    for tier, a, b in zip(tiers, cost, quality, strict=True):
        axes.annotate(tier, (a, b), textcoords="offset points", xytext=(6, -10))
    axes.set(xlabel=f"cost, always {tiers[-1]} = 1", ylabel=f"score, always {tiers[-1]} = 1", xlim=(0, 1.3))
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)
