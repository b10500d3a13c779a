"""What a service's answer says of itself, read from its bytes: whether it is whole, and how many tokens it was made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from router.service_settings import Kind
from router.services import outline
from router.services.body import ServiceRequest

RESULTS: Mapping[Kind, Sequence[str]] = {"embeddings": ("data",), "rerank": ("results", "data"), "score": ("data",)}
"""where an answer has its vectors, documents or scores; Voyage has `data` for documents"""
COUNTS = ("prompt_tokens", "input_tokens", "total_tokens")
LONGEST_USAGE = 10_000  # bytes


@dataclass(frozen=True, slots=True)
class ServiceAnswer:
    raw: bytes = field(repr=False)
    """what the client gets"""
    tokens: int | None
    """that were read; None: the service does not say, or says what cannot be"""


@dataclass(frozen=True, slots=True)
class Refused:
    """A document with status 200 that holds an error."""

    error: Any


def read(asked: ServiceRequest, raw: bytes, context: int) -> ServiceAnswer | Refused:
    """The answer under the `model` that was asked for. context: tokens of one input. Raises ValueError for what is no answer."""
    found = outline.fields(raw)
    by_name = {one.name: one for one in found}
    if "error" in by_name and (error := by_name["error"].value(raw)):
        return Refused(error)
    results = next((by_name[name] for name in RESULTS[asked.kind] if name in by_name), None)
    if results is None or raw[results.start : results.start + 1] != b"[":
        raise ValueError(f"it has no list `{RESULTS[asked.kind][0]}`")
    few = results.parts < 1 if asked.kind == "rerank" else results.parts != asked.inputs
    if few or results.parts > asked.inputs:
        raise ValueError(f"`{results.name}` has {results.parts:,} entries for {asked.inputs:,} inputs")
    usage = by_name.get("usage")
    tokens = counted(usage.text(raw), asked.inputs * context) if usage else None
    return ServiceAnswer(outline.with_value(raw, "model", asked.wanted, found), tokens)


def counted(usage: bytes, most: int) -> int | None:
    """The tokens that a usage tells; None: none, or more than possible."""
    if len(usage) > LONGEST_USAGE:
        return None
    told = outline.fields(usage) if usage.startswith(b"{") else []
    numbers = {one.name: one.value(usage) for one in told if one.name in COUNTS}
    tokens = next((numbers[name] for name in COUNTS if name in numbers), None)
    return tokens if type(tokens) is int and 0 < tokens <= most else None
