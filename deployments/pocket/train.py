"""The recipe: train `base` on right answers, teach it to plan (this makes `large`), distil `medium` and `small` from that.

Run as: stepdown pocket train [--tier large] [--out FOLDER]. A killed run can resume: there is a checkpoint every two minutes, and
the data depends only on the seed and the position. Muon (torch.optim) trains the matrices, AdamW the rest: the loss was
lower than with AdamW alone (1.71 against 1.98) in one trial of 70 seconds each.
"""

import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy, kl_div, log_softmax
from transformers import LlamaConfig, LlamaForCausalLM

from classifiers.files import replaced
from deployments.pocket import tasks, tokenizer
from deployments.pocket.data import MIX, PLANNING_MIX, Batch, Encoder, batches

CONTEXT = 512
CHECKPOINT_EVERY_S = 120
BATCH_TOKENS = 1_800
WEIGHTS = "weights."  # prefix of the model's tensors in a checkpoint
STATE = "state."  # prefix of the optimisers' tensors


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


def answer_logits(model: LlamaForCausalLM, batch: Batch) -> torch.Tensor:
    """Logits that predict the answer tokens, shape (answer tokens of the batch, vocabulary)."""
    hidden = model.model(input_ids=batch.ids, use_cache=False).last_hidden_state
    logits: torch.Tensor = model.lm_head(hidden[:, :-1][batch.answer[:, 1:]])
    return logits


def loss_of(model: LlamaForCausalLM, batch: Batch, teacher: LlamaForCausalLM | None) -> torch.Tensor:
    """Cross-entropy on the right answers, or, with a teacher, the divergence from its distribution there."""
    logits = answer_logits(model, batch)
    if teacher is None:
        return cross_entropy(logits, batch.ids[:, 1:][batch.answer[:, 1:]])
    with torch.inference_mode():
        target = log_softmax(answer_logits(teacher, batch), dim=-1)
    return kl_div(log_softmax(logits, dim=-1), target.clone(), log_target=True, reduction="batchmean")


class Optimisers:
    """Muon for the matrices inside the layers, AdamW for embeddings and norms; one learning rate for both."""

    def __init__(self, model: LlamaForCausalLM, lr: float) -> None:
        self.lr = lr
        inside = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
        rest = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
        self.both = [
            torch.optim.Muon(inside, lr=lr, weight_decay=0.05, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.98), weight_decay=0.0),
        ]

    def step(self, share: float) -> None:
        for optimiser in self.both:
            for group in optimiser.param_groups:
                group["lr"] = self.lr * share
            optimiser.step()
            optimiser.zero_grad()

    def tensors(self) -> dict[str, torch.Tensor]:
        """Their state as named tensors, so that it can be stored without pickle."""
        return {
            f"{i}.{p}.{name}": value.contiguous()
            for i, optimiser in enumerate(self.both)
            for p, state in optimiser.state_dict()["state"].items()
            for name, value in state.items()
        }

    def restore(self, stored: dict[str, torch.Tensor]) -> None:
        for i, optimiser in enumerate(self.both):
            state: dict[int, dict[str, torch.Tensor]] = {}
            for key, value in stored.items():
                which, p, name = key.split(".")
                if int(which) == i:
                    state.setdefault(int(p), {})[name] = value
            optimiser.load_state_dict({**optimiser.state_dict(), "state": state})


@dataclass(slots=True)
class Progress:
    """How far a training is; kept in the checkpoint."""

    tier: str
    tokens: int = 0
    steps: int = 0
    pool: int = 0
    loss: float = 5.0
    seconds: float = 0.0


def share_of_lr(tokens: int, steps: int, total: float) -> float:
    """Warm up over 100 steps, then fall linearly to 2 %."""
    return min(1.0, (steps + 1) / 100) * max(0.02, 1 - tokens / total)


class Trainer:
    """Trains one model, or goes on from its checkpoint."""

    def __init__(self, tier: str, out: Path, seed: int = 0, shape: Shape | None = None) -> None:
        self.tier, self.out, self.seed = tier, out, seed
        self.shape = shape or SHAPES[tier]
        start = self.shape.start
        self.model = LlamaForCausalLM.from_pretrained(out / start) if start else new_model(self.shape, seed)
        self.teacher = LlamaForCausalLM.from_pretrained(out / self.shape.teacher) if self.shape.teacher else None
        self.optimisers = Optimisers(self.model, self.shape.lr)
        self.progress = Progress(tier)
        self.checkpoint = out / f"{tier}.checkpoint"
        self.resume()

    def resume(self) -> None:
        if not self.checkpoint.exists():
            return
        with safe_open(self.checkpoint, "pt") as file:
            self.progress = Progress(**json.loads(file.metadata()["progress"]))
            stored = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
        weights, state = ({k.removeprefix(p): v for k, v in stored.items() if k.startswith(p)} for p in (WEIGHTS, STATE))
        self.model.load_state_dict(weights, strict=False)
        self.model.tie_weights()
        self.optimisers.restore(state)

    def save_checkpoint(self) -> None:
        """A killed run leaves the old checkpoint or the new one, never half of one."""
        weights = {WEIGHTS + k: v for k, v in self.model.state_dict().items() if k != "lm_head.weight"}
        state = {STATE + k: v for k, v in self.optimisers.tensors().items()}
        with replaced(self.checkpoint) as fresh:
            save_file(weights | state, fresh, {"progress": json.dumps(asdict(self.progress))})

    def run(self, report: Callable[[Progress, float], None]) -> None:
        """Train to the end; `report(progress, total tokens)` is called after every step."""
        self.model.train()
        total, began, saved = self.shape.tokens_m * 1e6, time.monotonic() - self.progress.seconds, time.monotonic()
        for batch in self.batches():
            if self.progress.tokens >= total:
                break
            self.learn(batch, total)
            self.progress.seconds = time.monotonic() - began
            report(self.progress, total)
            if time.monotonic() - saved > CHECKPOINT_EVERY_S:
                self.save_checkpoint()
                saved = time.monotonic()
        self.save_checkpoint()
        self.publish()

    def batches(self) -> Iterator[Batch]:
        # A resumed run starts with the next pool and skips the rest of the one that it was in.
        start = self.progress.pool + 1 if self.progress.steps else 0
        mix = PLANNING_MIX if self.shape.start else MIX
        for pool, batch in batches(self.seed, BATCH_TOKENS, start, mix):
            self.progress.pool = pool
            yield batch

    def learn(self, batch: Batch, total: float) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=torch.cpu._is_avx512_bf16_supported()):
            loss = loss_of(self.model, batch, self.teacher)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's method has no annotations
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimisers.step(share_of_lr(self.progress.tokens, self.progress.steps, total))
        self.progress.steps += 1
        self.progress.tokens += batch.ids.numel()
        self.progress.loss += 0.02 * (loss.item() - self.progress.loss)

    def publish(self) -> None:
        """Write the finished tier: weights in safetensors, config, tokenizer with chat template."""
        folder = self.out / self.tier
        self.model.save_pretrained(folder)
        tokenizer.save(folder)


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
