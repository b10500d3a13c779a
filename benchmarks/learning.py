"""Measures the default router where it is hard: held-out pairs, promises, ladders, unfamiliar prompts, few labels.

Run as: python -m benchmarks.learning DATA_FOLDER [--only PART] [--rounds N] [--classifier NAME]. Each part prints one
JSON line, with kNN beside the router everywhere. Rows are split by near-duplicate group.

pairs     trained on 70 %, measured on 30 %, several random splits of each pair: APGR, share of the oracle's gap by p and mean
          costs, and by guessed costs
promise   98 % of the top tier's quality, solved on a tenth of all rows or on all training rows: is it kept on the 30 %?
ladders   three and four tiers, five folds: share of the gap, and cost at 95 % against a random mix of tiers
unlike    trained on one table, measured on another
labels    routellm_mmlu with 200, 500 and 1,500 labels, measured on 30 % of the table
"""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality import L8, L70, L405, PAIRS, predict, table_of, unseen
from classifiers import DEFAULT, Sufficiency, choose_many
from classifiers.models.base import sigmoid
from classifiers.sufficiency import folds_of
from classifiers.text.view import View
from router.learn import evaluation as ev
from router.learn.calibration import solve
from router.learn.measures import measure, single_tiers
from router.learn.outcomes import Outcomes, read_outcomes

Floats = NDArray[np.float64]
KNN = "neighbours"
TWENTIETHS, TRAIN, VAL = 20, 14, 12  # of 20 folds 14 are trained on, and the last two of those are what solves a promise
LARGE_TABLE = 3000  # rows from which two random splits are enough
LADDERS = {
    "Llama-3.1 8B/70B/405B": (L8, L70, L405),
    "gemma-2 2B/9B/27B": ("gemma-2-2b-it", "gemma-2-9b-it", "gemma-2-27b-it"),
    "gemma-2 2B, Llama-3.1 8B, gemma-2 27B, Qwen2 72B": ("gemma-2-2b-it", L8, "gemma-2-27b-it", "Qwen2-72B-Instruct"),
}


def fitted(table: Outcomes, name: str) -> Sufficiency:
    """A classifier trained as `stepdown train` does."""
    model = Sufficiency(name)
    texts, groups = list(table.texts), list(table.groups)
    return model.fit(texts, table.scores, table.weights, table.helper_scores(), groups, costs=table.costs)


def guess(model: Sufficiency, table: Outcomes) -> tuple[Floats, Floats, Floats]:
    """Chances, costs and unfamiliarity of the table's rows."""
    logits, cost, unfamiliar = model.assess(View(list(table.texts)))
    return sigmoid(logits), cost, unfamiliar


def value(measures: dict[str, Floats], name: str) -> float:
    """The bare estimate."""
    return float(measures[name][0])


def interval(values: Floats) -> list[float]:
    """[estimate, low, high]."""
    e = ev.estimate(values)
    return [round(e.value, 4), round(e.low, 4), round(e.high, 4)]


def parted(table: Outcomes, round_: int) -> NDArray[np.int64]:
    """(n,) which twentieth each row belongs to in this round."""
    return folds_of([f"{round_} {group}" for group in table.groups], TWENTIETHS)


def kept(model: Sufficiency, train: Outcomes, rows: NDArray[Any], test: Outcomes) -> tuple[float, float]:
    """Quality and cost on the test rows, relative to the top tier's, of a 98 % promise solved on some training rows."""
    cost = guess(model, train)[1]
    rule = solve(model.unseen[rows], cost[rows], train.take(rows), quality=0.98)
    p, guessed, _ = guess(model, test)
    choice, row = choose_many(p, guessed, rule), np.arange(len(test))
    quality = test.scores[row, choice].mean() / test.scores[:, -1].mean()
    return float(quality), float(test.costs[row, choice].mean() / test.costs[:, -1].mean())


def one_split(table: Outcomes, round_: int, name: str) -> dict[str, Any]:
    """All measures of one random split of one pair."""
    fold = parted(table, round_)
    train, test = table.take(fold < TRAIN), table.take(fold >= TRAIN)
    model = fitted(train, name)
    p, cost, _ = guess(model, test)
    means = train.relative_costs()
    ours, rival = measure(p, means, test, n_draws=1), measure(predict(KNN, train, test)[0], means, test, n_draws=1)
    in_val = fold[fold < TRAIN] >= VAL
    return {
        "apgr": [value(ours, "apgr"), value(rival, "apgr")],
        "recovered by p": [value(ours, "recovered"), value(rival, "recovered")],
        "recovered by guessed costs": [value(measure(p, cost, test, n_draws=1), "recovered")],
        "ece": [value(ours, "ece[small]"), value(rival, "ece[small]")],
        "solved on a tenth": kept(model, train, in_val, test),
        "solved on all trained": kept(model, train, np.ones(len(train), dtype=bool), test),
    }


def splits(folder: Path, rounds: int, name: str) -> dict[str, list[dict[str, Any]]]:
    """Every pair's splits, by name."""
    found = {}
    for pair in PAIRS:
        table = table_of(pair, folder, None)
        found[pair.name] = [one_split(table, r, name) for r in range(2 if len(table) > LARGE_TABLE else rounds)]
    return found


