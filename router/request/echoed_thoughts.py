"""What an echo tier thinks before it answers, told in the ways in which servers tell it. For testing all that reads thoughts."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from router.request.body import answer_limit
from router.request.thinking import guided, wish_of
from router.request.thoughts import CLOSES, OPENS
from router.tier_settings import EchoTier

LOGPROB = -3.0  # of a word of the thought
ANSWER_LOGPROB = -0.01
MARK_LOGPROB = -22.0  # as of a mark that a budget forces
FIELD = {"parsed": "reasoning", "cut": "reasoning", "reasoning_content": "reasoning_content"}


class Piece(NamedTuple):
    """One token. field: of a message, in which it stands; empty: nobody gets it."""

    field: str
    text: str
    logprob: float


class Said(NamedTuple):
    """All that one answer says. thought: tokens of it that were thought, marks not counted."""

    pieces: Sequence[Piece]
    thought: int
    finish: str


def said(settings: EchoTier, words: Sequence[str], body: Mapping[str, Any]) -> Said:
    """words: the answer's. The request's limit holds for thought and answer together, its budget for the thought."""
    thought = list(thought_pieces(settings, body))
    answer = [] if settings.thought_form == "cut" and thought else [Piece("content", word, ANSWER_LOGPROB) for word in words]
    whole = thought + answer
    kept = whole[: answer_limit(body)]
    short = len(kept) < len(whole) or (thought and not answer)
    told = sum(piece.logprob == LOGPROB for piece in kept)
    return Said(kept, told, "length" if short else "stop")


def thought_pieces(settings: EchoTier, body: Mapping[str, Any]) -> Iterator[Piece]:
    """The thought with its marks; nothing where the request forbids it, or where its form holds for the whole text."""
    wish, form = wish_of(body), settings.thought_form
    held = form in ("raw", "opened") and guided(body)
    count = min(settings.thought or 0, (settings.thought or 0) if wish.budget is None else wish.budget)
    if not count or held or wish.on is False:
        return
    field = FIELD.get(form, "content")
    if form == "raw":
        yield Piece(field, OPENS, MARK_LOGPROB)
    for number in range(1, count + 1):
        yield Piece(field, f"thought{number} ", LOGPROB)
    if form in ("raw", "opened"):
        yield Piece(field, f"{CLOSES}\n\n", MARK_LOGPROB)
    elif form != "cut":
        yield Piece("", CLOSES, MARK_LOGPROB)


def message_of(said: Said) -> dict[str, Any]:
    """The answer as one message."""
    found: dict[str, Any] = {"role": "assistant", "content": None}
    for field in dict.fromkeys(piece.field for piece in said.pieces if piece.field):
        found[field] = "".join(piece.text for piece in said.pieces if piece.field == field)
    return found


def logged(pieces: Sequence[Piece]) -> dict[str, Any]:
    """Their log-probabilities, as OpenAI has them: thought, marks and answer in one list."""
    return {"content": [one(piece) for piece in pieces]}


def one(piece: Piece) -> dict[str, Any]:
    other = {"token": "other", "logprob": piece.logprob - 3, "bytes": None}
    text = {"token": piece.text, "logprob": piece.logprob, "bytes": list(piece.text.encode())}
    return {**text, "top_logprobs": [other]}


def details_of(settings: EchoTier, said: Said) -> dict[str, Any]:
    """What the usage tells of the thought: servers that do not take it out do not count it."""
    form = settings.thought_form
    if form in ("raw", "opened"):
        return {}
    return {"completion_tokens_details": {"reasoning_tokens": 0 if form == "reasoning_content" else said.thought}}
