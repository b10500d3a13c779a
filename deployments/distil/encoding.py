"""Rows of a data folder as token ids, through the model's own chat template: the prompt is what the tier would be asked, and the
answer must go on from there, or the row is left out.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from classifiers.text.prompt import content_text
from deployments.distil.base_models import json_of, sha256
from deployments.distil.batching import EncodedRow
from router.distil.rows import Row, Side
from router.errors import BadInput
from router.request.template_fields import as_called, as_offered

MANIFEST = "manifest.json"
TOO_LONG = "longer than the limit"
REFUSED = "the template refuses it"
NOT_SHOWN = "the template does not write such answers"
NOT_ONE = "the answer does not go on where the prompt ends"
EMPTY = "the answer is empty"
ENDS_INSIDE = "the answer holds a token that ends answers"


@dataclass(frozen=True, slots=True)
class Encoded:
    """Rows as ids, in the order of the file, and why others are missing."""

    rows: list[EncodedRow]
    left_out: Mapping[str, int] = field(default_factory=dict)
    """reason -> rows"""


def read_rows(folder: Path, side: Side) -> Iterator[Row]:
    """The rows of one side of a data folder; none where it has no such file. Raises BadInput."""
    file = folder / f"{side}.jsonl"
    if not file.is_file():
        return
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                found = json.loads(line)
            except ValueError as error:
                raise BadInput(f"{file}, line {number}: no JSON ({error}); `stepdown distil data` writes it") from None
            if not isinstance(found, dict):
                raise BadInput(f"{file}, line {number}: not a row but a {type(found).__name__}; `stepdown distil data` writes it")
            yield Row.from_json(found)


def read_manifest(folder: Path) -> Mapping[str, Any]:
    """What a data folder says of itself. Raises BadInput where it is none, or its rows were changed since."""
    if not (folder / "train.jsonl").is_file():
        raise BadInput(f"{folder}: holds no train.jsonl; expected a data folder, as `stepdown distil data` writes it")
    manifest = json_of(folder / MANIFEST)
    for name in ("train.jsonl", "dev.jsonl"):
        told = (manifest.get("files") or {}).get(name)
        if told and told != sha256(folder / name):
            raise BadInput(f"{folder / name}: was changed after it was written; make the data again")
    return manifest


def encode(rows: Sequence[Row], tokenizer: Any, ends: Sequence[int], longest: int) -> Encoded:
    """ends: ids of the tokens that end an answer, the usual one first. longest: tokens of a row; longer ones are left out."""
    left_out: Counter[str] = Counter()
    made: list[EncodedRow] = []
    for row in rows:
        found = encoded(row, tokenizer, ends)
        if isinstance(found, str):
            left_out[found] += 1
        elif len(found.ids) > longest:
            left_out[TOO_LONG] += 1
        else:
            made.append(found)
    return Encoded(made, dict(left_out))


def encoded(row: Row, tokenizer: Any, ends: Sequence[int]) -> EncodedRow | str:
    """One row, or why it cannot be learned."""
    try:
        prompt = written(row, tokenizer, None)
        whole = written(row, tokenizer, row.answer)
        closed = written(row, tokenizer, None, open_ended=False)
    except Exception:  # noqa: BLE001 - a template may raise anything for a chat that it does not take
        return REFUSED
    answer = shown_answer(prompt, whole, row, closed)
    if answer is None:
        return NOT_SHOWN
    before = ids_of(tokenizer, prompt)
    after = ids_of(tokenizer, prompt + answer)
    if not before or after[: len(before)] != before:
        return NOT_ONE
    said = after[len(before) :]
    place = next((place for place, token in enumerate(said) if token in ends), len(said))
    if tokenizer.decode(said[place + 1 :]).strip():  # templates write no more than a line break there
        return ENDS_INSIDE
    if place == 0:
        return EMPTY
    learned = [*said[:place], *(said[place : place + 1] or ends[:1])]
    return EncodedRow(np.array([*before, *learned], np.int32), len(before), row.id)


def shown_answer(prompt: str, whole: str, row: Row, closed: str) -> str | None:
    """The text that the model should write after the prompt. None: the template does not write the answer.

    A template that writes no answers at all, as the pocket models' own, leaves a plain text as it is.
    closed: the prompt as the template writes it when nobody is to go on.
    """
    if whole.startswith(prompt) and len(whole) > len(prompt):
        return whole[len(prompt) :]
    text = content_text(row.answer.get("content"))
    return text if whole == closed and text and not row.answer.get("tool_calls") else None


def written(row: Row, tokenizer: Any, answer: Mapping[str, Any] | None, open_ended: bool = True) -> str:
    """The chat as the template writes it; with an answer: up to its end. Raises what templates raise."""
    messages = [as_read(message) for message in (row.messages if answer is None else (*row.messages, answer))]
    kwargs = row.sampling.get("chat_template_kwargs")
    text: str = tokenizer.apply_chat_template(
        messages,
        tools=[as_offered(tool) for tool in row.tools] or None,
        tokenize=False,
        add_generation_prompt=answer is None and open_ended,
        **(kwargs if isinstance(kwargs, Mapping) else {}),
    )
    return text


def ids_of(tokenizer: Any, text: str) -> list[int]:
    """Without special tokens around it: templates write their own."""
    found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


# -- as vLLM hands chats to templates ---------------------------------------------------------------------------------------


def as_read(message: Mapping[str, Any]) -> dict[str, Any]:
    """Content as one text, the arguments of calls as objects."""
    read = {name: value for name, value in message.items() if value is not None or name == "content"}
    if isinstance(message.get("content"), list):
        read["content"] = content_text(message["content"])
    if message.get("content") is None:
        read["content"] = ""
    if isinstance(message.get("tool_calls"), list | tuple):
        read["tool_calls"] = [as_called(call) for call in message["tool_calls"]]
    return read
