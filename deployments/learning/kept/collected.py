"""What is gathered of a request while it is answered, and the rows of `completions` that become of it. No I/O."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from deployments.ids import REPLY
from deployments.ledger.rows import Row, cleaners
from deployments.ledger.schema import completions
from router.config import Tier
from router.learn.labels.labelling import logprob_stats
from router.request import server_tools
from router.request.answer_tokens import AnswerReader, of_choice
from router.request.message_pieces import message_of
from router.request.thoughts import apart, named
from router.types import Commit, Request, Say, Usage

Role = Literal["answer", "draft", "audit"]
LARGEST = 16_000_000  # bytes of one call's answer; a larger one is not kept
READ_AT_ONCE = 64_000  # bytes of events that are read in one call, which holds Python's lock
# Fields of a body that are not the answer's: who asked, how it is to be sent, and what has a column of its own.
NOT_SAMPLING = frozenset(
    "model messages tools stream stream_options user safety_identifier prompt_cache_key prompt_cache_retention service_tier "
    "request_id priority cache_salt logprobs top_logprobs prompt_logprobs return_token_ids return_tokens_as_token_ids".split()
)
TEXTS_OF_DEVELOPERS = ("response_format", "tool_choice", "reasoning_effort", "verbosity", "stop")
"""fields with texts that are kept although no redaction has seen them: a program's author wrote them, not its user"""
CLEAN = cleaners(completions)
GIVEN = ("key_id", "wanted", "model", "answer", "finish", "cost_usd", "signals", "metadata", "licence")
"""columns with what others say, to be cleaned; the rest is our own"""
ENCODER = json.JSONEncoder(ensure_ascii=False)


@dataclass(slots=True)
class Said:
    """What one call said, as it came."""

    choices: list[Mapping[str, Any]] = field(default_factory=list)
    """that of a document, or those of a stream's chunks"""
    events: list[bytes] = field(default_factory=list)
    """of a stream that nobody has read yet"""
    logged: Sequence[Mapping[str, Any]] = ()
    """the answer's tokens with their log-probabilities, also those that the client does not get, in a document"""
    reader: AnswerReader = field(default_factory=AnswerReader)
    """finds them in a stream's chunks"""
    size: int = 0
    """bytes"""

    @property
    def too_large(self) -> bool:
        return self.size > LARGEST

    def document(self, choice: Mapping[str, Any], size: int) -> None:
        self.choices, self.logged, self.size = [choice], of_choice(choice), size

    def chunk(self, choice: Mapping[str, Any], size: int) -> None:
        self.size += size
        if self.too_large:
            self.choices, self.reader = [], AnswerReader()
        else:
            self.choices.append(choice)
            self.reader.read(choice)

    def event(self, item: bytes) -> None:
        self.size += len(item)
        if self.too_large:
            self.events = []
        else:
            self.events.append(item)


@dataclass(slots=True)
class Collecting:
    """A request that is to be kept. Whoever answers it notes what it said."""

    trace_id: str
    key_id: str
    asked: Request
    """as the client sent it"""
    consent: str
    """by what it is kept: `marked` or `all`"""
    conversation: str
    """digest; empty: it belongs to none"""
    call: str = ""
    """name of the call whose answer the client gets"""
    spliced: bool = False
    """the answer is made of several calls'"""
    own: Said | None = None
    """an answer that is no call's"""

    @property
    def id(self) -> str:
        """The id of the reply, under which it is kept."""
        return REPLY + self.trace_id

    def named(self, body: dict[str, Any], end: Commit | Say, records: Mapping[str, Any]) -> dict[str, Any]:
        """A flow's answer, or a chunk of it, with this id. Notes whose it is, as the client gets it. records: name -> Record"""
        choices = body["choices"]
        if isinstance(end, Commit):
            self.call, self.spliced = end.call_id, bool(end.splice)
            if choices and "message" in choices[0]:  # the chunks of a stream were noted as they came
                records[end.call_id].said.choices = choices[:1]
        elif self.own is None:
            message = {"role": "assistant", "content": end.text}
            self.own = Said([{"message": message, "finish_reason": "stop"}], size=len(end.text))
        return body | {"id": self.id}


