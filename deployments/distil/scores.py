"""A teacher's scores beside the rows of a data folder: shards of its highest log-probabilities at each answer token.

`scores/NNNNN.safetensors` holds `ids` (answer tokens, K) int32, `logprobs` (the same shape) float32, `answer` (answer tokens,)
int32: the tokens scored, `offsets` (rows + 1,) int64: where each row's begin, and in its metadata the rows' ids, in order.
`scores/manifest.json` says by whom, of which rows, and in which vocabulary.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from classifiers.files import replaced
from deployments.distil.base_models import json_of, sha256, vocabulary_sha256
from deployments.distil.batching import EncodedRow, RowScores
from router.errors import BadInput

FOLDER = "scores"
MANIFEST = "manifest.json"
IDS = "rows"  # key of the rows' ids in a shard's metadata
AGAIN = "run `stepdown distil score` again"


def shard_name(number: int) -> str:
    return f"{number:05d}.safetensors"


def write_shard(file: Path, rows: Sequence[EncodedRow]) -> None:
    """All rows have scores. Raises OSError."""
    found = [row.scores for row in rows if row.scores is not None]
    tensors: dict[str, np.ndarray[Any, Any]] = {
        "ids": np.concatenate([one.ids for one in found]).astype(np.int32),
        "logprobs": np.concatenate([one.logprobs for one in found]).astype(np.float32),
        "answer": np.concatenate([row.answer for row in rows]).astype(np.int32),
        "offsets": np.cumsum([0, *(len(row.answer) for row in rows)]).astype(np.int64),
    }
    with replaced(file) as fresh:
        save_file(tensors, fresh, {IDS: json.dumps([row.id for row in rows])})


def read_shard(file: Path) -> dict[str, tuple[np.ndarray[Any, Any], RowScores]]:
    """Row's id -> (its answer tokens, its scores). Raises BadInput."""
    try:
        with safe_open(file, "np") as opened:
            ids, logprobs, answer, offsets = (opened.get_tensor(name) for name in ("ids", "logprobs", "answer", "offsets"))
            rows = json.loads(opened.metadata()[IDS])
        spans = list(zip(offsets[:-1], offsets[1:], strict=True))
        return {row: (answer[a:b], RowScores(ids[a:b], logprobs[a:b])) for row, (a, b) in zip(rows, spans, strict=True)}
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{file}: no shard of scores ({error}); delete it and {AGAIN}") from None


def manifest_of(data: Path) -> Mapping[str, Any]:
    """Raises BadInput where nothing was scored, or not all of it."""
    found = json_of(data / FOLDER / MANIFEST)
    if not found:
        raise BadInput(
            f"{data}: has no scores; the token loss needs them: run `stepdown distil score`, or train without --loss token"
        )
    if missing := [n for n in range(found["shards"]) if not (data / FOLDER / shard_name(n)).is_file()]:
        raise BadInput(f"{data}: {len(missing)} of {found['shards']} shards of its scores are missing; {AGAIN}, it goes on")
    return found


def joined(data: Path, rows: Sequence[EncodedRow], tokenizer: Any) -> list[EncodedRow]:
    """The rows with their scores. Raises BadInput where there are none, or they are of another vocabulary or other tokens."""
    manifest = manifest_of(data)
    if manifest["vocabulary_sha256"] != vocabulary_sha256(tokenizer):
        raise BadInput(f"{data}: was scored in another vocabulary than the student's; train with the sequence loss instead")
    found: dict[str, tuple[np.ndarray[Any, Any], RowScores]] = {}
    for number in range(manifest["shards"]):
        found |= read_shard(data / FOLDER / shard_name(number))
    if missing := [row.id for row in rows if row.id not in found]:
        raise BadInput(f"{data}: {len(missing)} rows have no scores, as {missing[0]}; {AGAIN}")
    if other := [row.id for row in rows if not np.array_equal(found[row.id][0], row.answer)]:
        raise BadInput(f"{data}: {len(other)} rows were scored for other tokens than the student's, as {other[0]}; {AGAIN}")
    return [replace(row, scores=found[row.id][1]) for row in rows]


def sha256_of(data: Path) -> str:
    """Of all shards. Raises BadInput."""
    names = [data / FOLDER / shard_name(number) for number in range(manifest_of(data)["shards"])]
    return hashlib.sha256("".join(sha256(name) for name in names).encode()).hexdigest()
