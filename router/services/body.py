"""From the JSON of an embeddings, rerank or score request to what we need to know of it. Its bytes go on as they are."""

import json
from codecs import BOM_UTF8
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from router.errors import BadRequest
from router.request import wire
from router.service_settings import Kind
from router.services import outline
from router.types import Counter, byte_bound

MOST_INPUTS = 2_048  # texts, documents or pairs of one request, as with OpenAI
MOST_DIMENSIONS = 65_536
MOST_ID = 2**31  # no vocabulary is larger
MARKS = 16  # the most tokens that a model usually puts around one text or pair
BYTES_PER_TOKEN = 4  # of usual texts
FORMATS = ("float", "base64")
SIDES = (("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2"))
"""fields that hold the two sides of what is scored, as vLLM names them"""
WORDS: Mapping[type, str] = {
    type(None): "null",
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "an object",
}
INPUT = "a text, a list of texts, token ids, or a list of lists of token ids"


class Read(NamedTuple):
    """One text that the model reads."""

    text: str | int
    """or the number of its token ids"""
    times: int = 1
    """a query is read with each of its documents"""


@dataclass(frozen=True, slots=True)
class ServiceRequest:
    """A request to a service as the client sent it."""

    kind: Kind
    raw: bytes = field(repr=False)
    wanted: str
    """the request's `model`"""
    inputs: int
    """texts of embeddings, documents of rerank, pairs of score: what the model reads one by one"""
    reads: Sequence[Read] = field(default=(), repr=False)

    def named(self, model: str) -> bytes:
        """The same bytes with another `model`."""
        return outline.with_value(self.raw, "model", model, outline.fields(self.raw))

    def most_tokens(self, count: Counter, context: int) -> int:
        """Upper bound of the tokens that are read: where the tokenizer is unknown, every byte is one. context: of one input."""
        exact = getattr(count, "exact", False)
        bound: Callable[[str], int] = getattr(count, "tokens", count) if exact else byte_bound
        texts = sum(read.times * (read.text if isinstance(read.text, int) else bound(read.text)) for read in self.reads)
        return min(texts + MARKS * self.inputs, context * self.inputs)

    def usual_tokens(self) -> int:
        """Estimate for a service that does not say how many it has read."""
        ids = sum(read.times * read.text for read in self.reads if isinstance(read.text, int))
        size = sum(read.times * byte_bound(read.text) for read in self.reads if isinstance(read.text, str))
        return ids - -size // BYTES_PER_TOKEN


def parse(kind: Kind, raw: bytes) -> ServiceRequest:
    """Read a body and check the fields that we use; all others go on untouched. Raises BadRequest."""
    body = wire.decoded(raw)
    if not isinstance(body, dict):
        raise BadRequest(f"the body must be a JSON object, found {found(body)}")
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise BadRequest(f"`model` must be the name of a service for {kind}, found {found(model)}", "model")
    inputs, reads = READERS[kind](body)
    return ServiceRequest(kind, raw.removeprefix(BOM_UTF8), model, inputs, reads)


def found(value: Any) -> str:
    """What a value is, for messages."""
    kind = WORDS[type(value)]
    return f"an empty {kind.split()[-1]}" if isinstance(value, str | list | dict) and not value else kind


def given(body: Mapping[str, Any], name: str) -> Any:
    """Raises BadRequest where the field is missing."""
    if name not in body:
        raise BadRequest(f"`{name}` is missing", name)
    return body[name]


Parsed = tuple[int, Sequence[Read]]
"""inputs, and what is read of them"""

# -- embeddings --------------------------------------------------------------------------------------------------------------


