"""Fingerprints of what a certificate was made for: models, chat templates, engine versions. Another one makes it void.

A local model's fingerprint covers every byte of its files and every engine option that is not known to be neutral
(engine_options.py); where an option names a file or a folder, its content counts, not its place. A rung's covers its host's and
the files of its adapter. What is elsewhere is known by its name alone: a hub id with the revision that the options give, a remote
tier's address and model. A provider that changes the model behind a name cannot be seen; audits are for that.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from deployments.tiers import engine_options
from deployments.tiers.file_hashes import hashes
from router.config import Config, Tier
from router.engine_settings import ModelSource, Served

FORM = 2  # of fingerprints; those before it had no number
TEMPLATE = "chat_template.jinja"
TEMPLATE_FILES = (TEMPLATE, "tokenizer_config.json")
UNREAD_SUFFIXES = {".md", ".png", ".jpg", ".jpeg", ".gif", ".svg", ".pdf", ".lock"}
UNREAD_NAMES = ("LICENSE", "NOTICE", "README", "USE_POLICY")
SAMPLED = 1 << 20  # bytes at each end of a weight file that the form before FORM looked at
LONGEST_PATH = 4096


def ladder_fingerprints(config: Config) -> dict[str, Any]:
    """`form`, `models`, `templates` and `engines` by tier, each a short hash or a name; `before`: in the form before FORM.

    Reads every byte of the models' files where their hashes are not remembered, which takes seconds for each gigabyte.
    """
    versions = {tier.name: found for tier in config.tiers if tier.local and (found := version_of(tier.engine))}
    return {
        "form": FORM,
        "models": {tier.name: model(tier) for tier in config.tiers},
        "templates": {tier.name: template(tier) for tier in config.tiers},
        **({"engines": versions} if versions else {}),
        "before": {
            "models": {tier.name: model_before(tier) for tier in config.tiers},
            "templates": {tier.name: template_before(tier) for tier in config.tiers},
        },
    }


def service_fingerprints(config: Config) -> dict[str, str]:
    """service -> fingerprint of its model, for the ledger. No certificate knows of them."""
    return {service.name: model(service) for service in config.services}


def to_record(prints: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a ladder's fingerprints that a certificate keeps."""
    return {name: value for name, value in prints.items() if name != "before"}


def model(tier: Served) -> str:
    """A hash of the engine's options that change answers, and of a local model's files; where there are none, its id."""
    source = tier.model_source
    adapter = source.adapter
    return with_adapter(without_adapter(source), adapter) if adapter else without_adapter(source)


def with_adapter(base: str, adapter: Path) -> str:
    """base: the fingerprint of the model that it is put on."""
    return digest(base.encode(), content(adapter).encode())


def without_adapter(source: ModelSource) -> str:
    asked, env = engine_options.of_answers(source.settings), engine_options.of_answers_env(source.env)
    given = {"options": by_content(asked), "env": env}
    options = json.dumps(given, sort_keys=True, default=str).encode() if asked or env else b""
    if source.folder is None:
        return f"{source.id}#{digest(options)}" if options else source.id
    return digest(options, content(source.folder).encode())


def by_content(value: Any) -> Any:
    """An option's value in which the names of local files and folders are replaced by hashes of their content."""
    if isinstance(value, Mapping):
        return {str(key): by_content(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [by_content(part) for part in value]
    place = local(value) if isinstance(value, str) else None
    return value if place is None else f"content:{content(place)}"


def local(text: str) -> Path | None:
    """The file or folder of that name on this machine."""
    if not text.strip() or "\n" in text or len(text) > LONGEST_PATH or not ("/" in text or "." in text):
        return None
    try:
        return Path(text) if Path(text).exists() else None
    except (OSError, ValueError):
        return None


def content(place: Path) -> str:
    """A hash of a file, or of all files in a folder that an engine may read, with their names."""
    if place.is_file():
        return hashes([place])[0]
    files = sorted(file for file in place.rglob("*") if file.is_file() and is_read(file.relative_to(place)))
    names = [file.relative_to(place).as_posix().encode() for file in files]
    return digest(*(part for name, made in zip(names, hashes(files), strict=True) for part in (name, made.encode())))


def is_read(file: Path) -> bool:
    """Whether an engine may read a file of a model's folder. The chat template has a fingerprint of its own."""
    hidden = any(part.startswith(".") for part in file.parts)
    for_people = file.suffix.lower() in UNREAD_SUFFIXES or file.name.upper().startswith(UNREAD_NAMES)
    return not hidden and not for_people and file.as_posix() != TEMPLATE


def template(tier: Tier) -> str:
    """The chat template's hash; empty where the template is not on this machine."""
    given = tier.model_source.chat_template
    place = local(given) if given else None
    return digest(place.read_bytes()) if place and place.is_file() else template_before(tier)


@cache
def version_of(engine: str) -> str:
    """The installed version of an engine's package; empty where it is not on this machine."""
    for name in (engine, f"{engine}-cpu"):
        with suppress(metadata.PackageNotFoundError):
            return f"{engine} {metadata.version(name)}"
    return ""


def digest(*parts: bytes) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8, "big") + part)
    return whole.hexdigest()[:16]


# -- the form before: for certificates that were made in it ---------------------------------------------------------------------


def model_before(tier: Tier) -> str:
    """Sizes and both ends of a local model's files, and five engine options; else its id."""
    source = tier.model_source
    options, folder = source.options.encode(), source.folder
    if source.adapter:  # that form knew none, so there is no certificate to keep valid
        return model(tier)
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


def template_before(tier: Tier) -> str:
    """The chat template's hash, of a file's name where the settings name a file; empty where it is not on this machine."""
    source = tier.model_source
    if source.chat_template:
        return digest(source.chat_template.encode())
    if (folder := source.folder) is None:
        return ""
    files = [file for name in TEMPLATE_FILES if (file := folder / name).is_file()]
    return digest(*(file.read_bytes() for file in files)) if files else ""
