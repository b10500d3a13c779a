"""A chat completion as a message: its blocks, why it ended, and what it used."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from router.protocols.edge import Seals
from router.protocols.messages.history import said
from router.protocols.messages.thinking import Shows

ENDS = {"length": "max_tokens", "content_filter": "refusal"}


@dataclass(frozen=True, slots=True)
class Shown:
    """What an answer takes from its request."""

    id: str
    """the request's"""
    model: str
    """the name asked for"""
    seals: Seals
    thinking: Shows

    @property
    def message_id(self) -> str:
        return f"msg_{self.id}"

    def call_id(self, given: Any, n: int) -> str:
        """A tier's id of a call stays, as it may name hidden turns. n: the call's place, for tiers that give none."""
        return given if isinstance(given, str) and given else f"toolu_{self.id}_{n}"

    def signature(self, text: str, tier: str) -> str:
        """Of a block of thinking; where the text is not shown, it is sealed in here, or nobody could continue it."""
        whole = text.encode("utf-8", "replace").decode()  # half characters, as a stream may end in one, cannot be sealed
        return self.seals.signature(whole, tier) if self.thinking == "text" else self.seals.sealed(whole, tier)


def document(answer: Mapping[str, Any], shown: Shown) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The message, and warnings about what it could not show."""
    choice = first_choice(answer)
    message = choice.get("message") or {}
    warnings: list[str] = []
    blocks = list(blocks_of(message, text_of(answer.get("model")), shown, warnings))
    called = any(block["type"] == "tool_use" for block in blocks)
    stop_reason, stop_sequence = stopped(choice, called, bool(message.get("refusal")))
    made = {
        **opening(shown),
        "content": blocks or [{"type": "text", "text": ""}],
        "stop_reason": stop_reason,
        "stop_sequence": stop_sequence,
        "usage": usage_of(answer.get("usage")),
    }
    return made, tuple(warnings)


def opening(shown: Shown) -> dict[str, Any]:
    """A message without content. Clients try endlessly where one of these fields is missing."""
    return {
        "id": shown.message_id,
        "type": "message",
        "role": "assistant",
        "model": shown.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def first_choice(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = answer.get("choices")
    return choices[0] if choices else {}


def blocks_of(message: Mapping[str, Any], tier: str, shown: Shown, warnings: list[str]) -> Iterator[dict[str, Any]]:
    """Blank texts, as models write between reasoning and calls, make no block."""
    thought = reasoning_of(message)
    if thought.strip() and shown.thinking != "nothing":
        visible = thought if shown.thinking == "text" else ""
        yield {"type": "thinking", "thinking": visible, "signature": shown.signature(thought, tier)}
    content = content_of(message)
    if content.strip():
        yield {"type": "text", "text": content}
    for n, call in enumerate(message.get("tool_calls") or ()):
        function = call.get("function") or {}
        given = arguments(function.get("arguments"))
        if given is None:
            warnings.append(f"call {n} of {str(function.get('name'))[:60]!a}: its arguments are no JSON object; input is empty")
        name, id_ = text_of(function.get("name")), shown.call_id(call.get("id"), n)
        yield {"type": "tool_use", "id": id_, "name": name, "input": given or {}}


def arguments(given: Any) -> dict[str, Any] | None:
    """A call's input; None: it is no JSON object. No text means no arguments."""
    if isinstance(given, dict):
        return given
    if not isinstance(given, str) or not given.strip():
        return {}
    try:
        found = json.loads(given)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def text_of(value: Any) -> str:
    return value if isinstance(value, str) else ""


def reasoning_of(said: Mapping[str, Any]) -> str:
    """Of a message or a delta. Some servers send both names with the same text."""
    return text_of(said.get("reasoning")) or text_of(said.get("reasoning_content"))


def content_of(said: Mapping[str, Any]) -> str:
    """Of a message or a delta: a refusal is what the client has to show."""
    return text_of(said.get("content")) + text_of(said.get("refusal"))


def stopped(choice: Mapping[str, Any], called: bool, refused: bool = False) -> tuple[str, str | None]:
    """(stop_reason, stop_sequence). A call must be told as one, also where the tier was made to call and says `stop`."""
    finish = choice.get("finish_reason")
    if refused or finish in ENDS:
        return ("refusal" if refused else ENDS[str(finish)]), None
    if called:
        return "tool_use", None
    stop = choice.get("stop_reason")  # vLLM: the text that stopped it, or the token
    return ("stop_sequence", stop) if isinstance(stop, str) and stop else ("end_turn", None)


def usage_of(given: Any, prompt_tokens: int = 0, output_tokens: int = 0) -> dict[str, Any]:
    """prompt_tokens, output_tokens: our own counts, where the tier gives none."""
    given = given if isinstance(given, Mapping) else {}
    prompt = tokens(given.get("prompt_tokens"), prompt_tokens)
    cached = min(prompt, tokens((given.get("prompt_tokens_details") or {}).get("cached_tokens"), 0))
    used = {
        "input_tokens": prompt - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": tokens(given.get("completion_tokens"), output_tokens),
    }
    return used | ({"stepdown": given["stepdown"]} if "stepdown" in given else {})


def tokens(given: Any, instead: int) -> int:
    return given if isinstance(given, int) and given >= 0 else instead


def chat_message(message: Mapping[str, Any], tier: str, shown: Shown) -> dict[str, Any]:
    """The answer as `history` reads it once the client has sent it back."""
    return heard(content_of(message), reasoning_of(message), tier, message.get("tool_calls") or (), shown)


def heard(content: str, thought: str, tier: str, calls: Iterable[Mapping[str, Any]], shown: Shown) -> dict[str, Any]:
    kept = [
        {"id": shown.call_id(call.get("id"), n), "type": "function", "function": dict(call.get("function") or {})}
        for n, call in enumerate(calls)
    ]
    thoughts = [(thought, tier)] if thought.strip() and shown.thinking != "nothing" else []
    return said(content if content.strip() else "", kept, thoughts)
