"""A whole message from what came of it: the choice of a document, or the pieces of a stream."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

CALLED = ("tool_calls", "function_call")


def message_of(choices: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], str]:
    """OpenAI's message, and the finish reason; empty: none came. choices: one with a `message`, or several with a `delta`.

    Fields that are empty are left out, `role` and `content` are always there.
    """
    finish = next((str(c["finish_reason"]) for c in reversed(choices) if c.get("finish_reason")), "")
    if any(choice.get("message") for choice in choices):
        said = dict(choices[0].get("message") or {})
    else:
        said = joined([choice.get("delta") or {} for choice in choices])
    kept = {name: value for name, value in said.items() if value not in (None, "", [], {})}
    return {**kept, "role": "assistant", "content": said.get("content")}, finish


def joined(deltas: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Pieces put together: texts and lists are joined, calls of tools each by their index; of other values the last counts."""
    texts: dict[str, list[str]] = {}
    others: dict[str, Any] = {}
    for delta in deltas:
        for name, value in delta.items():
            if name in ("role", *CALLED) or value is None:
                continue
            if isinstance(value, str):
                texts.setdefault(name, []).append(value)
            else:
                before = others.get(name)
                others[name] = [*before, *value] if isinstance(before, list) and isinstance(value, list) else value
    calls = joined_calls(deltas)
    old = joined_calls({"tool_calls": [{"function": d["function_call"]}]} for d in deltas if d.get("function_call"))
    called = {"tool_calls": list(calls), "function_call": old[0]["function"] if old else None}
    return {**others, **{name: "".join(parts) for name, parts in texts.items()}, **{k: v for k, v in called.items() if v}}


def joined_calls(deltas: Iterable[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """Whole tool calls from the pieces of a stream."""
    made: dict[int, dict[str, Any]] = {}
    for delta in deltas:
        for piece in delta.get("tool_calls") or []:
            empty = {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
            call = made.setdefault(piece.get("index", 0), empty)
            call["id"] = piece.get("id") or call["id"]
            for key in ("name", "arguments"):
                call["function"][key] += (piece.get("function") or {}).get(key) or ""
    return tuple(made.values())
