"""The messages of a conversation as chat messages."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeGuard

from router.protocols.edge import Seals
from router.protocols.messages.content import Part, blocks_of, parts_of, plain, system_text
from router.protocols.messages.fields import Told, as_json, flag, name, text, wrong

ERROR = "error: "
THOUGHTS = ("thinking", "redacted_thinking")


def chat_messages(messages: Sequence[Mapping[str, Any]], seals: Seals, told: Told) -> Iterator[dict[str, Any]]:
    """Raises BadRequest."""
    for i, message in enumerate(messages):
        where, role = f"messages[{i}]", message.get("role")
        if role == "system":
            if said := system_text(message.get("content"), f"{where}.content", told):
                yield {"role": "system", "content": said}
            continue
        blocks = blocks_of(message.get("content"), f"{where}.content")
        if role == "user":
            yield from of_user(blocks, f"{where}.content", told)
        elif role == "assistant":
            yield of_assistant(blocks, f"{where}.content", seals, told)
        else:
            raise wrong(f"{where}.role", "user, assistant or system", role)


# -- the user's ------------------------------------------------------------------------------------------------------------


def of_user(blocks: Sequence[Mapping[str, Any]], where: str, told: Told) -> Iterator[dict[str, Any]]:
    """Results of tools first, then everything else in one message: chats have no other place for it."""
    images: list[Part] = []
    rest: list[Part] = []
    for i, block in enumerate(blocks):
        if block.get("type") == "tool_result":
            result, shown = of_tool(block, f"{where}[{i}]", told)
            images += shown
            yield result
        else:
            rest += parts_of(block, f"{where}[{i}]", told)
    if images or rest:
        yield {"role": "user", "content": plain([*images, *rest])}


def of_tool(block: Mapping[str, Any], where: str, told: Told) -> tuple[dict[str, Any], list[Part]]:
    """A tool's message, and the images of its result, which chats take from users only."""
    told.caching(block)
    content, parts = block.get("content"), []
    for i, inner in enumerate(blocks_of("" if content is None else content, f"{where}.content")):
        parts += parts_of(inner, f"{where}.content[{i}]", told)
    said = "\n".join(part["text"] for part in parts if part["type"] == "text")
    failed = ERROR if flag(block.get("is_error"), f"{where}.is_error") else ""
    call = name(block.get("tool_use_id"), f"{where}.tool_use_id")
    return {"role": "tool", "tool_call_id": call, "content": failed + said}, [p for p in parts if p["type"] != "text"]


# -- the assistant's -------------------------------------------------------------------------------------------------------


def of_assistant(blocks: Sequence[Mapping[str, Any]], where: str, seals: Seals, told: Told) -> dict[str, Any]:
    """One message: its texts are joined as they are, since a stream may have cut one text into several blocks."""
    texts, calls, thoughts = [], [], []
    for i, block in enumerate(blocks):
        told.caching(block)
        kind, at = block.get("type"), f"{where}[{i}]"
        if kind == "text":
            texts.append(text(block.get("text"), f"{at}.text"))
        elif kind == "tool_use":
            calls.append(call_of(block, at))
        elif kind in THOUGHTS:
            thoughts.append(recalled(block, seals))
        else:  # results of a vendor's own tools, which nobody here can continue
            told.add(f"content.{name(kind, f'{at}.type')}")
    return said("".join(texts), calls, [thought for thought in thoughts if thought])


def said(content: str, calls: Sequence[Mapping[str, Any]], thoughts: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """An assistant's chat message. thoughts: pairs of text and tier; only those of the last tier are kept."""
    message: dict[str, Any] = {"role": "assistant", "content": content or (None if calls else "")}
    if thoughts:
        tier = thoughts[-1][1]
        message |= {"reasoning": "".join(thought for thought, by in thoughts if by == tier), "reasoning_tier": tier}
    return message | ({"tool_calls": list(calls)} if calls else {})


def call_of(block: Mapping[str, Any], where: str) -> dict[str, Any]:
    given = block.get("input")
    function = {
        "name": name(block.get("name"), f"{where}.name"),
        "arguments": as_json({} if given is None else given, f"{where}.input"),
    }
    return {"id": name(block.get("id"), f"{where}.id"), "type": "function", "function": function}


def recalled(block: Mapping[str, Any], seals: Seals) -> tuple[str, str] | None:
    """Reasoning that we gave out, and its tier; None: somebody else's, or changed. It is left out then, never refused."""
    if block.get("type") == "redacted_thinking":
        return opened(block.get("data"), seals)
    thought, signature = block.get("thinking"), block.get("signature")
    if not thought:  # it was given out without its text, which is sealed in the signature
        return opened(signature, seals)
    if not encodable(thought) or not encodable(signature):
        return None
    tier = seals.signer(thought, signature)
    return None if tier is None else (thought, tier)


def opened(token: Any, seals: Seals) -> tuple[str, str] | None:
    return seals.unsealed(token) if encodable(token) else None


def encodable(value: Any) -> TypeGuard[str]:
    """A text that is not empty and has no half characters."""
    if not isinstance(value, str) or not value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
