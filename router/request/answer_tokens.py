"""The tokens of an answer alone, among those that a tier reports with log-probabilities: a thought's say nothing of the answer.

Servers list thought, marks and answer one after the other, and their counts of reasoning tokens leave the marks out or are 0, so
the answer's tokens are found by its text. Where they cannot be found there are none: the answer comes without evidence.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from router.request.thoughts import CLOSES, DeltaReader, Spoken, spoken

Token = Mapping[str, Any]
"""one of `logprobs.content`"""


def logged_in(choice: Mapping[str, Any]) -> Sequence[Token]:
    """All tokens of a chat's choice, or of a piece of one."""
    return (choice.get("logprobs") or {}).get("content") or []


def of_answer(tokens: Sequence[Token], said: Spoken) -> Sequence[Token] | None:
    """The tokens from the answer's first to the last, what follows the answer included; None: they cannot be told.

    said: what the whole message says, or a piece that ends the thought and begins the answer.
    """
    text = said.text.strip().encode()
    if not text:
        return None
    parts = [written(token) for token in tokens]
    starts = [0, *accumulate(map(len, parts))]
    whole = b"".join(parts)
    closed = whole.find(CLOSES.encode())
    places = range(len(parts)) if closed >= 0 else reversed(range(len(parts)))
    for place in places:
        lead = len(parts[place]) - len(parts[place].lstrip())
        if closed < starts[place] and lead < len(parts[place]) and whole.startswith(text, starts[place] + lead):
            return tokens[place:]
    return None


def written(token: Token) -> bytes:
    """A token's bytes: its text alone may be half a character."""
    given = token.get("bytes")
    try:
        return bytes(given) if isinstance(given, list) else str(token.get("token") or "").encode("utf-8", "replace")
    except (ValueError, TypeError):
        return b""


def of_choice(choice: Mapping[str, Any], reasoning_tokens: int = 0) -> Sequence[Token]:
    """The answer's tokens of a whole choice; none where they cannot be told.

    reasoning_tokens: as the tier counted them: a thought may be in the list although the message does not show it.
    """
    tokens, message = logged_in(choice), choice.get("message") or {}
    said = spoken(message)
    thinks = said.thought or reasoning_tokens or said.text != (message.get("content") or "")
    return (of_answer(tokens, said) or ()) if tokens and thinks else tokens


def reasoning_tokens(body: Mapping[str, Any]) -> int:
    """As the tier counted them, of a whole answer; 0: it did not."""
    usage = body.get("usage")
    details = usage.get("completion_tokens_details") if isinstance(usage, Mapping) else None
    counted = details.get("reasoning_tokens") if isinstance(details, Mapping) else None
    return counted if type(counted) is int else 0


class AnswerReader:
    """Reads one streamed message: its thought, its answer, and the answer's tokens."""

    def __init__(self) -> None:
        self.delta_reader = DeltaReader()
        self.thought: list[str] = []
        self.text: list[str] = []
        self.found: list[Token] = []
        self.began = False
        """the answer has begun"""
        self.unclear = False
        """some tokens of the answer came with the thought's and cannot be told from them"""

    def read(self, choice: Mapping[str, Any]) -> Spoken:
        """Take a piece. Returns what it says."""
        delta = choice.get("delta") or {}
        said = self.delta_reader.read(delta)
        acts = bool(delta.get("tool_calls") or delta.get("refusal"))
        self.take(logged_in(choice), said, acts)
        return self.add(said)

    def end(self) -> Spoken:
        """Returns what still waited: nothing more comes."""
        return self.add(self.delta_reader.end())

    def add(self, said: Spoken) -> Spoken:
        self.thought += [said.thought] if said.thought else []
        self.text += [said.text] if said.text else []
        return said

    def take(self, tokens: Sequence[Token], said: Spoken, acts: bool) -> None:
        """A piece that says nothing, such as one that may be half of a mark, belongs to what it stands before."""
        thinks = bool(said.thought) or (self.delta_reader.splitter.marked and not self.began)
        if thinks and not self.began:
            self.found = []
        own: Sequence[Token] = () if thinks else tokens
        if thinks and said.text and tokens:
            found = of_answer(tokens, said)
            own, self.unclear = found or (), self.unclear or found is None
        self.began = self.began or bool(said.text) or acts
        if self.began or not (self.thought or thinks):
            self.found += own

    @property
    def tokens(self) -> Sequence[Token]:
        return () if self.unclear else self.found
