"""Outcome tables: how well and at what cost each tier answered each prompt.

There are two layouts. Parquet has one row for each prompt with the columns `prompt` (or `messages`), `score|NAME` and
`cost|NAME`, and optionally `id`, `task`, `split`, `weight`, `stem_sha256`. JSONL, as `stepdown label` writes it, has the same
names, or `"outcomes": {NAME: {"score": .., "cost_usd": ..}}`. A null score means that the tier was not run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classifiers.choose import Floats
from router.errors import BadInput
from router.learn.tables import did_you_mean, numbers, read_table, text_of, with_scores

ROWS = ("ids", "texts", "scores", "costs", "weights", "tasks", "splits", "groups")
FEWEST_COMPLETE = 10  # complete rows needed to compare policies


@dataclass(frozen=True)
class Outcomes:
    """Prompts with the score and cost of each tier's answer; every array has one row for each prompt.

    scores: (n, n_tiers) in [0, 1], NaN where not run. costs: (n, n_tiers) in USD, NaN where unknown.
    weights: (n,). groups: near-duplicates share one, and are never split between training and test. helpers: scores of
    the table's other models, name -> (n,), from which training may learn too.
    """

    tiers: list[str]
    ids: NDArray[np.str_]
    texts: NDArray[np.object_]
    scores: Floats
    costs: Floats
    weights: Floats
    tasks: NDArray[np.str_]
    splits: NDArray[np.str_]
    groups: NDArray[np.str_]
    helpers: dict[str, Floats]
    contents: NDArray[np.str_] = field(default_factory=lambda: np.zeros(0, dtype=str))
    """(n,) hashes of each row's prompt and replies, by which a row that was given twice is known; see `contents_of`"""
    repeated: int = 0
    """rows that were left out because they were given before"""

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: NDArray[Any]) -> "Outcomes":
        """The rows selected by a mask or by positions."""
        parts = {name: getattr(self, name)[rows] for name in ROWS}
        helpers = {name: scores[rows] for name, scores in self.helpers.items()}
        contents = self.contents[rows] if len(self.contents) else self.contents
        return Outcomes(tiers=self.tiers, helpers=helpers, contents=contents, repeated=self.repeated, **parts)

    def distinct(self) -> "Outcomes":
        """The rows without those whose prompt and replies were given before: giving rows twice must prove nothing."""
        if len(self.contents) != len(self):
            return self  # made in memory, without replies
        _, first = np.unique(self.contents, return_index=True)
        kept = self.take(np.sort(first))
        return replace(kept, repeated=self.repeated + len(self) - len(kept))

    @property
    def shares(self) -> Floats:
        """(n,) weights with a mean of 1. Where all are the same they are exactly 1."""
        same = bool((self.weights == self.weights[0]).all()) if len(self) else True
        return np.ones(len(self)) if same else np.asarray(self.weights / self.weights.mean())

    @property
    def is_complete(self) -> NDArray[np.bool_]:
        """(n,) whether every tier has a score and a cost."""
        return np.asarray(~np.isnan(self.scores).any(axis=1) & ~np.isnan(self.costs).any(axis=1))

    def complete(self) -> "Outcomes":
        """The complete rows: only there can policies be compared. Raises BadInput where they are too few."""
        whole = self.is_complete
        if whole.sum() < FEWEST_COMPLETE:
            raise BadInput(
                f"only {whole.sum()} rows have a score and a cost of every tier; {FEWEST_COMPLETE} are needed to evaluate"
            )
        return self.take(whole)

    def helper_scores(self) -> Floats:
        """(n, m) scores of the helpers that scored at least half of the rows."""
        useful = [scores for scores in self.helpers.values() if np.isfinite(scores).mean() >= 0.5]
        return np.stack(useful, axis=1) if useful else np.zeros((len(self), 0))

    def relative_costs(self) -> Floats:
        """(n_tiers,) mean cost of a request; the top tier's = 1."""
        known = np.isfinite(self.costs)
        weights = self.shares[:, None] * known
        mean = (weights * np.where(known, self.costs, 0.0)).sum(axis=0) / weights.sum(axis=0)
        return np.asarray(mean / mean[-1])


def join(tables: Sequence[Outcomes]) -> Outcomes:
    """One table from several with the same tiers."""
    parts = {name: np.concatenate([getattr(t, name) for t in tables]) for name in ROWS}
    names = dict.fromkeys(name for t in tables for name in t.helpers)
    helpers = {name: np.concatenate([t.helpers.get(name, np.full(len(t), np.nan)) for t in tables]) for name in names}
    contents = np.concatenate([t.contents for t in tables])
    return Outcomes(tiers=tables[0].tiers, helpers=helpers, contents=contents, **parts).distinct()


def contents_of(table: Mapping[str, list[Any]], names: Sequence[str], texts: Sequence[str]) -> NDArray[np.str_]:
    """(n,) a hash of each row's prompt and of the tiers' replies; where the table has no replies, of their scores.

    names: the tiers' columns. Ids, costs and times are no part of it: they differ where the same row is given again.
    """
    kinds = [kind for kind in ("answer", "pred") if any(f"{kind}|{name}" in table for name in names)] or ["score"]
    found = [table[column] for kind in kinds for name in names if (column := f"{kind}|{name}") in table]
    rows = zip(texts, *found, strict=True)
    return np.array([blake2b(repr(row).encode("utf-8", "replace"), digest_size=16).hexdigest() for row in rows], dtype=str)


