"""Compares routing, cascading and both on ladders of models with known answers, and tests how often certificates hold.

Run as: python -m benchmarks.cascade DATA_FOLDER [--only NAME] [--table JSONL] [--top-streams]

A router and a posterior trained on the other folds (five folds by near-duplicate group) play every row, and each probe is
paid for. It prints the cost, as a share of always asking the top tier, at 95, 98 and 99 % of its score, and the
paired difference to routing alone. Qwen2 stands in for the Qwen2.5 ladder. --table adds a pocket ladder's outcomes.
Then it makes 200 certificates, each on rows drawn with replacement, and counts how often the loss of the certified threshold on
all rows exceeds alpha, beside a threshold that merely looks right on the rows drawn. The last line is JSON.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from classifiers import Sufficiency
from classifiers.models.base import sigmoid
from classifiers.replies.posterior import Posterior, fit_posterior
from classifiers.sufficiency import folds_of
from classifiers.text.view import View
from router.decide import certificates as ct
from router.learn import evaluation as ev
from router.learn.cascades import to_certify
from router.learn.evidence import read_seen
from router.learn.outcomes import read_outcomes
from router.learn.simulate import PRICES, Played, Rows, frontier_of, play_all

Floats = NDArray[np.float64]
L8, L70, L405 = "Llama-3.1-8B-Instruct", "Llama-3.1-70B-Instruct", "Llama-3.1-405B-Instruct"
SHARES = (0.95, 0.98, 0.99, 1.0)
DELTA, N_DRAWS = 0.10, 200
LAX = 0.4  # price of cost at which promises are tried: high, so that the rule alone accepts too much


@dataclass(frozen=True)
class Setup:
    name: str
    file: str
    tiers: tuple[str, ...]
    tasks: tuple[str, ...] = ()


HARD = ("math_l5", "crux_o")
SETUPS = (
    Setup("8B, gemma 9B, 405B", "zeroeval_3task", (L8, "gemma-2-9b-it", L405)),
    Setup("8B, 70B", "zeroeval_3task", (L8, L70)),
    Setup("Qwen2 7B, 72B", "zeroeval_3task", ("Qwen2-7B-Instruct", "Qwen2-72B-Instruct"), HARD),
    Setup("gemma 2B, 9B, Qwen2 72B", "zeroeval_3task", ("gemma-2-2b-it", "gemma-2-9b-it", "Qwen2-72B-Instruct"), HARD),
    Setup("8B, 70B, 405B", "zeroeval_3task", (L8, L70, L405)),
    Setup("gemma 2B, 9B, 27B", "zeroeval_3task", ("gemma-2-2b-it", "gemma-2-9b-it", "gemma-2-27b-it")),
    Setup("MMLU-Pro 8B, 70B", "mmlu_pro", (L8, L70)),
)


@dataclass(frozen=True)
class Fold:
    """One fold of the outer cross-validation: what was learned from the others, and its rows with their guesses."""

    posterior: Posterior
    rows: Rows


def rows_of(setup: Setup, path: Path) -> tuple[Rows, list[str], list[str], Floats]:
    """All complete rows; their texts, groups and helpers' scores. Priors are not known yet (NaN), costs are in USD."""
    names = {name: name for name in setup.tiers}
    table = read_outcomes(path, names)
    if setup.tasks:
        table = table.take(np.isin(table.tasks, setup.tasks))
    table = table.take(table.is_complete)
    seen = read_seen([path], names, table)
    assert seen is not None, f"{path}: no answers"
    empty = np.full(table.scores.shape, np.nan)
    rows = Rows(empty, empty, seen, table.scores, table.costs)
    return rows, list(table.texts), list(table.groups), table.helper_scores()


def folds(setup: Setup, path: Path, classifier: str) -> list[Fold]:
    """Train on four fifths, guess the rest, five times."""
    rows, texts, groups, helpers = rows_of(setup, path)
    outer = folds_of([f"outer {group}" for group in groups], 5)
    found = []
    for k in range(5):
        train, test = np.flatnonzero(outer != k), np.flatnonzero(outer == k)
        model, view = Sufficiency(classifier), View(texts)
        inner = [groups[i] for i in train]
        y, money = rows.scores[train], rows.costs[train]
        model.fit(view.take(train), y, None, helpers[train], inner, costs=money)
        top = money[:, -1].mean()
        (_, guessed, _), (z, cost, _) = model.assess(view.take(train)), model.assess(view.take(test))
        posterior = fit_posterior(model.unseen, guessed, rows.seen.take(train), y, money / top, folds_of(inner, 5))
        unseen = rows.take(test)
        found.append(Fold(posterior, Rows(sigmoid(z), cost, unseen.seen, unseen.scores, unseen.costs / top)))
    return found


