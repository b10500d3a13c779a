"""The messages of a chat from a response's `input`: its items are messages, calls, results and reasoning, one after the other."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from router.errors import BadRequest
from router.protocols.edge import Seals
from router.protocols.responses import fields, parts
from router.protocols.responses.client_tools import CALLS, Kind, arguments_of, written
from router.protocols.responses.tools import Tools

Item = Mapping[str, Any]
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
"""role of an item -> of the message; few chat templates know developers"""
KINDS: Mapping[str, Kind] = {"local_shell_call": "local_shell", "shell_call": "shell", "apply_patch_call": "apply_patch"}
ONLY_IMAGES = "The result follows as an image."


@dataclass(slots=True)
class Turn:
    """An assistant's message as its items come together."""

    thoughts: list[str] = field(default_factory=list)
    tier: str = ""
    """that thought them; empty: not known"""
    texts: list[str] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)

    def message(self) -> dict[str, Any] | None:
        """None: the turn came to nothing but reasoning, which nobody needs once it is over."""
        if not self.texts and not self.calls:
            return None
        said: dict[str, Any] = {"role": "assistant", "content": "".join(self.texts) if self.texts else None}
        if self.calls:
            said["tool_calls"] = self.calls
        if self.thoughts:
            said["reasoning"] = "\n\n".join(self.thoughts)
        return {**said, "reasoning_tier": self.tier} if self.thoughts and self.tier else said


class Conversation:
    """Reads items. Those of one assistant's turn become one message; images in results follow as a user's message."""

    def __init__(self, tools: Tools, seals: Seals) -> None:
        self.tools, self.seals = tools, seals
        self.messages: list[dict[str, Any]] = []
        self.ignored: dict[str, None] = {}
        """`input.TYPE` of items that say nothing to a tier, in order"""
        self.turn = Turn()
        self.images: list[dict[str, Any]] = []
        """of results, until the last result has come: chats want results next to each other"""

    def read(self, given: Any) -> None:
        """Raises BadRequest."""
        if isinstance(given, str):
            given = [{"role": "user", "content": given}]
        if not isinstance(given, list):
            raise fields.wrong("input", "a text or a list of items", given)
        for i, value in enumerate(given):
            item = fields.fields(value, f"input[{i}]")
            self.item(item, f"input[{i}]")
        self.close_turn()
        self.close_results()

    def item(self, item: Item, where: str) -> None:
        kind = kind_of(item, where)
        read = READERS.get(kind)
        if read is None:
            self.ignored[f"input.{fields.tellable(kind)}"] = None
            return
        if kind not in RESULTS:
            self.close_results()
        read(self, item, where)

    def close_turn(self) -> None:
        message, self.turn = self.turn.message(), Turn()
        if message:
            self.messages.append(message)

    def close_results(self) -> None:
        if self.images:
            self.messages.append({"role": "user", "content": self.images})
            self.images = []

    def message(self, item: Item, where: str) -> None:
        role = ROLES.get(fields.name(item.get("role"), f"{where}.role"))
        if role is None:
            raise BadRequest(f"`{where}.role` must be one of {', '.join(ROLES)}", f"{where}.role")
        content = parts.content_of(item.get("content"), f"{where}.content")
        if role == "assistant":
            self.said(content, where)
            return
        self.close_turn()
        made = parts.joined(content, "\n\n") if role == "system" else parts.simple(content)
        self.messages.append({"role": role, "content": made})

    def said(self, content: Sequence[Mapping[str, Any]], where: str) -> None:
        """What an assistant said. A second text without a call in between is another message, in a chat too."""
        if any(part["type"] != "text" for part in content):
            raise BadRequest(f"`{where}.content`: an assistant's message holds text only", f"{where}.content")
        if self.turn.texts and not self.turn.calls:
            self.close_turn()
        self.turn.texts.append("".join(part["text"] for part in content))

    def reasoning(self, item: Item, where: str) -> None:
        """Reasoning begins a turn. What cannot be read of it is passed over: clients send what other servers gave them."""
        if self.turn.texts or self.turn.calls:
            self.close_turn()
        token = item.get("encrypted_content")
        own = self.seals.unsealed(token) if isinstance(token, str) and token else None
        thought = texts_in(item.get("content"), "") or (own[0] if own else "") or texts_in(item.get("summary"), "\n\n")
        if thought:
            self.turn.thoughts.append(thought)
            self.turn.tier = own[1] if own else ""

    def call(self, item: Item, where: str, kind: Kind, name: str, arguments: str) -> None:
        call_id = item.get("call_id") if item.get("call_id") is not None else item.get("id")
        namespace = fields.some_text(item.get("namespace"), f"{where}.namespace")
        function = {"name": self.tools.function(kind, name, namespace), "arguments": arguments}
        called = {"id": fields.name(call_id, f"{where}.call_id"), "type": "function", "function": function}
        self.turn.calls.append(called)

    def function_call(self, item: Item, where: str) -> None:
        arguments = fields.some_text(item.get("arguments"), f"{where}.arguments")
        self.call(item, where, "function", fields.name(item.get("name"), f"{where}.name"), readable(arguments))

    def custom_call(self, item: Item, where: str) -> None:
        given = fields.some_text(item.get("input"), f"{where}.input")
        self.call(item, where, "custom", fields.name(item.get("name"), f"{where}.name"), written({"input": given}))

    def client_call(self, item: Item, where: str) -> None:
        kind = item["type"]
        value = fields.fields(item.get(CALLS[kind]), f"{where}.{CALLS[kind]}")
        self.call(item, where, KINDS[kind], KINDS[kind], arguments_of(value))

    def result(self, item: Item, where: str) -> None:
        output = item.get("output")
        if item["type"] == "shell_call_output":
            output = written(fields.listed(output, f"{where}.output"))
        elif item["type"] == "apply_patch_call_output":
            told = (item.get("status"), output)
            output = "\n".join(fields.text(value, where) for value in told if value)
        made = parts.content_of(output, f"{where}.output")
        texts = [part["text"] for part in made if part["type"] == "text"]
        others = [part for part in made if part["type"] != "text"]
        call_id = item.get("call_id") if item.get("call_id") is not None else item.get("id")
        self.close_turn()
        content = "\n".join(texts) if texts or not others else ONLY_IMAGES
        self.messages.append({"role": "tool", "tool_call_id": fields.name(call_id, f"{where}.call_id"), "content": content})
        self.images += others

    def reference(self, item: Item, where: str) -> None:
        raise BadRequest(
            f"`{where}`: this item is not kept here, see responses.store; send it whole, as clients do with `store: false`", where
        )


