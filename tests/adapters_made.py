"""Small LoRA adapters on the pocket ladder's `small`, made by peft from random numbers, and the model with one merged into it."""

import json
import shutil
from pathlib import Path

from router.config import SHIPPED

SMALL = SHIPPED.parent / "pocket" / "models" / "small"


def adapter(folder: Path, seed: int = 0, size: float = 0.05, merged: Path | None = None, base: Path = SMALL) -> Path:
    """Write one of rank 8 for all linear layers. size: standard deviation of B. merged: where the whole model goes."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base)
    put_on = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, weight in put_on.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=size)
    put_on.save_pretrained(folder)
    if merged:
        put_on.merge_and_unload().save_pretrained(merged)
        for file in base.iterdir():
            if not (merged / file.name).exists():
                shutil.copyfile(file, merged / file.name)
    return folder


def changed(source: Path, folder: Path, settings: dict | None = None, rename=None, scale=None) -> Path:
    """A copy with other settings, tensors of other names (rename: name -> name) or values (scale: name -> factor)."""
    from safetensors.numpy import load_file, save_file

    shutil.copytree(source, folder)
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | (settings or {})))
    tensors = load_file(folder / "adapter_model.safetensors")
    made = {(rename or str)(name): value * (scale(name) if scale else 1) for name, value in tensors.items()}
    save_file(
        {name: value.astype(tensors[next(iter(tensors))].dtype) for name, value in made.items()},
        folder / file.with_name("adapter_model.safetensors").name,
    )
    return folder
