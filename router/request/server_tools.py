"""The server's own tools, named in a request's `tools`, and the body's field `stepdown`: read, checked and taken out again.

`{"type": "stepdown:delegate"}` lets the largest tier delegate work, `{"type": "stepdown:escalate"}` lets a smaller tier escalate
the request. A tier sees them as functions `stepdown_delegate` and `stepdown_escalate`; a client never sees a call of them.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from router.client_options import ClientLimits, OfferedTools
from router.errors import BadRequest, ToolNameConflict
from router.request.body import continues, several_wanted, wants_json

PREFIX = "stepdown:"
DELEGATE_TYPE = "stepdown:delegate"
ESCALATE_TYPE = "stepdown:escalate"
FUNCTION_PREFIX = "stepdown_"
DELEGATE = "stepdown_delegate"
ESCALATE = "stepdown_escalate"
NEED_TOOLS = ("tools", "tool_choice", "parallel_tool_calls")  # fields that some backends refuse in a body without tools
ESCALATION = json.loads((Path(__file__).parent / "escalate_tool.json").read_text("utf-8"))


def is_ours(tool: Mapping[str, Any]) -> bool:
    return str(tool.get("type")).startswith(PREFIX)


def name_of(tool: Any) -> str:
    """The function's name in a tool, a tool call, or a `tool_choice`; empty: it has none."""
    function = tool.get("function") if isinstance(tool, Mapping) else None
    return str(function.get("name") or "") if isinstance(function, Mapping) else ""


def calls_ours(call: Mapping[str, Any]) -> bool:
    return name_of(call).startswith(FUNCTION_PREFIX)


# -- checks ----------------------------------------------------------------------------------------------------------------


def check(body: Mapping[str, Any]) -> None:
    """Whether `tools` and `functions` are valid, whatever the configuration. Raises BadRequest, ToolNameConflict."""
    seen: set[str] = set()
    for i, tool in enumerate(body.get("tools") or ()):
        where = f"tools[{i}]"
        if not isinstance(tool, dict):
            raise BadRequest(f"`{where}` must be an object, found {type(tool).__name__}", where)
        if is_ours(tool):
            check_own(tool, where, seen)
        elif calls_ours(tool):
            raise ToolNameConflict(name_of(tool), where)
    for i, function in enumerate(body["functions"] if isinstance(body.get("functions"), list) else ()):
        if isinstance(function, dict) and str(function.get("name")).startswith(FUNCTION_PREFIX):
            raise ToolNameConflict(str(function["name"]), f"functions[{i}]")
    if seen:
        check_choice(body)


def check_own(tool: Mapping[str, Any], where: str, seen: set[str]) -> None:
    kind = str(tool["type"])
    if kind not in (DELEGATE_TYPE, ESCALATE_TYPE):
        raise BadRequest(f"`{where}.type`: no server tool {kind[:60]!r}; there are {DELEGATE_TYPE}, {ESCALATE_TYPE}", where)
    if kind in seen:
        raise BadRequest(f"`{where}`: {kind} is listed twice", where)
    seen.add(kind)
    if kind == ESCALATE_TYPE and tool.get("parameters"):
        raise BadRequest(f"`{where}.parameters`: {kind} takes none", where)
    read_limits(tool.get("parameters"), f"{where}.parameters", where)


def check_choice(body: Mapping[str, Any]) -> None:
    """`tool_choice` may demand a call of the client's own tools only. Raises BadRequest."""
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and (is_ours(choice) or calls_ours(choice)):
        raise BadRequest("`tool_choice`: a server tool cannot be demanded; calling it is the tier's choice", "tool_choice")
    if choice == "required" and not client_tools(body):
        raise BadRequest("`tool_choice`: required needs a tool of your own beside the server tools", "tool_choice")


def check_mode(body: Mapping[str, Any], mode: str) -> None:
    """Whether this server offers the delegation that the client asks for. Raises BadRequest."""
    at = next((i for i, tool in enumerate(body.get("tools") or ()) if tool.get("type") == DELEGATE_TYPE), None)
    if at is not None and mode not in ("tool", "auto"):
        raise BadRequest(
            f"`tools[{at}]`: {DELEGATE_TYPE} is switched off here (delegation.mode: {mode}); "
            "the server's configuration switches it on with delegation.mode: tool, or auto for planning as well",
            f"tools[{at}]",
        )


# -- reading ---------------------------------------------------------------------------------------------------------------


def offered(body: Mapping[str, Any]) -> OfferedTools:
    """The server tools of a body that `check` has passed."""
    tools = {tool["type"]: tool.get("parameters") for tool in body.get("tools") or () if is_ours(tool)}
    delegate = read_limits(tools[DELEGATE_TYPE], "parameters", "tools") if DELEGATE_TYPE in tools else None
    return OfferedTools(delegate, ESCALATE_TYPE in tools)


def read_limits(given: Any, key: str, where: str) -> ClientLimits:
    """key: where the client wrote the limits, for the message. Raises BadRequest."""
    try:
        return ClientLimits.model_validate({} if given is None else given)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join([key, *map(str, first["loc"])])
        raise BadRequest(f"`{at}`: {first['msg']}; known are {', '.join(ClientLimits.model_fields)}", where) from None


def take_stepdown_field(body: dict[str, Any]) -> tuple[ClientLimits | None, str]:
    """The limits and the tests in the field `stepdown`, which is taken out of the body. Raises BadRequest."""
    own = body.pop("stepdown", None)
    tests = own.pop("tests", None) if isinstance(own, dict) else None
    one_answer = "messages" in body and not (several_wanted(body) or continues(body))
    if tests is not None and (not isinstance(tests, str) or not tests.strip()):
        raise BadRequest("`stepdown.tests` must be a text: the tests that the answer's code has to pass", "stepdown")
    if tests and not one_answer:
        raise BadRequest("`stepdown.tests` are for one answer of chat/completions; leave them out, or n", "stepdown")
    limits = read_limits(own, "stepdown", "stepdown")
    if limits == ClientLimits():
        return None, tests or ""
    if not one_answer:
        raise BadRequest("`stepdown`: limits are for one answer of chat/completions; leave them out, or n", "stepdown")
    return limits, tests or ""


# -- the body that a tier gets ---------------------------------------------------------------------------------------------


def client_tools(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [tool for tool in body.get("tools") or () if not is_ours(tool)]


def without(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The body without server tools; the same object if it has none."""
    left = client_tools(body)
    return body if len(left) == len(body.get("tools") or ()) else with_tools(body, left)


def with_tools(body: Mapping[str, Any], tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The body with these tools and no others."""
    if tools:
        return {**body, "tools": list(tools)}
    return {key: value for key, value in body.items() if key not in NEED_TOOLS}


def free_choice(body: Mapping[str, Any]) -> bool:
    """Whether the tier may call any tool or none, so that ours can be offered beside the client's."""
    return body.get("tool_choice") in (None, "auto")


def may_escalate(body: Mapping[str, Any]) -> bool:
    """Whether `stepdown_escalate` can be offered. Not if JSON is asked for: a call cannot have two grammars."""
    return free_choice(body) and not body.get("functions") and not wants_json(body)


def with_escalation(body: Mapping[str, Any]) -> dict[str, Any]:
    return with_tools(body, [*client_tools(body), ESCALATION])
