"""A model's config.json and the sizes of its weights: in a folder, in the hub's local cache, or online.

Online only what is needed is read: config.json, and of the weights the headers of safetensors, a few kilobytes each.
"""

import json
import os
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from router.errors import UnknownShape
from router.fit.families import Family, Known, Model
from router.fit.read_config import precision, shape_of
from router.fit.shape import Checkpoint

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
MOST_HEADER = 100_000_000
"""bytes; safetensors allows no longer ones"""
TIMEOUT_S = 30.0
NOT_TEXT = (
    "visual.",
    "vision_tower.",
    "vision_model.",
    "multi_modal_projector.",
    "embed_vision.",
    "embed_audio.",
    "audio_tower.",
    "mtp.",
)
"""in the names of tensors that a text model does not load"""
ReadJson = Callable[[str], Mapping[str, Any]]
ReadHeader = Callable[[str], Mapping[str, Any]]


@dataclass(frozen=True)
class Files:
    """Where a model's files are."""

    name: str
    """the model, for errors"""
    json: ReadJson
    """reads a JSON file. Raises FileNotFoundError"""
    header: ReadHeader
    """reads the header of a file of weights. Raises FileNotFoundError"""


def model_of(given: str, known: Known, online: bool) -> Model:
    """The model that a hub id or a folder names. Raises UnknownShape."""
    if (folder := Path(given).expanduser()).is_dir():
        return read_model(given, in_folder(given, folder), known)
    if (cached := cached_folder(given)) is not None:
        return read_model(given, in_folder(given, cached), known)
    if (shipped := known.named(given)) is not None:
        return shipped
    if online:
        return read_model(given, on_hub(given), known)
    raise UnknownShape(
        f"{given}: neither a folder, nor in the hub's cache, nor among the families that are known; give a folder with its "
        "config.json, or read it from the hub with --online"
    )


def read_model(given: str, files: Files, known: Known) -> Model:
    """A model from its files; the family is that of a known model of the same shape and kind of name, else nothing is known."""
    try:
        config = files.json("config.json")
    except FileNotFoundError:
        raise UnknownShape(f"{given}: has no config.json; expected a model in the format of transformers") from None
    shape = shape_of(config, given)
    weights, left = precision(config, given)
    checkpoint = Checkpoint(given, weights, left, weight_bytes(files))
    like = known.named(given)
    family = like.family if like else Family("unknown", {"id": "unknown"})
    return Model(Path(given).name, family, shape, (checkpoint,))


def cached_folder(given: str) -> Path | None:
    """The newest snapshot of a hub id in the local cache that has a config.json."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    snapshots = cache / f"models--{given.replace('/', '--')}" / "snapshots"
    found = [path for path in snapshots.glob("*/config.json")] if snapshots.is_dir() else []
    return max(found, key=lambda path: path.stat().st_mtime).parent if found else None


def in_folder(given: str, folder: Path) -> Files:
    """Files on this machine."""

    def read_json(name: str) -> Mapping[str, Any]:
        if not (folder / name).is_file():
            raise FileNotFoundError(name)
        return parsed(given, name, (folder / name).read_bytes())

    def read_header(name: str) -> Mapping[str, Any]:
        if not (folder / name).is_file():
            raise FileNotFoundError(name)
        with (folder / name).open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))
            return parsed(given, name, file.read(min(size, MOST_HEADER)))

    return Files(given, read_json, read_header)


def on_hub(given: str) -> Files:
    """Files of a hub id, read over HTTP in small parts."""
    base = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    token = os.environ.get("HF_TOKEN")
    headers = {"authorization": f"Bearer {token}"} if token else {}

    def part(name: str, first: int | None = None, last: int | None = None) -> bytes:
        wanted = {**headers, "range": f"bytes={first}-{last}"} if first is not None else headers
        try:
            with httpx.stream(
                "GET", f"{base}/{given}/resolve/main/{name}", headers=wanted, timeout=TIMEOUT_S, follow_redirects=True
            ) as answer:
                if answer.status_code == 404:
                    raise FileNotFoundError(name)
                if answer.status_code not in (200, 206) or (first is not None and answer.status_code != 206):
                    raise UnknownShape(f"{given}: {base} answers {answer.status_code} for {name}; expected the file")
                return limited(given, name, answer.iter_bytes())
        except httpx.HTTPError as error:
            raise UnknownShape(
                f"{given}: {base} cannot be read ({error or type(error).__name__}); give a folder instead"
            ) from None

    def read_header(name: str) -> Mapping[str, Any]:
        (size,) = struct.unpack("<Q", part(name, 0, 7).ljust(8, b"\0")[:8])
        return parsed(given, name, part(name, 8, 7 + min(size, MOST_HEADER)))

    return Files(given, lambda name: parsed(given, name, part(name)), read_header)


def limited(given: str, name: str, pieces: Iterable[bytes]) -> bytes:
    """All pieces. Raises UnknownShape where they are too many."""
    found = bytearray()
    for piece in pieces:
        found += piece
        if len(found) > MOST_HEADER:
            raise UnknownShape(f"{given}: {name} has more than {MOST_HEADER:,} bytes; expected a small file")
    return bytes(found)


def parsed(given: str, name: str, text: bytes) -> Mapping[str, Any]:
    """A JSON object. Raises UnknownShape."""
    try:
        found = json.loads(text)
    except ValueError:
        raise UnknownShape(f"{given}: {name} is not JSON") from None
    if not isinstance(found, dict):
        raise UnknownShape(f"{given}: {name} holds no JSON object")
    return found


def weight_bytes(files: Files) -> int | None:
    """Bytes of the language model's weights, as the headers of their files say; None: there are none, or not all."""
    try:
        names = sorted(set(files.json(INDEX)["weight_map"].values()))
    except (FileNotFoundError, KeyError, AttributeError):
        names = [SINGLE]
    try:
        return sum(tensor_bytes(files.header(name)) for name in names) or None
    except FileNotFoundError:
        return None


def tensor_bytes(header: Mapping[str, Any]) -> int:
    """Bytes of the tensors that a text model loads."""
    return sum(
        int(tensor["data_offsets"][1]) - int(tensor["data_offsets"][0])
        for name, tensor in header.items()
        if name != "__metadata__" and not any(part in name for part in NOT_TEXT)
    )