def parse_tiers(text: str) -> dict[str, str]:
    """`small=NAME,large=NAME` or `small,large` -> tier: column name, cheapest first."""
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    tiers = {tier.strip(): (name or tier).strip() for tier, _, name in pairs}
    if len(tiers) < 2 or len(tiers) != len(pairs):
        raise BadInput(f"--tiers {text!r}: expected two or more different tiers, cheapest first: small=NAME,large=NAME")
    if len(set(tiers.values())) < len(tiers):
        raise BadInput(f"--tiers {text!r}: two tiers have one column; give each its own")
    return tiers


def read_outcomes(path: str | Path, tiers: Mapping[str, str], costs: Mapping[str, float] | None = None) -> Outcomes:
    """Read one file. tiers: tier -> column name. costs: tier -> USD a request, where the file has none."""
    table = read_table(path)
    names = score_names(table)
    for tier, name in tiers.items():
        if name not in names:
            known = f"the file has {', '.join(names) or 'no score|NAME column'}"
            raise BadInput(f"{path}: no scores of {name!r} (tier {tier!r}); {did_you_mean(name, names) or known}")
    table = with_scores(table, tiers.values())
    scores = np.stack([_scores(table, name, path) for name in tiers.values()], axis=1)
    money = np.stack([_costs(table, tier, name, costs, path) for tier, name in tiers.items()], axis=1)
    helpers = {name: _scores(table, name, path) for name in names if name not in tiers.values()}
    outcomes = _assemble(table, list(tiers), scores, money, helpers, path)
    outcomes = replace(outcomes, contents=contents_of(table, list(tiers.values()), outcomes.texts.tolist()))
    outcomes = outcomes.take(np.asarray(~np.isnan(scores).all(axis=1)))
    for k, tier in enumerate(tiers):
        if np.isnan(outcomes.scores[:, k]).all():
            raise BadInput(f"{path}: tier {tier!r} has no score in any row")
        if np.isnan(outcomes.costs[:, k]).all():
            raise BadInput(f"{path}: tier {tier!r} has no cost in any row; give --costs {tier}=USD,…")
    if not np.nansum(outcomes.costs[:, -1]) > 0:  # all costs are shares of it
        raise BadInput(f"{path}: the top tier {tier!r} costs 0 in every row; give --costs {tier}=USD,…")
    return outcomes


def score_names(table: Mapping[str, list[Any]]) -> list[str]:
    """Names of all tiers or models that have a score column."""
    return [column.removeprefix("score|") for column in table if column.startswith("score|")]


def _scores(table: Mapping[str, list[Any]], name: str, path: str | Path) -> Floats:
    scores = numbers(table, f"score|{name}", path)
    wrong = np.flatnonzero((scores < 0) | (scores > 1))
    if len(wrong):
        raise BadInput(f"{path}: line {table['_line'][wrong[0]]}: score of {name} is {scores[wrong[0]]:g}, expected 0 to 1")
    return scores


def _costs(table: Mapping[str, list[Any]], tier: str, name: str, given: Mapping[str, float] | None, path: str | Path) -> Floats:
    """The cost given for the tier, else the file's. A missing cost is an error: there is no default."""
    if given and tier in given:
        return np.full(len(table["_line"]), given[tier])
    if f"cost|{name}" not in table:
        raise BadInput(f"{path}: no cost|{name} for tier {tier!r}; add the column or give --costs {tier}=USD,…")
    costs = numbers(table, f"cost|{name}", path)
    wrong = np.flatnonzero((costs < 0) | np.isinf(costs))
    if len(wrong):
        raise BadInput(f"{path}: line {table['_line'][wrong[0]]}: cost of {name} is {costs[wrong[0]]:g}, expected USD, 0 or more")
    return costs


def _strings(table: Mapping[str, list[Any]], column: str, default: Sequence[str]) -> NDArray[np.str_]:
    found = table.get(column)
    return np.array([d if v is None else str(v) for v, d in zip(found or default, default, strict=True)], dtype=str)


def _ids(table: Mapping[str, list[Any]], path: str | Path) -> NDArray[np.str_]:
    ids = _strings(table, "id", [str(line) for line in table["_line"]])
    _, first, count = np.unique(ids, return_index=True, return_counts=True)
    if (count > 1).any():
        again = str(ids[first[count > 1][0]])
        rows = np.array(table["_line"])[ids == again]
        raise BadInput(f"{path}: line {rows[1]}: id {again!r} again, first in line {rows[0]}; ids must differ")
    return ids


def _assemble(
    table: Mapping[str, list[Any]], tiers: list[str], scores: Floats, costs: Floats, helpers: dict[str, Floats], path: str | Path
) -> Outcomes:
    n = len(scores)
    ids = _ids(table, path)
    weights = numbers(table, "weight", path) if "weight" in table else np.ones(n)
    usable = (weights >= 0) & np.isfinite(weights)
    if not usable.all():
        row = int(np.argmin(usable))
        raise BadInput(f"{path}: line {table['_line'][row]}: weight is {weights[row]:g}, expected 0 or more")
    task = "task" if "task" in table else "kind"
    return Outcomes(
        tiers=tiers,
        ids=ids,
        texts=np.array([*text_of(table, path), None], dtype=object)[:-1],
        scores=scores,
        costs=costs,
        weights=weights,
        tasks=_strings(table, task, [""] * n),
        splits=_strings(table, "split", [""] * n),
        groups=_strings(table, "stem_sha256", list(ids)),
        helpers=helpers,
    )
