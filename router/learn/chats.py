"""What a row of a file asks: OpenAI's messages, from `messages`, `prompt`, or ShareGPT's `conversations`."""

import json
from collections.abc import Mapping
from typing import Any

from router.errors import BadInput

Row = dict[str, Any]
CHATS = ("messages", "prompt", "conversations")
"""columns that may hold what was asked; the first that is not null counts"""
ROLES = ("system", "developer", "user", "assistant", "tool", "function")
SPEAKERS = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
    "function_call": "assistant",
}
"""ShareGPT's `from` -> OpenAI's `role`"""


def chat_of(row: Mapping[str, Any]) -> list[Row]:
    """The messages of a row, in OpenAI's form. Raises BadInput, whose message says what was found."""
    name = next((name for name in CHATS if row.get(name) is not None), None)
    if name is None:
        others = ", ".join(str(key) for key in row)
        raise BadInput(f"no `messages` or `prompt`; found {others:.120}")
    found = row[name]
    if isinstance(found, str) and name == "prompt":
        return [{"role": "user", "content": found}]
    if isinstance(found, str):  # a cell of CSV
        found = _from_cell(found)
    if not isinstance(found, list) or not all(isinstance(message, dict) for message in found):
        raise BadInput(f"{name} is {row[name]!r:.60}, expected a text or a list of messages")
    if not found:
        raise BadInput(f"{name} is an empty list, expected at least one message")
    return [_message(message, f"{name}[{i}]") for i, message in enumerate(found)]


def _from_cell(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _message(message: Row, where: str) -> Row:
    """OpenAI's message; ShareGPT's `from` and `value` are translated."""
    if "role" not in message and "from" in message:
        return _spoken(message, where)
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise BadInput(
            f"{where} has role {role!r:.40} and the fields {', '.join(message):.80}; expected one of {', '.join(ROLES)}"
        )
    called = message.get("tool_calls") or message.get("function_call")
    if content is None and not called and "content" not in message:
        raise BadInput(f"{where} has no content; found the fields {', '.join(message):.80}")
    if content is not None and not isinstance(content, str) and not _is_parts(content):
        raise BadInput(f"{where}.content is {content!r:.60}, expected a text or a list of parts")
    return message


def _is_parts(content: Any) -> bool:
    return isinstance(content, list) and all(isinstance(part, str) or _is_part(part) for part in content)


def _is_part(part: Any) -> bool:
    """A text part must hold a text, or the classifier would see nothing of it."""
    if not isinstance(part, dict):
        return False
    kind = part.get("type")
    return isinstance(part.get("text"), str) or (isinstance(kind, str) and kind != "text")


def _spoken(message: Row, where: str) -> Row:
    role, text = SPEAKERS.get(str(message["from"]).lower()), message.get("value")
    if role is None:
        raise BadInput(f"{where} is from {message['from']!r:.40}; expected one of {', '.join(SPEAKERS)}")
    if not isinstance(text, str):
        raise BadInput(f"{where}.value is {text!r:.60}, expected a text")
    return {"role": role, "content": text}


def is_whole(value: Any) -> bool:
    """Whether all texts in a JSON value can be written in UTF-8: half of a character (a lone surrogate) cannot."""
    try:
        json.dumps(value, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        return False
    return True


def whole(text: str) -> str:
    """The text with U+FFFD for each half of a character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
