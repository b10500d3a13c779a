"""The tools that a request offers, as functions of a chat: which ones a tier can call, and what each is to the client."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from router.errors import BadRequest
from router.protocols.responses import fields
from router.protocols.responses.client_tools import FUNCTIONS, Kind, function

OWN_PREFIX = "stepdown:"  # the server's own tools, which the chat layer reads
LONGEST = 64  # characters of a function's name, for OpenAI
HASH_CHARS = 8


@dataclass(frozen=True, slots=True)
class Tool:
    """What a function of the chat is to the client."""

    kind: Kind
    name: str
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class Tools:
    """What a request offers."""

    chat: Sequence[Mapping[str, Any]] = ()
    """as the chat body has them"""
    by_function: Mapping[str, Tool] = field(default_factory=dict)
    functions: Mapping[Tool, str] = field(default_factory=dict)
    """the names of the functions, by what they are to the client"""
    left_out: Sequence[str] = ()
    """types of tools that nobody here runs"""

    def tool(self, function: str) -> Tool:
        """What the client knows a called function as. A tier may call one that was not offered."""
        return self.by_function.get(function) or Tool("function", function)

    def function(self, kind: Kind, name: str, namespace: str = "") -> str:
        """The function's name of a tool, also of one that the request no longer offers."""
        return self.functions.get(Tool(kind, name, namespace)) or flat(name, namespace)


def flat(name: str, namespace: str) -> str:
    """At most 64 characters where there is a namespace; a client's own name stays as it is."""
    joined = f"{namespace}__{name}" if namespace else name
    return joined if len(joined) <= LONGEST or not namespace else shortened(joined, joined)


def shortened(name: str, hashed: str) -> str:
    """The name with a hash behind it, so that it differs from others."""
    mark = hashlib.sha256(hashed.encode("utf-8", "surrogatepass")).hexdigest()[:HASH_CHARS]
    return f"{name[: LONGEST - HASH_CHARS - 1]}_{mark}"


def offered(given: Any) -> Tools:
    """Reads `tools`. Raises BadRequest."""
    reading = Reading()
    for i, tool in enumerate(fields.listed(given, "tools")):
        reading.read(tool, f"tools[{i}]")
    functions = {tool: name for name, tool in reading.by_function.items()}
    return Tools(reading.chat, reading.by_function, functions, list(dict.fromkeys(reading.left_out)))


class Reading:
    """Tools as they are read, one after the other."""

    def __init__(self) -> None:
        self.chat: list[Mapping[str, Any]] = []
        self.by_function: dict[str, Tool] = {}
        self.left_out: list[str] = []

    def read(self, given: Any, where: str) -> None:
        tool = fields.fields(given, where)
        kind = fields.name(tool.get("type"), f"{where}.type")
        if kind.startswith(OWN_PREFIX):
            self.chat.append(tool)
        elif kind == "namespace":
            self.namespace(tool, where)
        elif kind in NAMED:
            self.offer(Tool(NAMED[kind], named(tool, where)), FORMS[kind](tool, where))
        elif kind in FUNCTIONS:
            self.offer(Tool(CLIENT_RUN[kind], kind), FUNCTIONS[kind])
        else:
            self.left_out.append(fields.tellable(kind))

    def namespace(self, tool: Mapping[str, Any], where: str) -> None:
        """Each of its tools becomes a function; the first one's description says what they have in common."""
        name = named(tool, where)
        common = fields.some_text(tool.get("description"), f"{where}.description")
        for i, given in enumerate(fields.listed(tool.get("tools"), f"{where}.tools")):
            at = f"{where}.tools[{i}]"
            held = fields.fields(given, at)
            kind = fields.name(held.get("type"), f"{at}.type")
            if kind not in NAMED:
                raise BadRequest(f"`{at}.type`: a namespace holds tools of the types {', '.join(NAMED)}", f"{at}.type")
            made = FORMS[kind](held, at)
            if common and not i:
                made = {**made, "description": "\n\n".join(filter(None, (common, made.get("description"))))}
            self.offer(Tool(NAMED[kind], named(held, at), name), made)

    def offer(self, tool: Tool, made: Mapping[str, Any]) -> None:
        """made: the function, without the name that it gets here."""
        name = flat(tool.name, tool.namespace)
        if self.by_function.get(name, tool) != tool:
            name = shortened(name, f"{tool.kind} {tool.namespace} {tool.name}")
        self.by_function[name] = tool
        self.chat.append({"type": "function", "function": {**made, "name": name}})


def named(tool: Mapping[str, Any], where: str) -> str:
    return fields.name(tool.get("name"), f"{where}.name")


def described(tool: Mapping[str, Any], where: str) -> dict[str, Any]:
    description = fields.some_text(tool.get("description"), f"{where}.description")
    return {"description": description} if description else {}


def plain(tool: Mapping[str, Any], where: str) -> dict[str, Any]:
    parameters = fields.some_fields(tool.get("parameters"), f"{where}.parameters")
    strict = fields.flag(tool.get("strict"), f"{where}.strict")
    has = tool.get("parameters") is not None
    return {
        **described(tool, where),
        **({"parameters": parameters} if has else {}),
        **({} if strict is None else {"strict": strict}),
    }


def custom(tool: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A function with one text. A grammar goes into the description: the tier is told of it, not bound by it."""
    form = fields.some_fields(tool.get("format"), f"{where}.format")
    grammar = fields.some_text(form.get("definition"), f"{where}.format.definition")
    syntax = fields.some_text(form.get("syntax"), f"{where}.format.syntax")
    told = f"`input` is the whole input as one text. It must match this {syntax} grammar:\n{grammar}" if grammar else ""
    description = "\n\n".join(filter(None, (described(tool, where).get("description"), told)))
    return function("", description, ["input"], {"input": {"type": "string"}})


NAMED: Mapping[str, Kind] = {"function": "function", "custom": "custom"}
CLIENT_RUN: Mapping[str, Kind] = {"local_shell": "local_shell", "shell": "shell", "apply_patch": "apply_patch"}
FORMS: Mapping[str, Callable[[Mapping[str, Any], str], dict[str, Any]]] = {"function": plain, "custom": custom}
