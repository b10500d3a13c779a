"""Reasoning as the operator wants clients to get it: under which name, or not at all."""

from collections.abc import Mapping
from typing import Any

from router.config import Server
from router.reasoning_settings import Reasoning
from router.request import thoughts
from router.request.answer_tokens import AnswerReader, of_choice, reasoning_tokens
from router.request.thoughts import FIELDS, separated

OTHERS = ("reasoning_details", "thinking", "thinking_blocks")
"""fields in which other servers repeat a thought"""
IDS = ("token_ids",)
"""of a choice: the thought's tokens too, as numbers"""
SILENCE_S = 5.0  # proxies close connections on which nothing comes
NAMES: Mapping[str, tuple[str, ...]] = {"reasoning": ("reasoning",), "reasoning_content": ("reasoning_content",), "both": FIELDS}


class ShownReasoning:
    """Changes one chat answer, whole or in chunks. names: fields that get the thought; empty: it is hidden."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.readers: dict[int, AnswerReader] = {}
        """index of a choice -> its reader"""
        self.shown: dict[int, int] = {}
        """index of a choice -> tokens of the answer that the client has"""
        self.sign_s = -SILENCE_S
        """when the client got the last sign of life"""

    @classmethod
    def of(
        cls, server: Server, body: Mapping[str, Any], settings: Reasoning | None = None, field: str | None = None
    ) -> "ShownReasoning | None":
        """None: answers pass as they are. body: the client's. settings: of the tier that answers. field: instead of the server's.

        A client may ask for none by `include_reasoning`, which a tier with the setting is not told: see `thinking.switched`.
        """
        name = field or server.reasoning_field
        if "messages" not in body:
            return None
        if server.reasoning == "hide" or (settings is not None and body.get("include_reasoning") is False):
            return cls(())
        return cls(NAMES[name]) if name else None

    @property
    def hides(self) -> bool:
        return not self.names

    def silent(self, now_s: float) -> bool:
        """Called when nothing is left of a chunk: whether the client should get a sign of life in its place. Notes it."""
        silent = now_s - self.sign_s >= SILENCE_S
        self.sign_s = now_s if silent else self.sign_s
        return silent

    # -- whole answers -----------------------------------------------------------------------------------------------------

    def document(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return {**body, "choices": [self.choice(choice, reasoning_tokens(body)) for choice in body["choices"]]}

    def choice(self, choice: Mapping[str, Any], counted: int) -> dict[str, Any]:
        message = thoughts.apart(choice.get("message") or {})
        if not self.hides:
            return {**choice, "message": thoughts.named(message, self.names)}
        shown = {name: value for name, value in choice.items() if name not in IDS}
        if shown.get("logprobs"):
            shown["logprobs"] = {**shown["logprobs"], "content": list(of_choice(choice, counted))}
        return {**shown, "message": without_thought(message)}

    # -- streams -----------------------------------------------------------------------------------------------------------

    def chunk(self, data: Mapping[str, Any]) -> dict[str, Any] | None:
        """A chunk as the client gets it; None: nothing is left of it."""
        choices = [self.piece(choice) for choice in data["choices"]]
        left = [choice for choice in choices if choice is not None]
        return {**data, "choices": left} if left or not choices else None

    def piece(self, choice: Mapping[str, Any]) -> dict[str, Any] | None:
        delta, index = choice.get("delta") or {}, choice.get("index") or 0
        reader = self.readers.setdefault(index, AnswerReader())
        said = reader.read(choice)
        if choice.get("finish_reason"):
            said = thoughts.joined(said, reader.end())
        made = separated(delta, said)
        made = without_thought(made) if self.hides else thoughts.named(made, self.names)
        emptied = any(delta.values()) and not any(made.values())
        if emptied and not choice.get("finish_reason"):
            return None
        shown = {**choice, "delta": made}
        return self.without_tokens(shown, index, reader) if self.hides else shown

    def without_tokens(self, choice: Mapping[str, Any], index: int, reader: AnswerReader) -> dict[str, Any]:
        """Without the thought's tokens. Whether a first token is one shows only when the answer begins."""
        shown = {name: value for name, value in choice.items() if name not in IDS}
        if shown.get("logprobs"):
            known = reader.found if reader.began else []
            shown["logprobs"] = {**shown["logprobs"], "content": known[self.shown.get(index, 0) :]}
            self.shown[index] = len(known)
        return shown


def without_thought(said: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in said.items() if name not in (*FIELDS, *OTHERS)}
