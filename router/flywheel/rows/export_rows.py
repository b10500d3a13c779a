"""Kept requests as rows of other tools' training files: OpenAI's fine-tuning, ShareGPT, TRL's prompt and completion."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from router.flywheel.served import Served

Row = dict[str, Any]
Hook = Callable[[list[Row]], list[Row] | None]
"""`learning.redact`: a conversation as it may be shown, of as many messages; None: nothing of it"""
OF_MESSAGES = ("content", "tool_calls", "refusal")
"""what a training file holds of an answer: no reasoning, no fields of one server's"""
SPEAKERS = {"user": "human", "assistant": "gpt", "system": "system", "developer": "system", "tool": "tool", "function": "tool"}
"""OpenAI's `role` -> ShareGPT's `from`"""


def answer_of(served: Served, correction: str | None) -> Row | None:
    """What the request should be answered by: what somebody corrected it to, else the answer that the client got.

    None: there is neither, as where it was redacted away.
    """
    if correction is not None:
        return {"role": "assistant", "content": correction}
    answer = served.answers.get(served.answered_by)
    if answer is None:
        return None
    kept = {name: answer.message[name] for name in OF_MESSAGES if answer.message.get(name) is not None}
    return {"role": "assistant", **kept} if kept else None


def openai_row(served: Served, answer: Row) -> Row:
    """A line of a fine-tuning file."""
    return {"messages": [*map(dict, served.messages), answer], **tools_of(served)}


def trl_row(served: Served, answer: Row) -> Row:
    """TRL's conversational prompt and completion."""
    return {"prompt": [dict(message) for message in served.messages], "completion": [answer], **tools_of(served)}


def sharegpt_row(served: Served, answer: Row) -> Row:
    """ShareGPT has texts only: of parts, those that are texts remain."""
    tools = {"tools": json.dumps(list(served.tools))} if served.tools else {}
    return {"id": served.trace_id, "conversations": [spoken(message) for message in (*served.messages, answer)], **tools}


def tools_of(served: Served) -> Row:
    return {"tools": list(served.tools)} if served.tools else {}


def spoken(message: Mapping[str, Any]) -> Row:
    if calls := message.get("tool_calls"):
        return {"from": "function_call", "value": json.dumps(calls)}
    content = message.get("content")
    parts = content if isinstance(content, list) else [{"text": content}]
    texts = [part if isinstance(part, str) else part.get("text") for part in parts]
    return {"from": SPEAKERS.get(str(message.get("role")), "human"), "value": "\n".join(t for t in texts if isinstance(t, str))}


FORMATS: Mapping[str, Callable[[Served, Row], Row]] = {"openai": openai_row, "sharegpt": sharegpt_row, "trl": trl_row}


def redacted(served: Served, correction: str | None, hook: Hook) -> tuple[Served, str | None] | None:
    """Conversation, answers and correction after one call of the hook, so that a name gets one placeholder. None: none may be
    shown. Raises ValueError where the hook gives no conversation of as many messages, and whatever the hook raises.
    """
    tiers = list(served.answers)
    answers = [{"role": "assistant", **served.answers[tier].message} for tier in tiers]
    corrected = [] if correction is None else [{"role": "assistant", "content": correction}]
    given = [*map(dict, served.messages), *answers, *corrected]
    found = hook(given)
    if found is None:
        return None
    if not isinstance(found, list) or len(found) != len(given) or not all(isinstance(message, dict) for message in found):
        raise ValueError(f"learning.redact gave {type(found).__name__}, expected a list of {len(given)} messages")
    asked, told = found[: len(served.messages)], found[len(served.messages) :]
    by_tier = {tier: replace(served.answers[tier], message=message) for tier, message in zip(tiers, told, strict=False)}
    text = None if correction is None else told[-1].get("content")
    return replace(served, messages=tuple(asked), answers=by_tier), text if isinstance(text, str) else None