class Record(Protocol):
    """One call, as the endpoint records it."""

    @property
    def call(self) -> Any: ...  # router.types.Call
    @property
    def usage(self) -> Usage: ...
    @property
    def said(self) -> Said | None: ...
    def cost_usd(self, prices: Sequence[float]) -> float: ...


class Answered(Protocol):
    """A request that was answered, as the endpoint has it."""

    @property
    def collecting(self) -> Collecting | None: ...
    @property
    def tier(self) -> str: ...
    @property
    def flow(self) -> str: ...
    @property
    def decided(self) -> Any: ...  # router.types.Decision
    @property
    def records(self) -> Mapping[str, Any]: ...  # name of a call -> Record
    @property
    def prices(self) -> Mapping[str, Sequence[float]]: ...  # tier -> USD per million tokens
    @property
    def models(self) -> Mapping[str, str]: ...  # tier -> fingerprint, where it runs on other weights than usual
    def cost_usd(self) -> float: ...
    def degraded_by(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Kept:
    """One answer to be kept."""

    role: Role
    call: str
    """empty: made of several calls"""
    tier: str
    said: Said
    usage: Usage
    cost_usd: float
    model: str = ""
    """fingerprint of what answered, where its tier runs on other weights than usual"""


@dataclass(frozen=True, slots=True)
class Item:
    """What waits to be kept of one request: the client's answer and drafts, or an audit."""

    of: Collecting
    answers: tuple[Kept, ...]
    at_s: float
    """Unix time"""
    chance: float = 0.0
    """above 0: it was drawn, with this chance, to be filled in"""

    @property
    def size(self) -> int:
        """About as many bytes as it holds."""
        return self.of.asked.size + sum(answer.said.size for answer in self.answers)


def answers_of(answered: Answered, collecting: Collecting) -> tuple[Kept, ...]:
    """The client's answer, then whole answers that were rejected; nothing where the client's was not gathered whole."""
    record = answered.records.get(collecting.call)
    said = collecting.own or (record.said if record else None)
    if said is None or said.too_large:
        return ()
    if record and not collecting.spliced:
        first = kept(answered, record, "answer")
    else:
        usage = sum((r.usage for r in answered.records.values()), Usage())
        first = Kept("answer", "", answered.tier, said, usage, answered.cost_usd(), answered.models.get(answered.tier, ""))
    drafts = [r for name, r in answered.records.items() if name != collecting.call and drafted(answered, r)]
    return first, *(kept(answered, draft, "draft") for draft in drafts)


def drafted(answered: Answered, record: Record) -> bool:
    """Whether the call's whole answer was looked at and not given to the client. Plans and subtasks are no answers."""
    said = record.said
    whole = said is not None and any(choice.get("finish_reason") for choice in said.choices)
    return whole and answered.flow in ("cascade", "race") and record.call.role in ("attempt", "final")


def kept(answered: Answered, record: Record, role: Role) -> Kept:
    tier = record.call.tier
    cost_usd, model = record.cost_usd(answered.prices[tier]), answered.models.get(tier, "")
    return Kept(role, record.call.id, tier, record.said or Said(), record.usage, cost_usd, model)


# -- rows --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Made:
    """An answer as it was given."""

    message: Mapping[str, Any]
    finish: str
    signals: dict[str, Any]


def made(said: Said) -> Made:
    """Raises ValueError and the like where a tier's events cannot be read."""
    choices, reader = said.choices, said.reader
    if said.events:
        choices, reader = [data["choices"][0] for data in documents(said.events) if data.get("choices")], AnswerReader()
        for choice in choices:
            reader.read(choice)
    message, finish = message_of(choices)
    message = named(apart(message), ("reasoning",))
    if calls := message.get("tool_calls"):
        message["tool_calls"] = [call for call in calls if not server_tools.calls_ours(call)]
    return Made(message, finish, logprob_stats({"logprobs": {"content": said.logged or reader.tokens}}))


def documents(events: Sequence[bytes]) -> Iterator[Mapping[str, Any]]:
    """The data of server-sent events, read many at a time."""
    parts: list[bytes] = []
    size = 0
    for block in b"".join(events).split(b"\n\n"):
        if block.startswith(b"data:") and (data := block[5:].strip()) != b"[DONE]":
            parts.append(data)
            size += len(block)
            if size > READ_AT_ONCE:
                yield from json.loads(b"[" + b",".join(parts) + b"]")
                parts, size = [], 0
    yield from json.loads(b"[" + b",".join(parts) + b"]")


def row_of(item: Item, answer: Kept, given: Made, tier: Tier, model: str, expires_s: float | None) -> Row:
    """The row without what only the client's answer has; `asked_of` adds that. tier: whose answer it is."""
    of = item.of
    return cleaned(
        id=of.id if answer.role == "answer" else f"{of.trace_id}/{answer.call}",
        trace_id=of.trace_id,
        call_id=f"{of.trace_id}/{answer.call}" if answer.call else "",
        key_id=of.key_id,
        created_s=item.at_s,
        conversation=of.conversation,
        role=answer.role,
        tier=answer.tier,
        model=model,
        wanted=str(of.asked.body["model"]),
        messages=None,
        tools=None,
        sampling=None,
        answer=as_json(dict(given.message)),
        finish=given.finish,
        input_tokens=answer.usage.input_tokens,
        output_tokens=answer.usage.output_tokens,
        cost_usd=answer.cost_usd,
        signals=as_json(given.signals) if given.signals else None,
        metadata=as_json(of.asked.metadata),
        consent=of.consent,
        licence=tier.licence.id,
        redaction="",
        expires_s=expires_s,
    )


def asked_of(asked: Request, messages: Sequence[Mapping[str, Any]], redacted: bool) -> Row:
    """What only the client's answer has: the conversation and what else was asked. messages: as they may be kept."""
    tools = server_tools.client_tools(asked.body)
    found = {"messages": as_json(list(messages)), "tools": as_json(tools) if tools else None}
    tests = {"stepdown": {"tests": asked.tests}} if asked.tests and not redacted else {}
    found["sampling"] = as_json(sampling(asked.body, redacted) | tests)
    return {name: CLEAN[name](value) for name, value in found.items()}


def sampling(body: Mapping[str, Any], redacted: bool) -> dict[str, Any]:
    """The other fields that a tier reads. redacted: without those that may hold a user's texts, which redaction did not see."""
    rest = {name: value for name, value in body.items() if name not in NOT_SAMPLING and value is not None}
    plain = {name for name, value in rest.items() if isinstance(value, bool | int | float) or name in TEXTS_OF_DEVELOPERS}
    return {name: value for name, value in rest.items() if not redacted or name in plain}


def metadata_rows(row: Row, metadata: Mapping[str, str]) -> list[Row]:
    """One for each pair, of the client's answer."""
    own = {"completion_id": row["id"], "key_id": row["key_id"], "created_s": row["created_s"]}
    return [own | {"name": clean_text(name), "value": clean_text(value)} for name, value in metadata.items()]


def clean_text(text: str) -> str:
    """Text that both databases take."""
    found: str = CLEAN["answer"](text)
    return found


def fill_row(item: Item) -> Row:
    at = {"drawn_s": item.at_s, "changed_s": item.at_s}
    return {"trace_id": item.of.trace_id, **at, "chance": item.chance, "state": "waiting", "why": ""}


def as_json(value: Any) -> str:
    return ENCODER.encode(value)


def cleaned(**row: Any) -> Row:
    """The row as both databases take it."""
    for name in GIVEN:
        row[name] = CLEAN[name](row[name])
    return row
