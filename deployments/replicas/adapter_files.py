"""Reads the folder of a LoRA adapter and finds what vLLM would refuse, or serve wrongly without a word.

vLLM leaves out tensors whose names fit no module of the base model, and peft's patterns of ranks and scales; its prefix cache
knows an adapter by name alone. So everything is looked at here before, and the name has the digest of the files in it.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from router.distil.variants import variant
from router.errors import BadConfig
from router.shared_tier_settings import SharedTier

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM can reserve room for
SETTINGS = "adapter_config.json"
TENSORS = "adapter_model.safetensors"
READ = (".safetensors", ".json", ".jinja", ".txt", ".model")
UNSAFE = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
MOST_HEADER = 1 << 28  # bytes of a safetensors file's header; more is damage
PART = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<side>[AB])(?:\.\w+)?\.weight")
IGNORED = tuple(
    """
    modules_to_save rank_pattern alpha_pattern use_dora lora_bias trainable_token_indices alora_invocation_tokens
    layer_replication use_qalora use_bdlora
    """.split()
)
"""settings of peft that vLLM refuses or leaves out: with them the adapter would not be the one that was trained"""
Shapes = Mapping[str, Sequence[int]]
"""tensor -> shape"""


@dataclass(frozen=True, slots=True)
class Adapter:
    """What the files of an adapter say."""

    name: str
    """by which engines know it: rung and digest"""
    folder: str
    rank: int
    """1 to 512"""


def adapter_of(rung: SharedTier) -> Adapter:
    """The rung's adapter, looked at as far as that needs no engine. Raises BadConfig."""
    try:
        return read(rung.name, Path(rung.lora), rung.model_source.folder)
    except BadConfig as error:
        raise BadConfig(f"tiers.{rung.name}.lora: {error}") from None


def read(rung: str, folder: Path, base: Path | None = None) -> Adapter:
    """base: the folder of the base model, where it is on this machine. Raises BadConfig."""
    settings, tensors = settings_of(folder), folder / TENSORS
    if unsafe := [path.name for path in folder.iterdir() if path.suffix.lower() in UNSAFE]:
        raise BadConfig(f"{folder} holds {unsafe[0]}, which can run code when it is loaded; save the adapter as safetensors")
    if not tensors.is_file():
        raise BadConfig(f"{folder} has no {TENSORS}; save the adapter as peft does by default")
    rank, shapes = rank_of(settings, folder), shapes_of(tensors)
    parts = {name: match for name in shapes if (match := PART.fullmatch(name))}
    if not parts:
        raise BadConfig(f"{tensors} has no tensors of a LoRA adapter (*.lora_A.weight); was the whole model saved?")
    odd = [name for name, match in parts.items() if match["side"] == "A" and shapes[name][0] != rank]
    if odd:
        raise BadConfig(f"{tensors}: {odd[0]} has rank {shapes[odd[0]][0]}, {SETTINGS} says {rank}; save both together")
    if base is not None:
        check_base(folder, parts, shapes, base)
    return Adapter(variant(rung, digest_of(folder)), str(folder), rank)


def settings_of(folder: Path) -> Mapping[str, Any]:
    """adapter_config.json. Raises BadConfig where vLLM could not serve what it describes."""
    file = folder / SETTINGS
    try:
        found = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise BadConfig(f"{file} cannot be read ({error.strerror}); expected a folder as peft writes it") from None
    except ValueError:
        raise BadConfig(f"{file} is not JSON; expected it as peft writes it") from None
    if not isinstance(found, dict) or found.get("peft_type", "LORA") != "LORA":
        kind = found.get("peft_type") if isinstance(found, dict) else type(found).__name__
        raise BadConfig(f"{file}: peft_type is {kind}; only LORA can be served")
    if used := [name for name in IGNORED if found.get(name)]:
        raise BadConfig(
            f"{file}: {used[0]} is {found[used[0]]!r}, which vLLM cannot serve; train without it, or merge the adapter"
        )
    if found.get("bias", "none") != "none":
        raise BadConfig(f"{file}: bias is {found['bias']!r}, which vLLM cannot serve; train with bias none, or merge the adapter")
    return found


