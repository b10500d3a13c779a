"""Reads the signals of the answers in outcome tables, from which a posterior learns.

JSONL of `stepdown label` has for each tier answer, finish_reason, output_tokens and statistics of log-probabilities.
Parquet has `pred|NAME` (the extracted final answer; null: none was found) and `out_tok|NAME`. Every column is optional.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from classifiers.choose import Floats
from classifiers.replies.answers import final_answer, normal, same
from classifiers.replies.signals import (
    LOGPROB_SIGNALS,
    PLAIN_SIGNALS,
    PREFIX,
    SIGNALS,
    Seen,
    logprob_signals,
    plain_signals,
    statistics,
)
from router.learn.outcomes import Outcomes, contents_of
from router.learn.tables import Table, number, numbers, read_table, text_of, with_scores

STATISTIC_COLUMNS = ("mean_logprob", "min_logprob", "p10_logprob", "p25_logprob", "p50_logprob")
ANY = ("answer", "pred", "output_tokens", "out_tok", "mean_logprob")  # a tier needs one of these columns


def read_seen(paths: Sequence[Path], tiers: Mapping[str, str], outcomes: Outcomes, prefix: int = PREFIX) -> Seen | None:
    """The signals of the answers, one row for each row of `outcomes`; None where some tier has only scores.

    tiers: tier -> column name, as given to `read_outcomes`. prefix: first tokens that holdback judges.
    """
    parts = [_seen_of(read_table(path), path, list(tiers.values()), prefix) for path in paths]
    if any(part is None for part in parts):
        return None
    place = {name: (k, i) for k, part in enumerate(parts) if part for i, name in enumerate(part[0])}
    at = [place[name] for name in zip(outcomes.ids.tolist(), outcomes.contents.tolist(), strict=True)]
    offset = np.cumsum([0, *(len(part[0]) for part in parts if part)])
    whole = _concatenate([part[1] for part in parts if part])
    return whole.take(np.array([offset[k] + i for k, i in at], dtype=np.int64))


def _concatenate(parts: Sequence[Seen]) -> Seen:
    prefixes = [part.prefix for part in parts]
    prefix = np.concatenate([p for p in prefixes if p is not None]) if all(p is not None for p in prefixes) else None
    signals, agree = (np.concatenate([getattr(part, name) for part in parts]) for name in ("signals", "agree"))
    return Seen(signals, agree, prefix, parts[0].prefix_tokens)


def _seen_of(table: Table, path: Path, names: Sequence[str], prefix: int) -> tuple[list[tuple[str, str]], Seen] | None:
    """(id, hash of its content) of each row, and the signals of its answers."""
    if not all(any(f"{column}|{name}" in table for column in ANY) for name in names):
        return None
    table = with_scores(table, names)
    n = len(table["_line"])
    ids = [str(line if name is None else name) for name, line in zip(table.get("id", [None] * n), table["_line"], strict=True)]
    answers, has = zip(*(_answers(table, name, n) for name in names), strict=True)
    signals = np.stack([_signals(table, path, name, a, h) for name, a, h in zip(names, answers, has, strict=True)], axis=1)
    prefixes = [_prefix_signals(table, path, name, prefix) for name in names]
    early = np.stack([p for p in prefixes if p is not None], axis=1) if all(p is not None for p in prefixes) else None
    contents = contents_of(table, names, text_of(table, path)).tolist()
    return list(zip(ids, contents, strict=True)), Seen(signals, agreements(answers), early, prefix)


def _answers(table: Table, name: str, n: int) -> tuple[list[str | None], Floats]:
    """Normalised final answers, and whether there was an answer: 1 also for a text without a final answer in it."""
    if f"pred|{name}" in table:
        found = [None if v is None else normal(str(v)) for v in table[f"pred|{name}"]]
        return found, np.array([v is not None for v in found], dtype=np.float64)
    texts = [str(v or "") for v in table.get(f"answer|{name}", [""] * n)]
    if f"answer|{name}" not in table:
        return [None] * n, np.ones(n)
    return [final_answer(text) for text in texts], np.array([bool(text.strip()) for text in texts], dtype=np.float64)


def agreements(answers: Sequence[Sequence[str | None]]) -> Floats:
    """(n, n_tiers, n_tiers), above the diagonal: 1 same, 0 different, NaN not comparable. answers: by tier."""
    n_tiers, n = len(answers), len(answers[0])
    found = np.full((n, n_tiers, n_tiers), np.nan)
    for i in range(n_tiers):
        for j in range(i + 1, n_tiers):
            equal = [same(a, b) for a, b in zip(answers[i], answers[j], strict=True)]
            found[:, i, j] = [np.nan if e is None else e for e in equal]
    return found


def _signals(table: Table, path: Path, name: str, answers: Sequence[str | None], has: Floats) -> Floats:
    """(n, n_signals) of one tier; all NaN where it was not run."""

    def column(kind: str) -> Floats:
        return numbers(table, f"{kind}|{name}", path, allow_nan=True)

    stats = np.stack([column(kind) for kind in STATISTIC_COLUMNS], axis=1)
    tokens = column("output_tokens" if f"output_tokens|{name}" in table else "out_tok")
    margin = column("first_margin")
    ends = table.get(f"finish_reason|{name}", [None] * len(tokens))
    cut = np.array([float(end == "length") for end in ends])
    size = np.array([float(len(a or "")) for a in answers])
    found = np.concatenate([logprob_signals(stats, margin), plain_signals(tokens, has, size, cut)], axis=1)
    found[np.isnan(column("score"))] = np.nan
    return found


def _prefix_signals(table: Table, path: Path, name: str, prefix: int) -> Floats | None:
    """(n, n_signals) of the first `prefix` tokens of one tier; None where the table does not have them."""
    column = f"first_logprobs|{name}"
    given: list[Any] | None = table.get(column)
    if given is None:
        return None
    rows = zip(given, table["_line"], strict=True)
    firsts = [[number(v, column, at, path, True) for v in row[:prefix]] if isinstance(row, list) else [] for row, at in rows]
    stats = np.array([statistics(values) if values else (np.nan,) * len(STATISTIC_COLUMNS) for values in firsts])
    margin = numbers(table, f"first_margin|{name}", path, allow_nan=True)
    rest = np.full((len(given), len(PLAIN_SIGNALS)), np.nan)
    found: Floats = np.concatenate([logprob_signals(stats, margin), rest], axis=1)
    assert found.shape[1] == len(SIGNALS) == len(LOGPROB_SIGNALS) + len(PLAIN_SIGNALS)
    return found
