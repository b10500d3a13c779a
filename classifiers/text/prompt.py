"""From a chat request to the string that a classifier sees: the same function in training and in serving."""

from collections.abc import Mapping, Sequence
from typing import Any

# Characters kept of each part. The last user message says what is asked, so it gets most of the room: a task is usually
# stated at its head, and the question at its tail. 6,000 characters hold 99.9 % of our benchmark prompts, and they limit
# the time that a decision on 100,000 characters takes.
USER_HEAD = 4000
USER_TAIL = 1500
SYSTEM_HEAD = 600
HISTORY_TAIL = 600


def clip(text: str, head: int = USER_HEAD, tail: int = USER_TAIL) -> str:
    """Keep the first `head` and the last `tail` characters of a longer text."""
    if len(text) <= head + tail:
        return text
    return f"{text[:head]}\n{text[-tail:]}" if tail else text[:head]


def content_text(content: Any) -> str:
    """The text of an OpenAI `content`: a string, a list of parts, or nothing (a tool call)."""
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        return ""
    parts = (part.get("text") if isinstance(part, Mapping) else part for part in content)
    return "\n".join(part for part in parts if isinstance(part, str))


def _last_user(messages: Sequence[Mapping[str, Any]]) -> int:
    """Position of the last user message; without one, of the last message."""
    users = [i for i, message in enumerate(messages) if message.get("role") == "user"]
    return users[-1] if users else len(messages) - 1


def prompt_text(messages: Sequence[Mapping[str, Any]]) -> str:
    """The text that stands for a chat request: the last user message, then system text and history, all clipped.

    A request of one user message gives just that message (clipped), so tables of plain prompts and live chats have the
    same features. Roles are not marked: n-grams of "user" would be noise.
    """
    if not messages:
        return ""
    asked = _last_user(messages)
    texts = [content_text(message.get("content")) for message in messages]
    is_system = [message.get("role") in ("system", "developer") for message in messages]
    system = "\n".join(text for text, is_it in zip(texts, is_system, strict=True) if is_it)
    history = "\n".join(text for i, text in enumerate(texts) if i != asked and not is_system[i])
    parts = [clip(texts[asked]), clip(system, SYSTEM_HEAD, 0), history[-HISTORY_TAIL:]]
    return "\n\n".join(part for part in parts if part)