def embeddings(body: Mapping[str, Any]) -> Parsed:
    encoding, sent = body.get("encoding_format"), given(body, "input")
    if encoding is not None and encoding not in FORMATS:
        raise BadRequest(f"`encoding_format` must be float or base64, found {found(encoding)}", "encoding_format")
    check_whole(body, "dimensions", 1, MOST_DIMENSIONS)
    if isinstance(sent, str) or is_ids(sent):
        return 1, [Read(embedded(sent, "input", type(sent)))]
    texts = listed(sent, "input", INPUT)
    return len(texts), [Read(embedded(text, f"input[{n}]", type(texts[0]))) for n, text in enumerate(texts)]


def embedded(text: Any, where: str, kind: type) -> str | int:
    """One input, or the number of its token ids. kind: of the first one."""
    if not isinstance(text, str | list) or (text and not isinstance(text, kind)):
        raise BadRequest(f"`{where}` is {found(text)}; `input` must be {INPUT}", "input")
    if not text:
        raise BadRequest(f"`{where}` is {found(text)}; every input needs at least one character or token id", "input")
    if isinstance(text, str):
        return text
    if not is_ids(text) or not all(0 <= id_ < MOST_ID for id_ in text):
        raise BadRequest(f"`{where}` must hold token ids only: whole numbers from 0", "input")
    return len(text)


def is_ids(sent: Any) -> bool:
    """Whether it is one text as token ids; true and false are integers to Python, not here."""
    return isinstance(sent, list) and bool(sent) and all(type(id_) is int for id_ in sent)


# -- rerank and score ----------------------------------------------------------------------------------------------------------


def rerank(body: Mapping[str, Any]) -> Parsed:
    check_whole(body, "top_n", 0, MOST_INPUTS)
    query, documents = sided(body, "query"), sided(body, "documents")
    if len(query) != 1:
        raise BadRequest("`query` must be one text", "query")
    return len(documents), [Read(query[0], len(documents)), *map(Read, documents)]


def score(body: Mapping[str, Any]) -> Parsed:
    """One text with one or several others, or as many pairs as each side has texts."""
    names = next((names for names in SIDES if all(name in body for name in names)), SIDES[0])
    one, other = (sided(body, name) for name in names)
    if len(one) not in (1, len(other)):
        raise BadRequest(
            f"`{names[0]}` has {len(one):,} texts, `{names[1]}` has {len(other):,}; send one with any number, or as many of each",
            names[1],
        )
    times = len(other) if len(one) == 1 else 1
    return len(other), [*(Read(text, times) for text in one), *map(Read, other)]


def sided(body: Mapping[str, Any], name: str) -> list[str]:
    """The texts of a field. An object, which some models read, is the text of its JSON."""
    sent = given(body, name)
    texts = [sent] if isinstance(sent, str | dict) else listed(sent, name, "a text or a list of texts")
    for n, text in enumerate(texts):
        if not isinstance(text, str | dict) or not text:
            where = f"{name}[{n}]" if texts is sent else name
            raise BadRequest(f"`{where}` must be a text that is not empty, or an object; found {found(text)}", name)
    return [text if isinstance(text, str) else json.dumps(text, ensure_ascii=False) for text in texts]


READERS: Mapping[Kind, Callable[[Mapping[str, Any]], Parsed]] = {"embeddings": embeddings, "rerank": rerank, "score": score}

# -- any of them -----------------------------------------------------------------------------------------------------------------


def listed(sent: Any, name: str, wanted: str) -> Sequence[Any]:
    """A list that is neither empty nor too long. Raises BadRequest."""
    if not isinstance(sent, list) or not sent:
        raise BadRequest(f"`{name}` is {found(sent)}; it must be {wanted}", name)
    if len(sent) > MOST_INPUTS:
        raise BadRequest(f"`{name}` has {len(sent):,} texts; send at most {MOST_INPUTS:,} in one request", name)
    return sent


def check_whole(body: Mapping[str, Any], name: str, least: int, most: int) -> None:
    value = body.get(name)
    if value is not None and (type(value) is not int or not least <= value <= most):
        raise BadRequest(f"`{name}` must be a whole number from {least} to {most:,}", name)
