"""What `stepdown simulate` says: cost at quality of routing, cascading and both, as data, as text, as a picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from classifiers.replies.posterior import Posterior
from router.learn import evaluation as ev
from router.learn.measures import Frontier
from router.learn.simulate import Rows, costs_at, frontier_of, play_all

SHARES = (0.95, 0.98, 0.99, 1.0)
WHAT = {
    "routing": "the classifier alone",
    "cascading": "cheapest first, then up",
    "both": "as served: decided again after each answer",
}


def simulate(
    posterior: Posterior, rows: Rows, best_of: bool, n_draws: int = 300, seed: int = 0
) -> tuple[dict[str, Any], dict[str, Frontier]]:
    """All figures, and the frontiers to draw."""
    played = play_all(posterior, rows, best_of)
    weights = ev.draws(len(rows), n_draws, seed)
    frontiers = {name: frontier_of(p, rows, weights) for name, p in played.items()}
    found = costs_at(frontiers, SHARES)
    return {
        "rows": len(rows),
        "top_is_final": not best_of,
        "quality": rows.scores.mean(axis=0).round(4).tolist(),
        "cost": (rows.costs.mean(axis=0) / rows.costs[:, -1].mean()).round(4).tolist(),
        "cost_at": {name: {share: _plain(e) for share, e in by.items()} for name, by in found.items()},
    }, frontiers


def _plain(e: ev.Estimate) -> list[float | None]:
    """[value, low, high], NaN (never reached) as None."""
    return [None if np.isnan(v) else round(float(v), 4) for v in (e.value, e.low, e.high)]


def _cell(value: list[float | None]) -> str:
    if value[0] is None:
        return "never reached"
    low, high = ("-" if v is None else f"{v:.3f}" for v in value[1:])
    return f"{value[0]:.3f} [{low}, {high}]"


def text(found: Mapping[str, Any], tiers: list[str]) -> str:
    """The same for people."""
    lines = [f"{found['rows']} rows; cost as a share of always asking {tiers[-1]}, all probes paid for, 95 % intervals", ""]
    lines.append(" " * 12 + "".join(f"{f'{share:g} % of its score':24}" for share in (100 * s for s in SHARES)))
    for name, by in found["cost_at"].items():
        lines.append(f"{name:12}" + "".join(f"{_cell(by[f'{s * 100:g}']):24}" for s in SHARES) + WHAT[name])
    lines += ["", "always one tier:"]
    lines += [f"  {t:12} score {q:.3f}  cost {c:.3f}" for t, q, c in zip(tiers, found["quality"], found["cost"], strict=True)]
    return "\n".join(lines)


def draw(frontiers: Mapping[str, Frontier], rows: Rows, tiers: list[str], path: Path) -> None:
    """The cost-quality curves, with the 95 % band of each, and the single tiers."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 5), layout="constrained")
    axes = figure.subplots()
    for name, colour in (("routing", "C0"), ("cascading", "C1"), ("both", "C2")):
        f = frontiers[name]
        x, y = ev.hull(f.cost[0], f.quality[0])
        axes.plot(x, y, colour, label=f"{name}: {WHAT[name]}")
        grid = np.linspace(x[0], x[-1], 60)
        curves = [np.interp(grid, *ev.hull(c, q)) for c, q in zip(f.cost[1:], f.quality[1:], strict=True)]
        axes.fill_between(grid, *np.quantile(curves, [0.025, 0.975], axis=0), color=colour, alpha=0.12, linewidth=0)
    cost = rows.costs.mean(axis=0) / rows.costs[:, -1].mean()
    quality = rows.scores.mean(axis=0) / rows.scores[:, -1].mean()
    axes.plot(cost, quality, "k.", markersize=8)
    for tier, a, b in zip(tiers, cost, quality, strict=True):
        axes.annotate(tier, (a, b), textcoords="offset points", xytext=(6, -10))
    axes.set(xlabel=f"cost, always {tiers[-1]} = 1", ylabel=f"score, always {tiers[-1]} = 1", xlim=(0, 1.3))
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)
