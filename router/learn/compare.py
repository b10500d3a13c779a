"""Compares an artefact with the baselines and with another artefact, as plain data and as a table."""

from collections.abc import Mapping
from typing import Any

from classifiers import Artifact
from classifiers.choose import Floats
from router.learn import evaluation as ev
from router.learn.measures import baselines, measure, single_tiers
from router.learn.outcomes import Outcomes

SHOWN = ("apgr", "cpt50", "cpt80", "cpt95", "aiq", "recovered", "arena", "cost_at_95", "cost_at_98", "cost_at_99", "cost_at_100")


def _numbers(measures: Mapping[str, Floats]) -> dict[str, Any]:
    """Each measure as [value, low, high], None where not defined."""
    return {name: ev.estimate(values).rounded(5) for name, values in measures.items()}


def compare(artifact: Artifact, table: Outcomes, train: Outcomes | None, other: Artifact | None, seed: int = 0) -> dict[str, Any]:
    """Everything that `stepdown evaluate` prints. train: rows for the learned baselines, see `baselines`.

    Rows that an artefact was trained on are judged by the chances that it gave them in cross-fitting.
    """
    table = table.complete()
    texts = list(table.texts)
    guess, recalled = artifact.guess_honestly(texts)
    found = compare_chances(guess.p, guess.cost, table, train, seed)
    if other is not None:
        theirs, _ = other.guess_honestly(texts)
        a, b = (measure(g.p, g.cost, table, seed) for g in (guess, theirs))
        found["difference"] = _numbers({name: a[name] - b[name] for name in a})
    return {"trained_on": recalled, **found}


def compare_chances(p: Floats, cost: Floats, table: Outcomes, train: Outcomes | None, seed: int = 0) -> dict[str, Any]:
    """The measures of p (n, n_tiers) and of the baselines, with the same guessed costs; rows must be complete."""
    others = {name: measure(q, cost, table, seed) for name, q in baselines(table, train, seed).items()}
    others["oracle"] = measure(table.scores, table.costs / table.costs[:, -1].mean(), table, seed)
    return {
        "rows": len(table),
        "tiers": table.tiers,
        "router": _numbers(measure(p, cost, table, seed)),
        "baselines": {name: _numbers(found) for name, found in others.items()},
        "single": _singles(table, seed),
    }


def _singles(table: Outcomes, seed: int) -> dict[str, Any]:
    """Quality and relative cost of always taking the same tier."""
    f = single_tiers(table, ev.draws(len(table), 200, seed, table.shares))
    return {tier: _numbers({"quality": f.quality[:, k], "cost": f.cost[:, k]}) for k, tier in enumerate(table.tiers)}


def _cell(value: list[float | None] | None) -> str:
    if value is None or value[0] is None:
        return "-"
    low, high = value[1], value[2]
    return f"{value[0]:.3f}" if low is None or high is None else f"{value[0]:.3f} [{low:.3f}, {high:.3f}]"


def compare_text(found: Mapping[str, Any]) -> str:
    """The comparison as text: a row for each measure, a column for each router."""
    columns = {"router": found["router"], **found["baselines"]}
    if "difference" in found:
        columns["minus other"] = found["difference"]
    width = 23
    lines = [f"{found['rows']} rows, tiers {', '.join(found['tiers'])}; 95 % bootstrap intervals", ""]
    lines.append(" " * 14 + "".join(f"{name:{width}}" for name in columns))
    names = [*SHOWN, *(name for name in found["router"] if "[" in name)]
    lines += [f"{name:14}" + "".join(f"{_cell(column.get(name)):{width}}" for column in columns.values()) for name in names]
    lines += ["", "always one tier:"]
    lines += [f"  {tier:12} quality {_cell(v['quality'])}  cost {_cell(v['cost'])}" for tier, v in found["single"].items()]
    return "\n".join(lines)
