"""Compares the default router with kNN, the length rule and random choice on pairs of models with known outcomes.

Run as: python -m benchmarks.quality DATA_FOLDER [--classifier NAME] [--rows N] [--split] [--bare]

--bare leaves out calibration by cross-fitting and guessed costs: a sixth of the time, nearly the same order of prompts.
A router that was trained on the other folds decides every row (five folds by near-duplicate group); with
--split it is trained on split=train and measured on split=val. The pairs stand in for the target pairs: GSM8K rows of ZeroEval
with GPT models for RouteLLM's GSM8K, Qwen2 for Qwen2.5. Prints a table; the last line is JSON.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from classifiers import CLASSIFIERS, DEFAULT, Sufficiency
from classifiers.models.base import sigmoid
from classifiers.sufficiency import folds_of
from classifiers.text.view import View
from router.learn import evaluation as ev
from router.learn.measures import measure
from router.learn.outcomes import Outcomes, read_outcomes

Floats = NDArray[np.float64]
L8, L70, L405 = "Llama-3.1-8B-Instruct", "Llama-3.1-70B-Instruct", "Llama-3.1-405B-Instruct"
RIVALS = ("neighbours", "length")


@dataclass(frozen=True)
class Pair:
    name: str
    file: str
    small: str
    large: str
    tasks: tuple[str, ...] = ()


PAIRS = (
    Pair("routellm_mmlu", "routellm_mmlu", "Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview"),
    Pair("gsm8k gpt-3.5 > gpt-4o", "zeroeval_3task", "gpt-3.5-turbo-0125", "gpt-4o-2024-08-06", ("gsm8k",)),
    Pair("zeroeval 8B > 70B", "zeroeval_3task", L8, L70),
    Pair("zeroeval 8B > 405B", "zeroeval_3task", L8, L405),
    Pair("zeroeval gemma 2B > 27B", "zeroeval_3task", "gemma-2-2b-it", "gemma-2-27b-it"),
    Pair("math+crux gemma 2B > Qwen2 72B", "zeroeval_3task", "gemma-2-2b-it", "Qwen2-72B-Instruct", ("math_l5", "crux_o")),
    Pair("math+crux Qwen2 7B > 72B", "zeroeval_3task", "Qwen2-7B-Instruct", "Qwen2-72B-Instruct", ("math_l5", "crux_o")),
    Pair("mmlu_pro 8B > 70B", "mmlu_pro", L8, L70),
    Pair("llmrouter gemma 9B > 51B", "llmrouter_nim", "gemma-2-9b-it", "llama-3.1-nemotron-51b-instruct"),
)


def table_of(pair: Pair, folder: Path, rows: int | None) -> Outcomes:
    """The pair's rows, at most `rows` of them, drawn once."""
    table = read_outcomes(folder / f"{pair.file}.parquet", {"small": pair.small, "large": pair.large})
    if pair.tasks:
        table = table.take(np.isin(table.tasks, pair.tasks))
    if rows and rows < len(table):
        table = table.take(np.sort(np.random.default_rng(0).choice(len(table), rows, replace=False)))
    return table


def predict(name: str, train: Outcomes, test: Outcomes, bare: bool = False) -> tuple[Floats, Floats]:
    """(n, 2) chances and costs of the test rows; rivals as they are, with mean costs, the router as it is shipped."""
    texts = list(train.texts)
    if name in RIVALS or bare:
        made = CLASSIFIERS[name]().fit(texts, train.scores, train.weights, train.helper_scores())
        p = made.predict_proba(list(test.texts))
        return p, np.broadcast_to(train.relative_costs(), p.shape)
    model = Sufficiency(name)
    model.fit(texts, train.scores, train.weights, train.helper_scores(), list(train.groups), costs=train.costs)
    logits, cost, _ = model.assess(View(list(test.texts)))
    return sigmoid(logits), cost


def unseen(name: str, table: Outcomes, by_split: bool, bare: bool = False) -> tuple[Floats, Floats, Outcomes]:
    """Chances and costs for rows that were not trained on, and those rows."""
    if by_split:
        test = table.take(table.splits == "val")
        return *predict(name, table.take(table.splits == "train"), test, bare), test
    fold = folds_of([f"outer {group}" for group in table.groups], 5)
    p, cost = np.zeros(table.scores.shape), np.zeros(table.scores.shape)
    for k in range(5):
        p[fold == k], cost[fold == k] = predict(name, table.take(fold != k), table.take(fold == k), bare)
    return p, cost, table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--classifier", default=DEFAULT)
    parser.add_argument("--rows", type=int, default=None)
    parser.add_argument("--split", action="store_true")
    parser.add_argument("--bare", action="store_true")
    options = parser.parse_args()
    names = (options.classifier, *RIVALS)
    print(f"{'APGR [95 %]':32}{'rows':>6}  " + "".join(f"{n:24}gap      " for n in names) + "ECE[small]   s")
    collected: dict[str, list[list[float]]] = {name: [] for name in names}
    for pair in PAIRS:
        table, start = table_of(pair, options.folder, options.rows), time.time()
        cells = ""
        for name in names:
            p, cost, test = unseen(name, table, options.split, options.bare)
            found = measure(p, cost, test)
            collected[name].append([float(found[m][0]) for m in ("apgr", "recovered", "ece[small]", "auc[small]")])
            cells += f"{str(ev.estimate(found['apgr'])):24}{float(found['recovered'][0]):<9.3f}"
        ece = collected[names[0]][-1][2]
        print(f"{pair.name:32}{len(table):6}  {cells}{ece:10.3f}{time.time() - start:5.0f}", flush=True)
    means = {name: np.mean(rows, axis=0).round(4).tolist() for name, rows in collected.items()}
    print(json.dumps({"measures": ["apgr", "recovered", "ece[small]", "auc[small]"], "means": means}))


if __name__ == "__main__":
    main()