def joined(parts: list[Fold], best_of: bool) -> tuple[dict[str, list[Played]], Rows]:
    """Every fold played by its own posterior, put together again."""
    played = [play_all(fold.posterior, fold.rows, best_of) for fold in parts]
    whole = {
        name: [
            Played(*(np.concatenate([getattr(p[name][i], part) for p in played]) for part in ("tier", "chance", "cost", "calls")))
            for i in range(len(played[0][name]))
        ]
        for name in played[0]
    }
    scores, costs = (np.concatenate([getattr(fold.rows, name) for fold in parts]) for name in ("scores", "costs"))
    return whole, Rows(scores, scores, parts[0].rows.seen, scores, costs)


def report(setup: Setup, parts: list[Fold], best_of: bool) -> dict[str, object]:
    """Print one ladder; the bare figures."""
    start = time.time()
    played, rows = joined(parts, best_of)
    weights = ev.draws(len(rows), 200)
    frontiers = {name: frontier_of(p, rows, weights) for name, p in played.items()}
    costs = {name: {s: f.cost_at(s) for s in SHARES} for name, f in frontiers.items()}
    print(
        f"\n{setup.name}: {len(rows)} rows, scores {np.round(rows.scores.mean(0), 3)}, costs "
        f"{np.round(rows.costs.mean(0) / rows.costs[:, -1].mean(), 3)} ({time.time() - start:.0f} s)",
        flush=True,
    )
    for name in frontiers:
        print(f"  {name:20}" + "".join(f"{str(ev.estimate(costs[name][s])):24}" for s in SHARES))
    print("  both - routing      " + "".join(f"{str(ev.estimate(costs['both'][s] - costs['routing'][s])):24}" for s in SHARES))
    figures = {name: [round(float(by[s][0]), 4) for s in SHARES] for name, by in costs.items()}
    return {**figures, "promises": report_promises(played["both"], rows)}


def recalibrations(played: Played, rows: Rows, alpha: float, n: int) -> dict[str, float]:
    """200 certificates, each from n rows drawn with replacement, judged on all rows; and what a naive threshold does."""
    scores, loss = to_certify(played, rows)
    random, broken, naive, coverage, none = np.random.default_rng(0), 0, 0, 0.0, 0
    for _ in range(N_DRAWS):
        drawn = random.integers(0, len(scores), n)
        found = ct.certify(scores[drawn], loss[drawn], alpha, DELTA)
        if isinstance(found, ct.Certificate):
            broken += bool(risk(scores, loss, found.threshold) > alpha)
            coverage += float((scores >= found.threshold).mean())
        else:
            none += 1
        looks_right = [p.threshold for p in ct.region(scores[drawn], loss[drawn], DELTA) if p.risk <= alpha]
        naive += bool(risk(scores, loss, min(looks_right)) > alpha)
    shares = {"broken": broken, "none": none, "coverage": coverage, "naive_broken": naive}
    return {name: round(value / N_DRAWS, 3) for name, value in shares.items()}


def risk(scores: Floats, loss: Floats, threshold: float) -> float:
    """Of accepting from a threshold on, over all rows."""
    return float((loss * (scores >= threshold)).mean())


def report_promises(played: list[Played], rows: Rows) -> list[dict[str, float]]:
    """Recalibrations of the laxest policy, whose own risk is far above alpha, by alpha and number of rows."""
    found = []
    at = int(np.argmin(np.abs(PRICES - LAX)))
    for alpha, n in ((0.05, 200), (0.05, 500), (0.05, len(rows)), (0.10, 200), (0.10, 500)):
        made = {"alpha": alpha, "n": n, **recalibrations(played[at], rows, alpha, n)}
        found.append(made)
        print(
            f"  certified alpha {alpha:.2f}, n {n:4}: broken in {made['broken']:.3f} (allowed {DELTA:.2f}), none in "
            f"{made['none']:.3f}, small answers {made['coverage']:.3f}; naive broken in {made['naive_broken']:.3f}",
            flush=True,
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="Ladders whose name has this in it.")
    parser.add_argument("--table", type=Path, default=None, help="JSONL of `stepdown label`, tiers small, medium, large.")
    parser.add_argument("--top-streams", action="store_true", help="The top tier's answer is final once it is asked.")
    parser.add_argument("--classifier", default="ensemble")
    options = parser.parse_args()
    print(f"{'cost at':22}" + "".join(f"{f'{s:.0%}':24}" for s in SHARES) + "of the top tier's score")
    todo = [(setup, options.folder / f"{setup.file}.parquet") for setup in SETUPS]
    if options.table:
        todo.append((Setup("pocket", "", ("small", "medium", "large")), options.table))
    found = {}
    for setup, path in todo:
        if options.only in setup.name:
            found[setup.name] = report(setup, folds(setup, path, options.classifier), not options.top_streams)
    print(json.dumps({"cost_at": SHARES, "found": found}))


if __name__ == "__main__":
    main()
