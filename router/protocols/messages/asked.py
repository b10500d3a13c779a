"""One request that was read, and how it is answered."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from router.protocols.edge import Name
from router.protocols.messages.answers import Shown, chat_message, document, first_choice, text_of
from router.protocols.messages.stream import StreamEncoder


@dataclass(slots=True)
class Asked:
    """`router.protocols.edge.Edge`."""

    body: dict[str, Any]
    shown: Shown
    ignored: tuple[str, ...] = ()
    session: str = ""
    prefill: bool = False
    """the answer continues the last message, so one tier has to give it whole"""
    warnings: tuple[str, ...] = ()
    """what the last document could not show, for the header `x-stepdown-warning`"""

    @property
    def name(self) -> Name:
        return "messages"

    @property
    def tells_prompt(self) -> bool:
        return True

    def document(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        made, self.warnings = document(answer, self.shown)
        return made

    def said(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        return chat_message(first_choice(answer).get("message") or {}, text_of(answer.get("model")), self.shown)

    def encoder(self, prompt_tokens: int = 0) -> StreamEncoder:
        return StreamEncoder(self.shown, prompt_tokens)
