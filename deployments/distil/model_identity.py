"""By what two models are known to speak alike: tokenizer, chat template and size of the vocabulary, read from files alone."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from router.errors import BadInput


@dataclass(frozen=True, slots=True)
class Identity:
    """Empty and 0 where it is not known, as of a model that is not on this machine."""

    template_sha256: str = ""
    """of the chat template's text"""
    tokenizer_sha256: str = ""
    """of tokenizer.json"""
    vocab_size: int = 0
    """rows of the embeddings, padding included"""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def identity_of(folder: Path | None) -> Identity:
    """None: the model is elsewhere. Raises BadInput."""
    if folder is None:
        return Identity()
    return Identity(
        template_sha256(folder), tokenizer_sha256(folder), int(json_of(folder / "config.json").get("vocab_size") or 0)
    )


def template_sha256(folder: Path) -> str:
    file = folder / "chat_template.jinja"
    try:
        text = file.read_text("utf-8") if file.is_file() else json_of(folder / "tokenizer_config.json").get("chat_template")
    except (OSError, UnicodeDecodeError):
        raise BadInput(f"{file}: cannot be read; expected the chat template's text") from None
    return hashlib.sha256(text.encode()).hexdigest() if isinstance(text, str) and text else ""


def tokenizer_sha256(folder: Path) -> str:
    try:
        return hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest()
    except OSError:
        return ""


def json_of(file: Path) -> Mapping[str, Any]:
    """A JSON object; empty where there is no such file. Raises BadInput."""
    try:
        found = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    except (OSError, ValueError) as error:
        raise BadInput(f"{file}: is no JSON ({error}); expected what transformers writes") from None
    return found if isinstance(found, dict) else {}


def check_same(own: Identity, other: Identity, folder: Path, tier: str) -> None:
    """Refuse a model that does not speak as the tier's. Raises BadInput, which says what differs."""
    differs = {
        "its tokenizer.json": (own.tokenizer_sha256, other.tokenizer_sha256),
        "its chat template": (own.template_sha256, other.template_sha256),
        "its vocab_size": (own.vocab_size, other.vocab_size),
    }
    for what, (here, there) in differs.items():
        if here and there != here:
            shown = f"{str(there)[:12] or 'missing'}, {tier} has {str(here)[:12]}"
            raise BadInput(f"{folder}: {what} is {shown}; only a model that was trained from {tier}'s own can take its place")
