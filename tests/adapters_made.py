"""Small LoRA adapters on the pocket ladder's `small`, of random numbers; and the model with one merged into it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from deployments.replicas.adapter_files import SETTINGS, TENSORS, shapes_of
from router.config import SHIPPED

SMALL = SHIPPED.parent / "pocket" / "models" / "small"


def trained(folder: Path, seed: int = 0, size: float = 0.05, merged: Path | None = None, base: Path = SMALL) -> Path:
    """Write one with peft, of rank 8 for all linear layers. size: standard deviation of B. merged: where the whole model goes."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    settings = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), settings)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=size)
    model.save_pretrained(folder)
    if merged:
        model.merge_and_unload().save_pretrained(merged)
        for file in base.iterdir():
            if not (merged / file.name).exists():
                shutil.copyfile(file, merged / file.name)
    return folder


def written(folder: Path, seed: int = 0, rank: int = 8, base: Path = SMALL, **settings: object) -> Path:
    """The same files without peft and PyTorch, which take half a minute to load."""
    folder.mkdir(parents=True, exist_ok=True)
    chance, tensors = np.random.default_rng(seed), {}
    for name, shape in shapes_of(base / "model.safetensors").items():
        if "_proj" in name:
            part = f"base_model.model.{name.removesuffix('.weight')}"
            tensors[f"{part}.lora_A.weight"] = chance.normal(size=(rank, shape[1])).astype("float32")
            tensors[f"{part}.lora_B.weight"] = chance.normal(size=(shape[0], rank)).astype("float32")
    save_file(tensors, folder / TENSORS)
    known = {"peft_type": "LORA", "r": rank, "lora_alpha": 16, "target_modules": ["q_proj"], "bias": "none", **settings}
    (folder / SETTINGS).write_text(json.dumps(known))
    return folder


def changed(source: Path, folder: Path, change: Callable[[str, np.ndarray], tuple[str, np.ndarray]]) -> Path:
    """A copy with other tensors. change: (name, values) -> the same."""
    shutil.copytree(source, folder)
    save_file(dict(change(*part) for part in load_file(source / TENSORS).items()), folder / TENSORS)
    return folder
