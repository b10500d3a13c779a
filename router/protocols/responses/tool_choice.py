"""What a request demands of its tools: `tool_choice`, and the subset that `allowed_tools` leaves."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from router.errors import BadRequest, UnsupportedTool
from router.protocols.responses import fields
from router.protocols.responses.client_tools import FUNCTIONS
from router.protocols.responses.tools import NAMED, OWN_PREFIX, Tool, Tools

WHERE = "tool_choice"
MODES = ("auto", "none", "required")
EXPECTED = f"one of {', '.join(MODES)}, or an object with a `type`"


def chosen(given: Any, tools: Tools) -> tuple[Tools, Any]:
    """The tools that may be called, and the chat's `tool_choice`; None: it has none.

    Raises BadRequest, and UnsupportedTool where a tool is demanded that nobody here runs.
    """
    if given is None:
        return tools, None
    if isinstance(given, str):
        return tools, mode(given, tools)
    if not isinstance(given, dict):
        raise fields.wrong(WHERE, EXPECTED, given)
    if given.get("type") == "allowed_tools":
        left = allowed(given, tools)
        return left, mode(given.get("mode") or "auto", left)
    return tools, {"type": "function", "function": {"name": demanded(given, tools)}}


def mode(given: Any, tools: Tools) -> str | None:
    if given not in MODES:
        raise BadRequest(f"`{WHERE}` must be {EXPECTED}", WHERE)
    if given == "required" and not tools.by_function and tools.left_out:
        raise unsupported(", ".join(tools.left_out))
    if given == "required" and not tools.chat:
        raise BadRequest(f"`{WHERE}`: required needs a tool that can be called; offer one in `tools`", WHERE)
    return str(given) if tools.chat else None


def unsupported(kind: str) -> UnsupportedTool:
    return UnsupportedTool(
        f"`{WHERE}` demands a tool that is not run here ({kind}); offer a function that does it, or leave the choice to auto",
        WHERE,
    )


def demanded(given: Mapping[str, Any], tools: Tools) -> str:
    """The name of the one function that must be called."""
    kind = fields.name(given.get("type"), f"{WHERE}.type")
    if kind not in NAMED and kind not in FUNCTIONS:
        raise unsupported(fields.tellable(kind))
    wanted = meant(given, WHERE)
    fitting = [function for function, tool in tools.by_function.items() if wanted in meanings(tool)]
    if not fitting:
        raise BadRequest(f"`{WHERE}`: `tools` has no {' '.join(wanted)[:80]!r}; offer it, or choose another", WHERE)
    return fitting[0]


def meant(entry: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """What an entry that demands or allows a tool names: a kind, and of some the name, perhaps with its namespace."""
    kind = fields.name(entry.get("type"), f"{where}.type")
    if kind == "namespace":
        return kind, fields.name(entry.get("name"), f"{where}.name")
    if kind not in NAMED:
        return (kind,)
    name, namespace = (
        fields.name(entry.get("name"), f"{where}.name"),
        fields.some_text(entry.get("namespace"), f"{where}.namespace"),
    )
    return (kind, name, namespace) if namespace else (kind, name)


def meanings(tool: Tool) -> set[tuple[str, ...]]:
    """All that an entry may name if it means this tool. Without a namespace it means the tool of that name in any."""
    if tool.kind not in NAMED:
        return {(tool.kind,)}
    within = {("namespace", tool.namespace), (tool.kind, tool.name, tool.namespace)} if tool.namespace else set()
    return {(tool.kind, tool.name), *within}


def allowed(given: Mapping[str, Any], tools: Tools) -> Tools:
    """The tools that are listed, in the order in which they were offered."""
    where = f"{WHERE}.tools"
    entries = [fields.fields(entry, f"{where}[{i}]") for i, entry in enumerate(fields.listed(given.get("tools"), where))]
    wanted = {meant(entry, f"{where}[{i}]") for i, entry in enumerate(entries)}
    kept = {name: tool for name, tool in tools.by_function.items() if meanings(tool) & wanted}
    own = {kind for (kind, *_) in wanted if kind.startswith(OWN_PREFIX)}
    chat = [tool for tool in tools.chat if tool["type"] in own or tool.get("function", {}).get("name") in kept]
    return replace(tools, chat=chat, by_function=kept, left_out=[kind for kind in tools.left_out if (kind,) in wanted])
