"""The content of messages and of tools' results, as a chat has it."""

from collections.abc import Mapping, Sequence
from typing import Any

from router.errors import BadRequest
from router.protocols.responses import fields

TEXTS = {"input_text": "text", "output_text": "text", "text": "text", "summary_text": "text", "refusal": "refusal"}
"""type of a part -> its field"""
DETAILS = ("auto", "low", "high")
KNOWN = "input_text, output_text, refusal, input_image, input_file, input_audio"


def content_of(given: Any, where: str) -> list[dict[str, Any]]:
    """A chat's parts of a content: a text, or a list of parts. Raises BadRequest."""
    if isinstance(given, str):
        return [{"type": "text", "text": given}]
    if not isinstance(given, list | None):
        raise fields.wrong(where, "a text or a list of parts", given)
    return [part_of(part, f"{where}[{i}]") for i, part in enumerate(given or ())]


def part_of(given: Any, where: str) -> dict[str, Any]:
    part = fields.fields(given, where)
    kind = fields.name(part.get("type"), f"{where}.type")
    if kind in TEXTS:
        return {"type": "text", "text": fields.text(part.get(TEXTS[kind]), f"{where}.{TEXTS[kind]}")}
    if kind in ("input_image", "image_url"):
        return image(part, where)
    if kind == "input_file":
        return file(part, where)
    if kind == "input_audio":
        return {"type": "input_audio", "input_audio": dict(fields.fields(part.get("input_audio"), f"{where}.input_audio"))}
    if isinstance(part.get("text"), str):  # of a type that came later: what it says still counts
        return {"type": "text", "text": part["text"]}
    raise BadRequest(f"`{where}.type`: {kind[:60]!r} is not read here; send one of {KNOWN}", f"{where}.type")


def image(part: Mapping[str, Any], where: str) -> dict[str, Any]:
    given = part.get("image_url")
    if given is None and part.get("file_id") is not None:
        raise no_files(f"{where}.file_id", "`image_url`, which may be a data: URL")
    given = given.get("url") if isinstance(given, dict) else given
    detail = {"detail": part["detail"]} if part.get("detail") in DETAILS else {}
    return {"type": "image_url", "image_url": {"url": fields.name(given, f"{where}.image_url"), **detail}}


def file(part: Mapping[str, Any], where: str) -> dict[str, Any]:
    unread = next((name for name in ("file_id", "file_url") if part.get(name) is not None), "")
    if unread and part.get("file_data") is None:
        raise no_files(f"{where}.{unread}", "the file itself as `file_data`")
    data = {"file_data": fields.name(part.get("file_data"), f"{where}.file_data")}
    name = fields.some_text(part.get("filename"), f"{where}.filename")
    return {"type": "file", "file": {**data, **({"filename": name} if name else {})}}


def no_files(where: str, instead: str) -> BadRequest:
    return BadRequest(f"`{where}`: no files are kept or fetched here; send {instead}", where)


def simple(parts: Sequence[Mapping[str, Any]]) -> Any:
    """One text as a text: more templates read that than parts. Else the parts."""
    if not parts:
        return ""
    return parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else list(parts)


def joined(parts: Sequence[Mapping[str, Any]], by: str) -> Any:
    """All text as one; the parts where there is more than text."""
    return by.join(part["text"] for part in parts) if all(part["type"] == "text" for part in parts) else list(parts)