def pairs(found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Means over splits, then over pairs; [the router, kNN]."""
    names = ("apgr", "recovered by p", "recovered by guessed costs", "ece")
    by_pair = {pair: {n: np.mean([s[n] for s in rows], axis=0).round(4).tolist() for n in names} for pair, rows in found.items()}
    mean = {name: np.mean([row[name] for row in by_pair.values()], axis=0).round(4).tolist() for name in names}
    return {"order": ["router", KNN], "mean": mean, "by pair": by_pair}


def promise(found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """How often 98 % was kept, and what it cost."""
    out: dict[str, Any] = {"splits": sum(map(len, found.values()))}
    for name in ("solved on a tenth", "solved on all trained"):
        quality = np.array([split[name][0] for rows in found.values() for split in rows])
        cost = [np.mean([split[name][1] for split in rows]) for rows in found.values()]
        out[name] = {
            "missed": int((quality < 0.98).sum()),
            "by more than a point": int((quality < 0.97).sum()),
            "worst": round(float(quality.min()), 4),
            "mean cost": round(float(np.mean(cost)), 4),
        }
    return out


def ladder(models: tuple[str, ...], folder: Path, name: str) -> dict[str, Any]:
    """One ladder over five folds; kNN decides by mean costs, the router by mean and by guessed ones."""
    table = read_outcomes(folder / "zeroeval_3task.parquet", {f"t{i}": model for i, model in enumerate(models)})
    p, cost, _ = unseen(name, table, False)
    q, _, _ = unseen(KNN, table, False)
    means = table.relative_costs()
    ours, rival, guessed = measure(p, means, table), measure(q, means, table), measure(p, cost, table)
    singles = single_tiers(table, ev.draws(len(table), 1))
    return {
        "recovered": {
            "by p": interval(ours["recovered"]),
            "by guessed costs": interval(guessed["recovered"]),
            KNN: interval(rival["recovered"]),
            "by p minus kNN": interval(ours["recovered"] - rival["recovered"]),
        },
        "cost at 95 %": {
            "by p": interval(ours["cost_at_95"]),
            "by guessed costs": interval(guessed["cost_at_95"]),
            KNN: interval(rival["cost_at_95"]),
            "random mix": round(ev.cost_at(singles.cost[0], singles.quality[0], 0.95 * singles.quality[0, -1]), 4),
        },
    }


def ladders(folder: Path, classifier: str) -> dict[str, Any]:
    """All ladders."""
    return {name: ladder(models, folder, classifier) for name, models in LADDERS.items()}


def unlike(folder: Path, classifier: str) -> dict[str, Any]:
    """Trained on 70 % of one table, measured on all of the other; unfamiliarity there and on the rest at home."""
    found = {}
    names = ("zeroeval_3task", "mmlu_pro")
    tables = {name: read_outcomes(folder / f"{name}.parquet", {"small": L8, "large": L70}) for name in names}
    for home, away in (names, names[::-1]):
        fold = parted(tables[home], 0)
        model = fitted(tables[home].take(fold < TRAIN), classifier)
        p, cost, strange = guess(model, tables[away])
        by_p, guessed = (measure(p, c, tables[away]) for c in (tables[home].relative_costs(), cost))
        found[f"{home} -> {away}"] = {
            "apgr": interval(by_p["apgr"]),
            "recovered by p": interval(by_p["recovered"]),
            "recovered by guessed costs": interval(guessed["recovered"]),
            "unfamiliar": round(float(strange.mean()), 3),
            "unfamiliar at home": round(float(guess(model, tables[home].take(fold >= TRAIN))[2].mean()), 3),
        }
    return found


def apgr_of(p: Floats, test: Outcomes) -> float:
    """The bare APGR of chances p (n, 2)."""
    small, large = test.scores.T
    return float(ev.apgr(p[:, 1] - p[:, 0], small, large, np.ones((1, len(test))))[0])


def labels(folder: Path, rounds: int, classifier: str) -> dict[str, Any]:
    """Mean APGR by number of labels: [the router, kNN]."""
    table = table_of(PAIRS[0], folder, None)
    fold = parted(table, 0)
    rest, test = table.take(fold < TRAIN), table.take(fold >= TRAIN)
    found = {}
    for n in (200, 500, 1500):
        scores = []
        for seed in range(rounds):
            drawn = rest.take(np.random.default_rng(seed).choice(len(rest), n, replace=False))
            scores.append([apgr_of(predict(name, drawn, test)[0], test) for name in (classifier, KNN)])
        found[str(n)] = {"mean": np.mean(scores, axis=0).round(4).tolist(), "least": np.min(scores, axis=0).round(4).tolist()}
    return {"order": ["router", KNN], "test rows": len(test), **found}


def results(folder: Path, rounds: int, only: str | None, classifier: str = DEFAULT) -> Iterator[tuple[str, dict[str, Any]]]:
    """(part, figures) one after the other."""
    if only in (None, "pairs", "promise"):
        found = splits(folder, rounds, classifier)
        yield "pairs", pairs(found)
        yield "promise", promise(found)
    rest: dict[str, Callable[[], dict[str, Any]]] = {
        "ladders": lambda: ladders(folder, classifier),
        "unlike": lambda: unlike(folder, classifier),
        "labels": lambda: labels(folder, rounds, classifier),
    }
    for name, part in rest.items():
        if only in (None, name):
            yield name, part()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=("pairs", "promise", "ladders", "unlike", "labels"))
    parser.add_argument("--rounds", type=int, default=6, help="random splits of a small table, and draws of labels")
    parser.add_argument("--classifier", default=DEFAULT)
    options = parser.parse_args()
    for name, found in results(options.folder, options.rounds, options.only, options.classifier):
        print(json.dumps({"part": name, **found}), flush=True)


if __name__ == "__main__":
    main()
