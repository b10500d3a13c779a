"""Tools that the server itself offers, named in the request's `tools`: read, checked and taken out again.

`{"type": "stepdown:delegate"}` lets the largest tier hand work down, `{"type": "stepdown:escalate"}` lets a smaller one
hand a request up. A tier sees them as functions `stepdown_delegate` and `stepdown_escalate`; a client never sees a call.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from router.errors import BadRequest, ToolNameConflict
from router.request.body import several_wanted, wants_json
from router.types import Limits, Offered

PREFIX, FUNCTION_PREFIX = "stepdown:", "stepdown_"
DELEGATE, ESCALATE = "stepdown_delegate", "stepdown_escalate"
KNOWN = ("stepdown:delegate", "stepdown:escalate")
CHOSEN = ("tools", "tool_choice", "parallel_tool_calls")  # fields that mean nothing without tools, and that backends then refuse

ESCALATION = {
    "type": "function",
    "function": {
        "name": ESCALATE,
        "description": "Hand this request to a larger model. Call it, before writing anything, when the request is beyond you: "
        "you would have to guess. Do not call it for what you can do.",
        "parameters": {
            "type": "object",
            "properties": {"reason": {"type": "string", "description": "what makes it too hard, in a few words"}},
            "required": ["reason"],
            "additionalProperties": False,
        },
    },
}


# -- reading --------------------------------------------------------------------------------------------------------------


def is_ours(tool: Mapping[str, Any]) -> bool:
    return str(tool.get("type")).startswith(PREFIX)


def name_of(tool: Any) -> str:
    """The function's name in a tool, a tool call, or a `tool_choice`; empty where there is none."""
    function = tool.get("function") if isinstance(tool, Mapping) else None
    return str(function.get("name") or "") if isinstance(function, Mapping) else ""


def calls_ours(call: Mapping[str, Any]) -> bool:
    return name_of(call).startswith(FUNCTION_PREFIX)


def check(body: Mapping[str, Any]) -> None:
    """What is wrong whatever the configuration. Raises BadRequest, ToolNameConflict."""
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
    if kind not in KNOWN:
        raise BadRequest(f"`{where}.type`: no server tool {kind[:60]!r}; there are {', '.join(KNOWN)}", where)
    if kind in seen:
        raise BadRequest(f"`{where}`: {kind} is listed twice", where)
    seen.add(kind)
    limits(tool, where)


def limits(tool: Mapping[str, Any], where: str = "tools") -> Limits:
    """The limits that a server tool comes with. Raises BadRequest."""
    given = tool.get("parameters")
    if tool["type"] != KNOWN[0] and given:
        raise BadRequest(f"`{where}.parameters`: {tool['type']} takes none", where)
    return validated(given, f"{where}.parameters", where)


def validated(given: Any, key: str, where: str) -> Limits:
    """key: what the client wrote the limits under. Raises BadRequest."""
    try:
        return Limits.model_validate({} if given is None else given)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join([key, *map(str, first["loc"])])
        raise BadRequest(f"`{at}`: {first['msg']}; known are {', '.join(Limits.model_fields)}", where) from None


def own_tests(body: dict[str, Any]) -> str:
    """`stepdown.tests`, taken out of the body; empty where there is none. Raises BadRequest."""
    own = body.get("stepdown")
    if not isinstance(own, dict) or "tests" not in own:
        return ""
    body["stepdown"] = {name: value for name, value in own.items() if name != "tests"}
    if (tests := own["tests"]) is None:
        return ""
    if not isinstance(tests, str) or not tests.strip():
        raise BadRequest("`stepdown.tests` must be a text: the tests that the answer's code has to pass", "stepdown")
    if "messages" not in body or several_wanted(body):
        raise BadRequest("`stepdown.tests` are for one answer of chat/completions; leave them out, or n", "stepdown")
    return tests


def own_limits(body: Mapping[str, Any]) -> Limits | None:
    """What `stepdown` in a body asks for; None where nothing is. Raises BadRequest."""
    found = validated(body.get("stepdown"), "stepdown", "stepdown")
    if found == Limits():
        return None
    if "messages" not in body or several_wanted(body):
        raise BadRequest("`stepdown`: limits are for one answer of chat/completions; leave them out, or n", "stepdown")
    return found


def check_choice(body: Mapping[str, Any]) -> None:
    """A call can be demanded of the client's own tools only."""
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and (is_ours(choice) or calls_ours(choice)):
        raise BadRequest("`tool_choice`: a server tool cannot be demanded; calling it is the tier's choice", "tool_choice")
    if choice == "required" and not client_tools(body):
        raise BadRequest("`tool_choice`: required needs a tool of your own beside the server tools", "tool_choice")


def read(body: Mapping[str, Any]) -> Offered:
    """The server tools of a body that `check` has passed."""
    found = {str(tool["type"]): tool for tool in body.get("tools") or () if is_ours(tool)}
    delegate = limits(found[KNOWN[0]]) if KNOWN[0] in found else None
    return Offered(delegate, KNOWN[1] in found)


def allow(body: Mapping[str, Any], mode: str) -> None:
    """Whether this server delegates on request. Raises BadRequest."""
    at = next((i for i, tool in enumerate(body.get("tools") or ()) if tool.get("type") == KNOWN[0]), None)
    if at is not None and mode not in ("tool", "auto"):
        raise BadRequest(
            f"`tools[{at}]`: {KNOWN[0]} is switched off here (delegation.mode: {mode}); "
            "the server's configuration switches it on with delegation.mode: tool, or auto for planning as well",
            f"tools[{at}]",
        )


# -- what tiers get -------------------------------------------------------------------------------------------------------


def client_tools(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [tool for tool in body.get("tools") or () if not is_ours(tool)]


def without(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The body as a tier may get it; the same object where it has no server tool."""
    left = client_tools(body)
    return body if len(left) == len(body.get("tools") or ()) else with_tools(body, left)


def with_tools(body: Mapping[str, Any], tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The body with these tools and no others."""
    if tools:
        return {**body, "tools": list(tools)}
    return {key: value for key, value in body.items() if key not in CHOSEN}


def free_choice(body: Mapping[str, Any]) -> bool:
    """Whether the tier may call what it likes, so that one of ours can stand beside the client's tools."""
    return body.get("tool_choice") in (None, "auto")


def may_escalate(body: Mapping[str, Any]) -> bool:
    """Whether the function can be shown: where JSON is asked for, tools would be a second grammar in one call."""
    return free_choice(body) and not body.get("functions") and not wants_json(body)


def with_escalation(body: Mapping[str, Any]) -> dict[str, Any]:
    return with_tools(body, [*client_tools(body), ESCALATION])
