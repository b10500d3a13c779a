"""Content blocks of a user, of a tool's result or of the system prompt, as parts of a chat message."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from router.errors import BadRequest
from router.protocols.messages.fields import Told, mapping, name, objects, text, wrong

BILLING = "x-anthropic-billing-header"
"""begins a system block of Claude Code that changes with each request: no prefix would be found in a tier's cache"""

Part = dict[str, Any]


def blocks_of(content: Any, where: str) -> list[dict[str, Any]]:
    """A text is one text block. Raises BadRequest."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise wrong(where, "a text or a list of blocks", content)
    return objects(content, where)


def system_text(content: Any, where: str, told: Told) -> str:
    """Text blocks joined by blank lines, without the billing header. Raises BadRequest."""
    said = []
    for i, block in enumerate(blocks_of(content, where)):
        told.caching(block)
        if block.get("type") != "text":
            raise wrong(f"{where}[{i}].type", "text, the only type of a system block", block.get("type"))
        said.append(text(block.get("text"), f"{where}[{i}].text"))
    return "\n\n".join(block for block in said if block and not block.startswith(BILLING))


def parts_of(block: Mapping[str, Any], where: str, told: Told) -> list[Part]:
    """The parts of one block; none for a type that has no place in a chat, which is told. Raises BadRequest."""
    told.caching(block)
    kind = block.get("type")
    if kind == "text":
        return [text_part(text(block.get("text"), f"{where}.text"))]
    if kind == "image":
        return [image_part(block, where)]
    if kind == "document":
        return list(document_parts(block, where, told))
    if kind == "search_result":
        found = [text(b.get("text"), f"{where}.content") for b in objects(block.get("content"), f"{where}.content")]
        return [text_part(joined([block.get("title"), block.get("source"), *found]))]
    if kind == "tool_reference":  # the tools that a client defers are offered from the begin
        return [text_part(f"available tool: {name(block.get('tool_name'), f'{where}.tool_name')}")]
    told.add(f"content.{name(kind, f'{where}.type')}")
    return []


def text_part(said: str) -> Part:
    return {"type": "text", "text": said}


def image_part(block: Mapping[str, Any], where: str) -> Part:
    source = mapping(block.get("source"), f"{where}.source")
    kind = source.get("type")
    if kind == "base64":
        media = name(source.get("media_type"), f"{where}.source.media_type")
        url = f"data:{media};base64,{name(source.get('data'), f'{where}.source.data')}"
    elif kind == "url":
        url = name(source.get("url"), f"{where}.source.url")
    else:
        raise wrong(f"{where}.source.type", "base64 or url: files are not kept here", kind)
    return {"type": "image_url", "image_url": {"url": url}}


def document_parts(block: Mapping[str, Any], where: str, told: Told) -> Iterator[Part]:
    """Text only: no tier reads PDF."""
    source = mapping(block.get("source"), f"{where}.source")
    head = joined([block.get("title"), block.get("context")])
    if source.get("type") == "text":
        yield text_part(joined([head, text(source.get("data"), f"{where}.source.data")]))
        return
    if source.get("type") != "content":
        raise BadRequest(
            f"`{where}`: documents are read as text only, found a source of type {str(source.get('type'))[:40]!a}; "
            "send the document's text as a source of type text, or its pages as images",
            where,
        )
    if head:
        yield text_part(head)
    inner = f"{where}.source.content"
    for i, part in enumerate(blocks_of(source.get("content"), inner)):
        if part.get("type") not in ("text", "image"):  # a document within a document could nest without end
            raise wrong(f"{inner}[{i}].type", "text or image", part.get("type"))
        yield from parts_of(part, f"{inner}[{i}]", told)


def joined(texts: Sequence[Any]) -> str:
    """What is a text and not empty, with blank lines between."""
    return "\n\n".join(said for said in texts if isinstance(said, str) and said)


def plain(parts: list[Part]) -> str | list[Part]:
    """One text stands for itself, as most chat clients send it."""
    return str(parts[0]["text"]) if len(parts) == 1 and parts[0]["type"] == "text" else parts
