"""What a request says about reasoning: how much of it, and whether the answer shows it."""

from collections.abc import Mapping
from typing import Any, Literal

from router.errors import BadRequest
from router.protocols.messages.fields import name, optional, whole

Shows = Literal["text", "signature", "nothing"]
"""`signature`: blocks without their text, which come back with it"""


def thinking_fields(body: Mapping[str, Any], most: int | None) -> dict[str, Any]:
    """`reasoning_effort` and `thinking_token_budget`. most: the answer's limit in tokens, if there is one. Raises BadRequest."""
    thinking = optional(body.get("thinking"), "thinking")
    if thinking and name(thinking.get("type"), "thinking.type") == "disabled":
        return {"reasoning_effort": "none"}
    fields: dict[str, Any] = {}
    effort = optional(body.get("output_config"), "output_config").get("effort")
    if effort is not None:
        fields["reasoning_effort"] = name(effort, "output_config.effort")
    if thinking.get("type") == "enabled":  # other types leave it to the tier
        fields["thinking_token_budget"] = budget(thinking.get("budget_tokens"), most)
    return fields


def budget(given: Any, most: int | None) -> int:
    where = "thinking.budget_tokens"
    tokens = whole(given, where, 1)
    if most is not None and tokens >= most:
        raise BadRequest(f"`{where}` must be less than `max_tokens`, found {tokens} of {most}; the answer needs some too", where)
    return tokens


def shows(body: Mapping[str, Any]) -> Shows:
    """Of a body that `thinking_fields` has passed."""
    thinking = body.get("thinking") or {}
    if thinking.get("type") == "disabled":
        return "nothing"
    return "signature" if thinking.get("display") == "omitted" else "text"
