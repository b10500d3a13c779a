"""The recipe: train `base` on right answers, teach it to plan (this makes `large`), distil `medium` and `small` from that.

Run as: stepdown pocket train [--tier large] [--out FOLDER]. The trainer is that of `stepdown distil train`, on rows that are made
while it trains; a killed run goes on where it was.
"""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from deployments.distil.base_models import load_model
from deployments.distil.checkpoint import remove
from deployments.distil.losses import TeacherDivergence, sequence
from deployments.distil.trainer import CHECKPOINT, Report, Trainer
from deployments.pocket import tasks, tokenizer
from deployments.pocket.data import MIX, PLANNING_MIX, Encoder, GeneratedRows
from router.distil.recipe import Recipe

CONTEXT = 512
BATCH_TOKENS = 1_800


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of a tier and how long it trains. Heads are 32 wide, the minimum of vLLM's CPU kernels."""

    hidden: int
    heads: int
    inner: int
    layers: int
    tokens_m: float
    """million tokens of training, padding included"""
    lr: float
    teacher: str | None = None
    """the tier that it is distilled from"""
    start: str | None = None
    """the tier whose weights it starts from; it then learns to plan"""


SHAPES = {
    "base": Shape(hidden=160, heads=5, inner=416, layers=6, tokens_m=30, lr=5e-3),
    "large": Shape(hidden=160, heads=5, inner=416, layers=6, tokens_m=3, lr=1e-3, start="base"),
    "medium": Shape(hidden=96, heads=3, inner=224, layers=4, tokens_m=9, lr=5e-3, teacher="large"),
    "small": Shape(hidden=64, heads=2, inner=96, layers=2, tokens_m=4.7, lr=5e-3, teacher="large"),
}


def new_model(shape: Shape, seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    encoder = Encoder()
    config = LlamaConfig(
        vocab_size=encoder.tokenizer.get_vocab_size(),
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        head_dim=32,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        pad_token_id=encoder.pad,
        bos_token_id=None,
        eos_token_id=encoder.end,
    )
    return LlamaForCausalLM(config)


def recipe(shape: Shape, seed: int) -> Recipe:
    return Recipe(
        learning_rate=shape.lr,
        tokens=round(shape.tokens_m * 1e6),
        batch_tokens=BATCH_TOKENS,
        micro_tokens=BATCH_TOKENS,
        warmup_steps=100,
        schedule="line",
        optimiser="muon+adamw",
        precision="bf16-autocast" if torch.cpu._is_avx512_bf16_supported() else "float32",
        seed=seed,
        longest=CONTEXT,
    )


def trainer(tier: str, out: Path, seed: int = 0, shape: Shape | None = None) -> Trainer:
    """The trainer of one model, or of its checkpoint in `out/TIER.training`. The models that it is made from lie in `out`."""
    shape = shape or SHAPES[tier]
    model = load_model(out / shape.start) if shape.start else new_model(shape, seed)
    loss = TeacherDivergence(load_model(out / shape.teacher)) if shape.teacher else sequence
    source = GeneratedRows(seed, BATCH_TOKENS, PLANNING_MIX if shape.start else MIX)
    return Trainer(model, recipe(shape, seed), source, loss, out / f"{tier}.training", identity=f"{tier}/{seed}/{shape}")


def train(tier: str, out: Path, report: Report, seed: int = 0, shape: Shape | None = None) -> Any:
    """Train one model to the end, and write it to `out/TIER`: weights in safetensors, config, tokenizer with chat template."""
    made = trainer(tier, out, seed, shape)
    made.run(report)
    made.model.save_pretrained(out / tier)
    tokenizer.save(out / tier)
    remove(made.folder / CHECKPOINT)
    return made.model.eval()


def answers(model: LlamaForCausalLM, prompts: list[str], most: int = 120) -> list[str]:
    """Greedy answers without vLLM, to look at a model while it trains. most: tokens of an answer."""
    encoder, order = Encoder(), sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    out = [""] * len(prompts)
    for at in range(0, len(order), 128):
        rows = [encoder.tokenizer.encode(prompts[i]).ids for i in order[at : at + 128]]
        rows = [[encoder.user, *ids, encoder.end, encoder.assistant] for ids in rows]
        width = max(map(len, rows))
        ids = torch.tensor([[encoder.pad] * (width - len(r)) + r for r in rows])
        said = model.generate(input_ids=ids, attention_mask=(ids != encoder.pad).long(), max_new_tokens=most, do_sample=False)
        for i, row in zip(order[at : at + 128], said[:, width:].tolist(), strict=True):
            out[i] = encoder.tokenizer.decode(row)  # without special tokens: the end, and padding after it
    return out


def exact_match(model: LlamaForCausalLM, drawn: list[tasks.Task]) -> dict[str, float]:
    """Share of right answers by kind and difficulty (`add 3`), and over all (`all`)."""
    said = answers(model, [t.prompt for t in drawn])
    right: dict[str, list[bool]] = {}
    for task, answer in zip(drawn, said, strict=True):
        for group in ("all", task.kind, f"{task.kind} {task.difficulty}"):
            right.setdefault(group, []).append(answer == task.answer)
    return {group: sum(r) / len(r) for group, r in sorted(right.items())}


def development_set(n: int = 600) -> list[tasks.Task]:
    """Held-out singles with a seed of their own, for development; the model card's figures use other seeds."""
    drawn = tasks.fresh("single", n, seed=-1)
    random.Random(0).shuffle(drawn)
    return drawn
