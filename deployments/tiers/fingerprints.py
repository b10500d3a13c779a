"""Fingerprints of what a certificate was made for: models and chat templates. Another fingerprint makes it void."""

import hashlib
from pathlib import Path
from typing import Any

from router.config import Config, Tier

SAMPLED = 1 << 20  # bytes hashed at each end of a weight file; reading whole models would take minutes


def ladder_fingerprints(config: Config) -> dict[str, Any]:
    """`models` and `templates` by tier, each a short hash or a name. A few milliseconds, whatever the size of the models."""
    return {
        "models": {tier.name: model(tier) for tier in config.tiers},
        "templates": {tier.name: template(tier) for tier in config.tiers},
    }


def model(tier: Tier) -> str:
    """A hash of a local model's files (sizes and both ends) and of the engine options that change answers; else its id."""
    source = tier.model_source
    options, folder = source.options.encode(), source.folder
    if folder is None:
        return f"{source.id}#{digest(options)}" if options else source.id
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("config.json"), *folder.glob("tokenizer.json")])
    return digest(options, *(part for file in files for part in ends(file)))


def ends(file: Path) -> tuple[bytes, bytes, bytes, bytes]:
    """Name, size, first and last megabyte."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        first = opened.read(SAMPLED)
        opened.seek(max(0, size - SAMPLED))
        return file.name.encode(), str(size).encode(), first, opened.read()


def template(tier: Tier) -> str:
    """The chat template's hash; empty where the template is not on this machine."""
    source = tier.model_source
    if source.chat_template:
        return digest(source.chat_template.encode())
    if (folder := source.folder) is None:
        return ""
    files = [file for name in ("chat_template.jinja", "tokenizer_config.json") if (file := folder / name).is_file()]
    return digest(*(file.read_bytes() for file in files)) if files else ""


def digest(*parts: bytes) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8, "big") + part)
    return whole.hexdigest()[:16]