def rank_of(settings: Mapping[str, Any], folder: Path) -> int:
    """Raises BadConfig."""
    rank = settings.get("r")
    if not isinstance(rank, int) or isinstance(rank, bool) or not 1 <= rank <= RANKS[-1]:
        raise BadConfig(f"{folder / SETTINGS}: r is {rank!r}; expected a rank from 1 to {RANKS[-1]}")
    return rank


def room_for(ranks: Iterable[int]) -> int:
    """The least of RANKS that holds all of them."""
    most = max(ranks)
    return next(rank for rank in RANKS if rank >= most)


def shapes_of(file: Path) -> Shapes:
    """Of the tensors of a safetensors file, from its header. Raises BadConfig."""
    try:
        with file.open("rb") as opened:
            size = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(min(size, MOST_HEADER)))
        return {name: part["shape"] for name, part in header.items() if name != "__metadata__"}
    except OSError as error:
        raise BadConfig(f"{file} cannot be read ({error.strerror})") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise BadConfig(f"{file} is no safetensors file, or is damaged; copy it again") from None


def check_base(folder: Path, parts: Mapping[str, "re.Match[str]"], shapes: Shapes, base: Path) -> None:
    """Find an adapter that was made for another model. Raises BadConfig.

    Modules whose weights the base keeps in another form, such as packed ones, are not compared.
    """
    weights = {name: shape for file in sorted(base.glob("*.safetensors")) for name, shape in shapes_of(file).items()}
    if not weights:
        return
    known = {name.rpartition(".")[0] for name in weights}
    found = {match["module"] for match in parts.values()}
    if not found & known:
        raise BadConfig(
            f"{folder} changes {sorted(found)[0]}, which the base model in {base} does not have, as none of its modules; "
            f"was it trained on that model? its modules are named as {sorted(known)[-1]}"
        )
    for name, match in parts.items():
        weight = weights.get(match["module"] + ".weight")
        side = 1 if match["side"] == "A" else 0  # of the weight (out, in): A is (rank, in), B is (out, rank)
        if weight is not None and len(weight) == 2 and shapes[name][side] != weight[side]:
            raise BadConfig(
                f"{folder}: {name} fits a size of {shapes[name][side]}, the base model in {base} has {weight[side]}; "
                "it was trained on another model"
            )


def digest_of(folder: Path) -> str:
    """64 hexadecimal digits over names and contents, the same as that of the store of learned weights. Raises BadConfig."""
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
        made = {path.name: hash_of(path) for path in files if path.suffix.lower() in READ}
    except OSError as error:
        raise BadConfig(f"{folder} cannot be read ({error.strerror})") from None
    return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()


def hash_of(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def engine_options(adapters: Sequence[Adapter], on_cpu: bool = False) -> dict[str, Any]:
    """The options of vLLM that these adapters need on their host. One place more lets a successor be loaded under load."""
    if not adapters:
        return {}
    ranks = room_for(adapter.rank for adapter in adapters)
    return {"enable_lora": True, "max_loras": len(adapters) + 1 + empty(on_cpu), "max_lora_rank": ranks}


def empty(on_cpu: bool) -> int:
    """Places that must stay empty. On CPUs vLLM (0.29; pull request 48421) answers a request for the base, where it works on it
    together with one for an adapter, by whatever is in the last place.
    """
    return 1 if on_cpu else 0


def places(options: Mapping[str, Any], on_cpu: bool) -> int | None:
    """How many adapters the engine may have at once. None: any number, for it loads again what it had to drop."""
    return int(options.get("max_loras", 1)) - empty(on_cpu) if on_cpu else None


def check_host(host: str, given: Mapping[str, Any], adapters: Sequence[Adapter], on_cpu: bool = False) -> None:
    """Find engine options of the host that contradict its adapters. given: its `engine_kwargs`. Raises BadConfig."""
    if given.get("enable_lora") is False:
        raise BadConfig(f"tiers.{host}.engine_kwargs.enable_lora is false, but {adapters[0].name} is on it; remove the option")
    places = len(adapters) + empty(on_cpu) if on_cpu else 1
    least = {"max_lora_rank": max(adapter.rank for adapter in adapters), "max_loras": places, "max_cpu_loras": len(adapters)}
    for option, needed in least.items():
        if isinstance(found := given.get(option), int) and found < needed:
            raise BadConfig(
                f"tiers.{host}.engine_kwargs.{option}: found {found}, but its adapters need {needed}; remove the option"
            )
