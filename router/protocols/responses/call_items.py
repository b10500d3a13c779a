"""Items that are calls of tools. Each tells the events of its own life."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from router.protocols.responses.client_tools import PREFIXES, call_fields
from router.protocols.responses.events import ADDED, DONE, Item, Tell
from router.protocols.responses.tools import Tool
from router.protocols.responses.unwrapped import Unwrapped


class Call:
    """A call of a tool. tools: says what a function is to the client. call_id: in place of one that the tier did not give."""

    called = True

    def __init__(self, name: str, tell: Tell, tool_of: Callable[[str], Tool], call_id: str) -> None:
        self.name, self.tell, self.tool_of, self.call_id = name, tell, tool_of, call_id
        self.function = ""
        self.unsaid: list[str] = []
        self.arguments: list[str] = []
        self.shown: list[str] = []
        """the pieces as they were told: of a custom tool only the text in the arguments"""
        self.tool: Tool | None = None
        """None: the item has not begun"""
        self.unwrapped = Unwrapped()

    def add(self, piece: Mapping[str, Any]) -> None:
        function = piece.get("function") or {}
        self.call_id = piece.get("id") or self.call_id
        if not self.tool:
            self.function += function.get("name") or ""
        if function.get("arguments"):
            self.unsaid.append(function["arguments"])

    @property
    def complete(self) -> bool:
        """Whether the arguments are a whole JSON object, to which nothing can be added."""
        if not (last := (self.unsaid or self.arguments or [""])[-1].rstrip()) or last[-1] != "}":
            return False
        try:
            json.loads("".join((*self.arguments, *self.unsaid)))
        except (ValueError, RecursionError):
            return False
        return True

    def show(self, place: int) -> None:
        """Tell what was added. The item begins with the first argument, when the name is known; a tool of OpenAI's at its end."""
        tool = self.tool_of(self.function)
        if not self.unsaid or tool.kind in PREFIXES:
            return
        if not self.tool:
            self.begin(place, tool)
        text = "".join(self.unsaid)
        self.arguments += self.unsaid
        self.unsaid = []
        self.say(self.unwrapped.fed(text) if tool.kind == "custom" else text, place)

    def begin(self, place: int, tool: Tool) -> None:
        self.tool = tool
        self.tell(ADDED, {"output_index": place, "item": self.item(tool, "", "in_progress")})

    def say(self, text: str, place: int) -> None:
        if not text or not self.tool:
            return
        self.shown.append(text)
        what = "custom_tool_call_input" if self.tool.kind == "custom" else "function_call_arguments"
        self.tell(f"response.{what}.delta", {"item_id": self.id_of(self.tool), "output_index": place, "delta": text})

    def close(self, place: int, status: str) -> Item:
        """The whole item."""
        tool = self.tool or self.tool_of(self.function)
        if tool.kind in PREFIXES:
            self.arguments, self.unsaid = [*self.arguments, *self.unsaid], []
            if own := call_fields(tool.kind, "".join(self.arguments)):
                return self.close_own(place, {**self.head(tool), **own, "status": status})
            tool = Tool("function", self.function)  # what nobody can run goes out as it is, for the client to refuse
            self.unsaid = self.arguments
            self.arguments = []
        return self.close_text(place, tool, status)

    def close_text(self, place: int, tool: Tool, status: str) -> Item:
        if not self.tool:
            self.begin(place, tool)
        text = "".join(self.unsaid)
        self.arguments += self.unsaid
        self.unsaid = []
        self.say(self.unwrapped.fed(text) + self.unwrapped.ended() if tool.kind == "custom" else text, place)
        whole = "".join(self.shown)
        what, field = ("custom_tool_call_input", "input") if tool.kind == "custom" else ("function_call_arguments", "arguments")
        self.tell(f"response.{what}.done", {"item_id": self.id_of(tool), "output_index": place, field: whole})
        item = self.item(tool, whole, status)
        self.tell(DONE, {"output_index": place, "item": item})
        return item

    def close_own(self, place: int, item: Item) -> Item:
        begun = {**item, "status": "in_progress"}
        self.tell(ADDED, {"output_index": place, "item": begun})
        self.tell(DONE, {"output_index": place, "item": item})
        return item

    def item(self, tool: Tool, text: str, status: str) -> Item:
        field = "input" if tool.kind == "custom" else "arguments"
        within = {"namespace": tool.namespace} if tool.namespace else {}
        return {**self.head(tool), "name": tool.name, **within, field: text, "status": status}

    def head(self, tool: Tool) -> Item:
        kind = {"custom": "custom_tool_call"}.get(tool.kind, f"{tool.kind}_call")
        return {"id": self.id_of(tool), "type": kind, "call_id": self.call_id}

    def id_of(self, tool: Tool) -> str:
        return {"function": "fc_", "custom": "ctc_", **PREFIXES}[tool.kind] + self.name

    def as_chat(self) -> dict[str, Any]:
        """The call as a chat has it."""
        arguments = "".join((*self.arguments, *self.unsaid))
        return {"id": self.call_id, "type": "function", "function": {"name": self.function, "arguments": arguments}}
