"""LoRA adapters of all linear layers, by peft: made, stored in its format, and merged into whole weights."""

import json
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from classifiers.files import atomic_write
from deployments.distil.base_models import LAST, UNSAFE, files_of, json_of, load_model, stored_dtype
from router.distil.recipe import RANKS, Recipe
from router.errors import BadInput

WEIGHTS = "adapter_model.safetensors"
SETTINGS = "adapter_config.json"


def check_installed() -> None:
    """Raises BadInput where the extra is missing."""
    if find_spec("peft") is None:
        raise BadInput(
            "training LoRA adapters needs the extra stepdown[distil]: pip install 'peft>=0.21,<0.22'; or give --no-lora"
        )


def with_adapters(model: Any, recipe: Recipe) -> Any:
    """The model with fresh adapters, which alone are trained. They add nothing yet. The recipe has a rank."""
    check_installed()
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(recipe.seed)
    settings = LoraConfig(
        r=recipe.rank or RANKS[0],
        lora_alpha=recipe.alpha,
        target_modules=linear_names(model),
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )
    with without_warnings():
        return get_peft_model(model, settings)


@contextmanager
def without_warnings() -> Iterator[None]:
    """peft uses a name that transformers will drop."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def linear_names(model: Any) -> list[str] | str:
    """Names of the linear layers inside a model, as settings list them: `q_proj` means that of every layer."""
    inside = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear) and not name.endswith(LAST)]
    return sorted({name.rpartition(".")[2] for name in inside}) or "all-linear"


def save_adapter(model: Any, folder: Path, base: str) -> None:
    """Write adapter_model.safetensors and adapter_config.json. base: what the settings call the model that it belongs to."""
    model.peft_config["default"].base_model_name_or_path = base
    with without_warnings():
        model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty card; the run has its own
    settings = dict(json_of(folder / SETTINGS))
    settings["target_modules"] = sorted(settings["target_modules"])  # a set, whose order changes from process to process
    atomic_write(folder / SETTINGS, json.dumps(settings, indent=1))


def check_adapter(folder: Path) -> None:
    """Raises BadInput for what is no adapter that vLLM serves."""
    if not (folder / WEIGHTS).is_file() or not (folder / SETTINGS).is_file():
        raise BadInput(
            f"{folder}: holds no {WEIGHTS} with {SETTINGS}; expected a LoRA adapter, as `stepdown distil train --lora` writes it"
        )
    if unsafe := [path.name for path in folder.iterdir() if path.suffix.lower() in UNSAFE]:
        raise BadInput(f"{folder}: holds {unsafe[0]}, which can run code when it is loaded; convert the adapter to safetensors")
    settings = json_of(folder / SETTINGS)
    if settings.get("peft_type") != "LORA" or settings.get("r") not in RANKS:
        raise BadInput(
            f"{folder}: is {settings.get('peft_type')} of rank {settings.get('r')}, expected LORA of rank "
            f"{', '.join(map(str, RANKS))}; train it again with one of these"
        )
    if settings.get("modules_to_save"):
        raise BadInput(
            f"{folder}: also holds whole layers (modules_to_save), which vLLM does not serve; merge it, or train without"
        )


def merged(base: Path, adapter: Path) -> Any:
    """The base with the adapter added to its weights, in the type of number that the base is stored in. Raises BadInput."""
    check_installed()
    check_adapter(adapter)
    from peft import PeftModel

    with without_warnings():
        model = PeftModel.from_pretrained(load_model(base), adapter)
    return model.merge_and_unload().to(stored_dtype(base))


def save_model(model: Any, tokenizer: Any, base: Path, folder: Path) -> None:
    """A whole model as a folder that vLLM serves: weights and settings, with tokenizer and chat template as the base has them."""
    model.save_pretrained(folder, safe_serialization=True)
    for file in files_of(base):
        weights = file.suffix == ".safetensors" or file.name == "model.safetensors.index.json"
        if not weights and file.name not in ("config.json", "generation_config.json"):
            shutil.copyfile(file, folder / file.name)
    if not (folder / "tokenizer_config.json").is_file():
        tokenizer.save_pretrained(folder)
