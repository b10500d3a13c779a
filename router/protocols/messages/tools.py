"""The tools of a request as functions, and which of them may or must be called."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from router.errors import BadRequest, UnsupportedTool
from router.protocols.messages import client_tools
from router.protocols.messages.fields import Told, flag, name, objects, optional, text, wrong
from router.request.server_tools import PREFIX, name_of

CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def tool_fields(body: Mapping[str, Any], told: Told) -> dict[str, Any]:
    """`tools`, `tool_choice` and `parallel_tool_calls`; empty without tools, since some backends refuse the others then.

    Raises BadRequest, UnsupportedTool.
    """
    given = objects(body.get("tools"), "tools")
    choice = optional(body.get("tool_choice"), "tool_choice")
    left_out: list[str] = []
    tools = list(functions(given, left_out, told))
    check(choice, tools, left_out)
    if not tools:
        return {}
    return {"tools": tools, **chosen(choice)}


def functions(given: Sequence[Mapping[str, Any]], left_out: list[str], told: Told) -> Iterator[dict[str, Any]]:
    """left_out: gets the names of those that only Anthropic can run."""
    for i, tool in enumerate(given):
        where, kind = f"tools[{i}]", tool.get("type")
        told.caching(tool)
        if kind in (None, "custom"):
            yield own_function(tool, where)
        elif text(kind, f"{where}.type").startswith(PREFIX):
            yield dict(tool)
        elif found := client_tools.published(kind):
            description, schema = found
            yield function(name(tool.get("name"), f"{where}.name"), schema, description)
        else:
            told.add(f"tools.{kind}")
            left_out += [kind, str(tool.get("name"))]


def own_function(tool: Mapping[str, Any], where: str) -> dict[str, Any]:
    schema = {"type": "object", **optional(tool.get("input_schema"), f"{where}.input_schema")}
    described, strict = tool.get("description"), tool.get("strict")
    made = function(
        name(tool.get("name"), f"{where}.name"), schema, "" if described is None else text(described, f"{where}.description")
    )
    if strict is not None:
        made["function"]["strict"] = flag(strict, f"{where}.strict")
    return made


def function(called: str, schema: Mapping[str, Any], description: str = "") -> dict[str, Any]:
    described = {"description": description} if description else {}
    return {"type": "function", "function": {"name": called, **described, "parameters": schema}}


def chosen(choice: Mapping[str, Any]) -> dict[str, Any]:
    """Of a choice that `check` has passed."""
    fields: dict[str, Any] = {}
    if choice:
        kind = choice["type"]
        fields["tool_choice"] = CHOICES.get(kind) or {"type": "function", "function": {"name": choice["name"]}}
    if choice.get("disable_parallel_tool_use") is not None:
        fields["parallel_tool_calls"] = not flag(choice["disable_parallel_tool_use"], "tool_choice.disable_parallel_tool_use")
    return fields


def check(choice: Mapping[str, Any], tools: Sequence[Mapping[str, Any]], left_out: Sequence[str]) -> None:
    """Whether what must be called is there. Raises BadRequest, UnsupportedTool."""
    if not choice:
        return
    kind = choice.get("type")
    if kind not in (*CHOICES, "tool"):
        raise wrong("tool_choice.type", "auto, any, tool or none", kind)
    if kind == "tool":
        demanded = name(choice.get("name"), "tool_choice.name")
        if demanded in map(name_of, tools):
            return
        if demanded in left_out:
            raise unsupported(demanded)
        raise BadRequest(f"`tool_choice.name`: no tool {demanded[:60]!a} is in `tools`; name one that is", "tool_choice")
    if kind == "any" and not tools:
        if left_out:
            raise unsupported(left_out[0])
        raise BadRequest("`tool_choice`: any needs at least one tool in `tools`", "tool_choice")


def unsupported(tool: str) -> UnsupportedTool:
    return UnsupportedTool(
        f"`tool_choice` demands {tool[:60]!a}, which only Anthropic's servers can run; choose another tool, or auto",
        "tool_choice",
    )
