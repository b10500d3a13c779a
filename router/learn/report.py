"""The report of a training: how good the router is on rows it had not seen, as Markdown, JSON and a picture.

All figures come from cross-fitted chances, so no row is judged by a classifier that learned from it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from classifiers import Rule
from classifiers.choose import Floats
from classifiers.files import atomic_write, replaced
from router.learn import evaluation as ev
from router.learn.compare import compare_chances, compare_text
from router.learn.evaluation import Frontier
from router.learn.measures import oracle_frontier, router_frontier, single_tiers
from router.learn.outcomes import Outcomes

FEWEST_OF_A_TASK = 20  # rows that a task needs to be listed
BINS = 10  # of the reliability curve


def by_task(p: Floats, table: Outcomes) -> list[dict[str, Any]]:
    """Each task's rows, quality by tier, APGR and largest bias, the weakest APGR first."""
    found = []
    for task in np.unique(table.tasks):
        rows = table.tasks == task
        if not task or rows.sum() < FEWEST_OF_A_TASK:
            continue
        scores, shares = table.scores[rows], table.shares[rows]
        if not shares.sum() > 0:
            continue
        weights = ev.draws(int(rows.sum()), 200, shares=shares)
        gain = ev.estimate(ev.apgr(p[rows, -1] - p[rows, 0], scores[:, 0], scores[:, -1], weights))
        quality_of = np.average(scores, axis=0, weights=shares)
        error = float(np.abs(np.average(p[rows], axis=0, weights=shares) - quality_of).max())
        quality = [round(float(q), 4) for q in quality_of]
        apgr = [None if not np.isfinite(v) or abs(v) > 5 else round(v, 4) for v in (gain.value, gain.low, gain.high)]
        found.append({"task": str(task), "rows": int(rows.sum()), "quality": quality, "apgr": apgr, "bias": round(error, 4)})
    return sorted(found, key=lambda row: row["apgr"][0] if row["apgr"][0] is not None else 9.0)


def reliability(p: Floats, y: Floats) -> list[tuple[float, float, int]]:
    """(mean chance, mean score, rows) for each bin of the chance that has rows."""
    bins = np.minimum((p * BINS).astype(int), BINS - 1)
    return [
        (float(p[bins == b].mean()), float(y[bins == b].mean()), int((bins == b).sum())) for b in range(BINS) if (bins == b).any()
    ]


def build(p: Floats, cost: Floats, table: Outcomes, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The report as data. p, cost: (n, n_tiers) chances and guessed costs of unseen rows, which must be complete."""
    return {
        **compare_chances(p, cost, table, None),
        "classifier": manifest["classifier"],
        "rules": manifest["rules"],
        "recovered": manifest["recovered"],
        "tasks": by_task(p, table),
        "curve": curve(p, cost, table),
        "reliability": {tier: reliability(p[:, k], table.scores[:, k]) for k, tier in enumerate(table.tiers)},
    }


def curve(p: Floats, cost: Floats, table: Outcomes) -> list[list[float]]:
    """[cost, quality] by rising cost, both as shares of always taking the top tier; the cost page draws it."""
    once = np.ones((1, len(table)))
    ours, top = router_frontier(p, cost, table, once), single_tiers(table, once).quality[0, -1]
    x, y = ev.hull(ours.cost[0], ours.quality[0])
    return [[round(float(c), 5), round(float(q / max(top, 1e-9)), 5)] for c, q in zip(x, y, strict=True)]


def markdown(report: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    tiers = report["tiers"]
    value, low, high = report["recovered"]
    lines = [
        f"# Router for {', '.join(tiers)}",
        "",
        f"Classifier `{report['classifier']}`, {report['rows']} rows, each judged by a classifier that had not seen it. "
        f"It recovers {value:.1%} (95 %: {low:.1%} to {high:.1%}) of what an oracle gains over mixing tiers at random.",
        "",
    ]
    if not low > 0:
        lines += ["**Not significantly better than mixing tiers at random, so it is switched off: see the targets.**", ""]
    lines += ["![cost and quality, reliability](report.png)", "", "## Targets", ""]
    lines += [f"- `auto:{name}`: {Rule.from_dict(rule).describe(tiers)}" for name, rule in report["rules"].items()]
    lines += ["", "## Measures", "", "```", compare_text(report), "```", "", "## By task, the weakest first", ""]
    lines += ["| task | rows | APGR [95 %] | largest bias of a chance | " + " | ".join(tiers) + " |"]
    lines += ["| --- " * (4 + len(tiers)) + "|"]
    lines += [_task_line(row) for row in report["tasks"]]
    return "\n".join(lines) + "\n"


def _task_line(row: Mapping[str, Any]) -> str:
    value, low, high = row["apgr"]
    apgr = "-" if value is None else f"{value:.2f}"
    if low is not None and high is not None:
        apgr += f" [{low:.2f}, {high:.2f}]"
    quality = " | ".join(f"{q:.3f}" for q in row["quality"])
    return f"| {row['task']} | {row['rows']} | {apgr} | {row['bias']:.3f} | {quality} |"


def draw_band(axes: Any, f: Frontier, label: str, colour: str) -> None:
    """Draw a hull with its 95 % interval, over the cost range of the estimate."""
    x, y = ev.hull(f.cost[0], f.quality[0])
    grid = np.linspace(x[0], x[-1], 60)
    axes.plot(x, y, color=colour, label=label)
    axes.fill_between(grid, *f.band(grid), color=colour, alpha=0.15, linewidth=0)


def picture(path: Path, p: Floats, cost: Floats, table: Outcomes, report: Mapping[str, Any]) -> None:
    """Draw quality over cost (left) and the reliability of each tier's chance (right)."""
    from matplotlib.figure import Figure

    weights = ev.draws(len(table), 100, shares=table.shares)
    singles = single_tiers(table, weights)
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    draw_band(left, oracle_frontier(table, weights), "oracle", "0.6")
    draw_band(left, router_frontier(p, cost, table, weights), "router", "tab:blue")
    draw_band(left, singles, "random mix", "tab:orange")
    for k, tier in enumerate(table.tiers):
        left.plot(singles.cost[0, k], singles.quality[0, k], "k.")
        left.annotate(tier, (singles.cost[0, k], singles.quality[0, k]), textcoords="offset points", xytext=(4, -10))
        chance, score, _ = zip(*report["reliability"][tier], strict=True)
        right.plot(chance, score, "o-", label=tier)
    right.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    left.set(xlabel=f"cost, always {table.tiers[-1]} = 1", ylabel="quality")
    right.set(xlabel="chance given", ylabel="share that was good")
    left.legend()
    right.legend()
    figure.savefig(path, dpi=110, format="png")


def write(folder: Path, p: Floats, cost: Floats, table: Outcomes, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Write report.md, report.json and report.png into `folder`; returns the report."""
    report = build(p, cost, table, manifest)
    folder.mkdir(parents=True, exist_ok=True)
    with replaced(folder / "report.png") as fresh:
        picture(fresh, p, cost, table, report)
    atomic_write(folder / "report.md", markdown(report))
    atomic_write(folder / "report.json", json.dumps(report, indent=1) + "\n")
    return report
