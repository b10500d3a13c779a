"""Models and tokenizers in folders: only safe files are read, and nothing of a folder is ever run."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from router.distil.recipe import ModelSize
from router.errors import BadInput

READ = (".safetensors", ".json", ".jinja", ".txt", ".model")
"""endings of the files that make a model; others in the folder, as a card, are no part of it"""
UNSAFE = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".h5", ".msgpack", ".py")
"""endings of files that can run code when they are loaded"""
LAST = ("lm_head", "embed_out")  # names of the layer that makes logits, which has no adapter


def files_of(folder: Path) -> list[Path]:
    """The files that make the model, sorted. Raises BadInput for what is no model, or not a safe one."""
    try:
        found = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    except OSError as error:
        raise BadInput(f"{folder}: cannot be read ({error.strerror}); expected the folder of a model") from None
    if unsafe := [path.name for path in found if path.suffix.lower() in UNSAFE]:
        raise BadInput(f"{folder}: holds {unsafe[0]}, which can run code when it is loaded; convert the model to safetensors")
    if not any(path.suffix == ".safetensors" for path in found) or not (folder / "config.json").is_file():
        raise BadInput(
            f"{folder}: holds no .safetensors with a config.json; expected the folder of a model, as transformers writes it"
        )
    return [path for path in found if path.suffix.lower() in READ]


def digest_of(folder: Path) -> str:
    """64 hexadecimal digits over names and contents of the files that make the model. Raises BadInput."""
    made = {file.name: sha256(file) for file in files_of(folder)}
    return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()


def sha256(file: Path) -> str:
    """64 hexadecimal digits of a file's content; empty where there is none."""
    if not file.is_file():
        return ""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def config_of(folder: Path) -> Any:
    """The model's configuration, as transformers has it. Raises BadInput."""
    from transformers import AutoConfig

    files_of(folder)
    plain = json_of(folder / "config.json")
    if "auto_map" in plain:
        raise BadInput(f"{folder}: needs code of its own (auto_map in config.json), which is never run; choose another model")
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (ValueError, OSError, KeyError) as error:
        raise BadInput(f"{folder}: transformers knows no such model ({one_line(error)})") from None


def load_model(folder: Path, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Any:
    """The model, ready to answer. Raises BadInput."""
    from transformers import AutoModelForCausalLM

    config = config_of(folder)
    quiet()
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, config=config, dtype=dtype, use_safetensors=True, local_files_only=True, trust_remote_code=False
        )
    except (ValueError, OSError, KeyError, RuntimeError, SafetensorError) as error:
        raise BadInput(f"{folder}: cannot be loaded as a language model ({one_line(error)})") from None
    return model.to(device).eval()


def quiet() -> None:
    """Without transformers' own progress bars, which would stand among the lines of a command."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers' function has no annotations


def stored_dtype(folder: Path) -> torch.dtype:
    """That of the weights in the folder, by its configuration; float32 where it says nothing."""
    plain = json_of(folder / "config.json")
    found = getattr(torch, str(plain.get("dtype") or plain.get("torch_dtype") or "float32"), None)
    return found if isinstance(found, torch.dtype) else torch.float32


def load_tokenizer(folder: Path) -> Any:
    """Its tokenizer with a chat template. Raises BadInput."""
    from transformers import AutoTokenizer

    files_of(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (ValueError, OSError, KeyError) as error:
        raise BadInput(f"{folder}: its tokenizer cannot be loaded ({one_line(error)})") from None
    if not tokenizer.chat_template:
        raise BadInput(f"{folder}: has no chat template; expected chat_template.jinja, as the tier that serves the model has it")
    largest = max(tokenizer.get_vocab().values())
    if largest >= (rows := int(config_of(folder).vocab_size)):
        raise BadInput(
            f"{folder}: its tokenizer has ids up to {largest}, the model {rows} rows of embeddings; they are of two models"
        )
    return tokenizer


def size_of(folder: Path) -> ModelSize:
    """Found without reading the weights. Raises BadInput."""
    from transformers import AutoModelForCausalLM

    config = config_of(folder)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)  # type: ignore[no-untyped-call]  # as above
    linear = [module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear) and not name.endswith(LAST)]
    return ModelSize(
        parameters=sum(p.numel() for p in model.parameters()),
        hidden=int(config.hidden_size),
        layers=int(config.num_hidden_layers),
        vocabulary=int(config.vocab_size),
        context=int(getattr(config, "max_position_embeddings", 0) or 1 << 30),
        linear=sum(module.in_features + module.out_features for module in linear),
    )


def ends_of(folder: Path, tokenizer: Any) -> tuple[int, ...]:
    """Ids of the tokens that end an answer when the model is served, the usual one first. Raises BadInput where there is none."""
    said = json_of(folder / "generation_config.json").get("eos_token_id") or json_of(folder / "config.json").get("eos_token_id")
    listed = said if isinstance(said, list) else [said]
    found = dict.fromkeys(token for token in (tokenizer.eos_token_id, *listed) if isinstance(token, int))
    if not found:
        raise BadInput(f"{folder}: neither tokenizer nor generation_config.json names a token that ends answers (eos_token_id)")
    return tuple(found)


def template_sha256(tokenizer: Any) -> str:
    """Of the chat template's text."""
    return hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest()


def vocabulary_sha256(tokenizer: Any) -> str:
    """Of all tokens and their ids: two tokenizers with the same one give the same meaning to an id."""
    return hashlib.sha256(json.dumps(tokenizer.get_vocab(), sort_keys=True).encode()).hexdigest()


def json_of(file: Path) -> Mapping[str, Any]:
    """A JSON object; empty where there is no such file. Raises BadInput."""
    try:
        found = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    except (OSError, ValueError) as error:
        raise BadInput(f"{file}: no JSON ({one_line(error)})") from None
    if not isinstance(found, dict):
        raise BadInput(f"{file}: holds a {type(found).__name__}, expected an object")
    return found


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