Reader = Callable[[Conversation, Item, str], None]
RESULTS = frozenset(f"{call}_output" for call in ("function_call", "custom_tool_call", *CALLS))
READERS: Mapping[str, Reader] = {
    "message": Conversation.message,
    "reasoning": Conversation.reasoning,
    "function_call": Conversation.function_call,
    "custom_tool_call": Conversation.custom_call,
    "item_reference": Conversation.reference,
    **dict.fromkeys(CALLS, Conversation.client_call),
    **dict.fromkeys(RESULTS, Conversation.result),
}


def kind_of(item: Item, where: str) -> str:
    """The type of an item, which messages and references may leave out."""
    given = item.get("type")
    if given is None:
        return "message" if "role" in item else "item_reference"
    kind = fields.name(given, f"{where}.type")
    return "message" if kind not in READERS and "role" in item and "content" in item else kind


def texts_in(given: Any, by: str) -> str:
    """The texts of a reasoning item's parts."""
    held = [part.get("text") for part in given if isinstance(part, dict)] if isinstance(given, list) else []
    return by.join(text for text in held if isinstance(text, str))


def readable(arguments: str) -> str:
    """A call's arguments as JSON of an object: engines refuse a conversation with others, also if a tier wrote them itself."""
    try:
        good = isinstance(json.loads(arguments or "{}"), dict)
    except (ValueError, RecursionError):
        good = False
    return (arguments or "{}") if good else written({"invalid_json": arguments})
