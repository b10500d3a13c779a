"""Asking a teacher how sure it is: its highest log-probabilities at each answer token of a data folder's rows.

The teacher's folder is run by transformers, in passes of at most 2,048 tokens. Shards are written one by one, and renamed into
place: a killed run goes on with the first that is missing.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import log_softmax

from classifiers.files import atomic_write
from deployments.distil import base_models, encoding
from deployments.distil.batching import EncodedRow, RowScores, by_length, cut, padded
from deployments.distil.losses import answer_logits
from deployments.distil.scores import FOLDER, MANIFEST, shard_name, write_shard
from deployments.distil.training import device_here, rows_sha256
from router.errors import BadInput

PASS_TOKENS = 2_048  # a longer row is a pass of its own
SHARD_ROWS = 512


@dataclass(frozen=True, slots=True)
class Scoring:
    """What is to be scored, by whom."""

    data: Path
    teacher: Path
    """a model's folder"""
    top: int = 20
    """log-probabilities kept at each token, at least 1"""
    student: Path | None = None
    """a model's folder; none: the data folder's manifest says which tokenizer the student has"""


def score(wanted: Scoring, report: Callable[[int, int], None]) -> dict[str, Any]:
    """Write the missing shards; returns the manifest. report: (shards done, shards). Raises BadInput, OSError."""
    tokenizer = base_models.load_tokenizer(wanted.teacher)
    check_vocabulary(wanted, tokenizer)
    rows, left_out = rows_of(wanted, tokenizer)
    shards = [rows[start : start + SHARD_ROWS] for start in range(0, len(rows), SHARD_ROWS)]
    manifest = claimed(wanted, tokenizer, len(rows), len(shards), left_out)
    folder = wanted.data / FOLDER
    missing = [number for number in range(len(shards)) if not (folder / shard_name(number)).is_file()]
    report(len(shards) - len(missing), len(shards))
    if not missing:
        return manifest
    model = base_models.load_model(wanted.teacher, teacher_dtype(wanted.teacher), device_here())
    words = 1 + max(tokenizer.get_vocab().values())
    for done, number in enumerate(missing, len(shards) - len(missing) + 1):
        write_shard(folder / shard_name(number), scored(model, shards[number], min(wanted.top, words), words))
        report(done, len(shards))
    return manifest


def rows_of(wanted: Scoring, tokenizer: Any) -> tuple[list[EncodedRow], dict[str, int]]:
    """The rows of train and dev, in the order of the files, and why others are missing."""
    encoding.read_manifest(wanted.data)
    rows = [row for side in ("train", "dev") for row in encoding.read_rows(wanted.data, side)]
    ends = base_models.ends_of(wanted.teacher, tokenizer)
    found = encoding.encode(rows, tokenizer, ends, base_models.size_of(wanted.teacher).context)
    if not found.rows:
        raise BadInput(f"{wanted.data}: none of its rows can be scored {dict(found.left_out) or ''}; expected at least one")
    return found.rows, dict(found.left_out)


def check_vocabulary(wanted: Scoring, tokenizer: Any) -> None:
    """Scores are by token, so teacher and student must have the same tokens. Raises BadInput."""
    if wanted.student is not None:
        student = base_models.load_tokenizer(wanted.student)
        same = base_models.vocabulary_sha256(student) == base_models.vocabulary_sha256(tokenizer)
        found = f"{wanted.student} ({len(student)} tokens)"
    else:
        told = encoding.read_manifest(wanted.data).get("tokenizer_sha256")
        same = not told or told == base_models.sha256(wanted.teacher / "tokenizer.json")
        found = f"the student's, whose tokenizer.json is {str(told)[:12]}"
    if not same:
        raise BadInput(
            f"{wanted.teacher} ({len(tokenizer)} tokens) has another vocabulary than {found}; scores can be learned in the same "
            "one only: train with the sequence loss, which needs none"
        )


def claimed(wanted: Scoring, tokenizer: Any, rows: int, shards: int, left_out: dict[str, int]) -> dict[str, Any]:
    """Begin the folder of scores, or go on if it is the same work. Raises BadInput where it is other work's."""
    folder = wanted.data / FOLDER
    manifest = {
        "form": 1,
        "top": wanted.top,
        "teacher": {"name": wanted.teacher.name, "sha256": base_models.digest_of(wanted.teacher)},
        "vocabulary_sha256": base_models.vocabulary_sha256(tokenizer),
        "rows_sha256": rows_sha256(wanted.data),
        "rows": rows,
        "shards": shards,
        "left_out": left_out,
    }
    found = base_models.json_of(folder / MANIFEST)
    if found and found != manifest:
        changed = next(name for name in manifest if found.get(name) != manifest[name])
        raise BadInput(f"{folder}: holds scores with another {changed}; delete the folder to score again, or give what it has")
    folder.mkdir(exist_ok=True)
    atomic_write(folder / MANIFEST, json.dumps(manifest, indent=1))
    return manifest


def teacher_dtype(folder: Path) -> torch.dtype:
    """As it is stored on a GPU; float32 on a processor."""
    return base_models.stored_dtype(folder) if device_here() == "cuda" else torch.float32


def scored(model: Any, rows: Sequence[EncodedRow], top: int, words: int) -> list[EncodedRow]:
    """The rows with the model's highest log-probabilities. words: tokens that exist; padded vocabularies have more rows."""
    made = list(rows)
    for group in cut(sorted(((i, len(row.ids)) for i, row in enumerate(rows)), key=by_length), PASS_TOKENS):
        found = top_of(model, [rows[i] for i in group], top, words)
        for i, one in zip(group, found, strict=True):
            made[i] = replace(rows[i], scores=one)
    return made


@torch.inference_mode()
def top_of(model: Any, rows: Sequence[EncodedRow], top: int, words: int) -> list[RowScores]:
    """One pass."""
    logits = answer_logits(model, padded(rows, 0).on(model.device))
    logits[:, words:] = -torch.inf
    best = log_softmax(logits, dim=-1).topk(top, dim=-1)
    ids, logprobs = best.indices.int().cpu().numpy(), best.values.cpu().numpy()
    ends = torch.tensor([len(row.answer) for row in rows]).cumsum(0).tolist()
    return [
        RowScores(ids[end - len(row.answer) : end], logprobs[end - len(row.answer) : end])
        for row, end in zip(rows, ends, strict=True)
    ]
