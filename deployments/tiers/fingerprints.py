"""What a certificate was made for: models, chat templates, sampling. Another fingerprint, and its promise is void."""

import hashlib
import json
from pathlib import Path
from typing import Any

from router.config import Config, RemoteTier, Tier, VllmTier

SAMPLED = 1 << 20  # bytes at each end of a weight file that are hashed; whole models take minutes to read
ENGINE = ("dtype", "quantization", "revision", "tokenizer", "logprobs_mode")  # settings of vLLM that change answers


def of(config: Config) -> dict[str, Any]:
    """`models` and `templates` by tier, each a short hash or name. A few milliseconds, whatever the models' size."""
    return {
        "models": {tier.name: model(tier) for tier in config.tiers},
        "templates": {tier.name: template(tier) for tier in config.tiers},
    }


def model(tier: Tier) -> str:
    """A local model's files by size and both ends, with what of the engine's settings changes answers; else its name."""
    if isinstance(tier, RemoteTier):
        return f"{tier.url}#{tier.model}"
    if not isinstance(tier, VllmTier):
        return str(getattr(tier, "engine", "unknown"))
    settings = json.dumps({k: tier.engine_kwargs[k] for k in ENGINE if k in tier.engine_kwargs}, sort_keys=True)
    folder = Path(tier.source)
    if not folder.is_dir():
        return f"{tier.source}#{digest(settings.encode())}"
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("config.json"), *folder.glob("tokenizer.json")])
    return digest(settings.encode(), *(part for file in files for part in ends(file)))


def ends(file: Path) -> tuple[bytes, bytes, bytes, bytes]:
    """Name, size, first and last megabyte."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        first = opened.read(SAMPLED)
        opened.seek(max(0, size - SAMPLED))
        return file.name.encode(), str(size).encode(), first, opened.read()


def template(tier: Tier) -> str:
    """The chat template's hash; empty where it is not here."""
    given = getattr(tier, "engine_kwargs", {}).get("chat_template")
    if given:
        return digest(str(given).encode())
    folder = Path(getattr(tier, "source", ""))
    files = [folder / name for name in ("chat_template.jinja", "tokenizer_config.json") if (folder / name).is_file()]
    return digest(*(file.read_bytes() for file in files)) if files else ""


def digest(*parts: bytes) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8, "big") + part)
    return whole.hexdigest()[:16]
