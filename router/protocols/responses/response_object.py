"""The Response object, whole: what was asked, repeated, and what came of it."""

from collections.abc import Mapping, Sequence
from typing import Any

from router.protocols.responses.events import Item

INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""finish reason of a chat -> why a response is not whole"""
ECHOED: Mapping[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "safety_identifier": None,
    "temperature": None,
    "tool_choice": "auto",
    "top_p": None,
    "user": None,
}
"""fields that come back as they were sent, each with its value if it was not"""


def echo(body: Mapping[str, Any], name: str, at_s: int, stored: bool) -> dict[str, Any]:
    """The part that is known before the answer. body: checked. name: the response's id. at_s: Unix time."""
    text, reasoning = body.get("text") or {}, body.get("reasoning") or {}
    return {
        "id": name,
        "object": "response",
        "created_at": at_s,
        "model": body["model"],
        "background": False,
        **{field: default if body.get(field) is None else body[field] for field, default in ECHOED.items()},
        "metadata": body.get("metadata") or {},
        "reasoning": {"effort": reasoning.get("effort"), "summary": reasoning.get("summary")},
        "service_tier": "default",
        "store": stored,
        "text": {**text, "format": text.get("format") or {"type": "text"}},
        "tools": body.get("tools") or [],
        "top_logprobs": body.get("top_logprobs") or 0,
        "truncation": "disabled",
    }


def response(
    echoed: Mapping[str, Any],
    status: str,
    output: Sequence[Item] = (),
    usage: Mapping[str, Any] | None = None,
    reason: str | None = None,
    error: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """usage: as a chat has it. reason: why the response is incomplete."""
    return {
        **echoed,
        "status": status,
        "error": error,
        "incomplete_details": {"reason": reason} if reason else None,
        "output": list(output),
        "usage": usage_of(usage) if usage else None,
    }


def usage_of(chat: Mapping[str, Any]) -> dict[str, Any]:
    """A chat's usage in the words of Responses; what the server adds about its calls stays."""
    read, made = chat.get("prompt_tokens") or 0, chat.get("completion_tokens") or 0
    cached = (chat.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    thought = (chat.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
    own = {"stepdown": chat["stepdown"]} if "stepdown" in chat else {}
    return {
        "input_tokens": read,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": made,
        "output_tokens_details": {"reasoning_tokens": thought},
        "total_tokens": read + made,
        **own,
    }


def ended(echoed: Mapping[str, Any], finish: str, output: Sequence[Item], usage: Mapping[str, Any] | None) -> dict[str, Any]:
    """The response of an answer that did not break. finish: the chat's reason; empty: it gave none."""
    reason = INCOMPLETE.get(finish)
    return response(echoed, "incomplete" if reason else "completed", output, usage, reason)
