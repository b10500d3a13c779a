"""The one trainer: gradient accumulation, clipping, checkpoints, exact resume, and the loss on dev rows.

The order of the data is the source's, a function of its seed and position; the checkpoint holds the position. So a training that
was killed and begun again ends with the same bits as one that was not, on one thread.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from deployments.distil import checkpoint
from deployments.distil.batching import Batch, Position, Source
from deployments.distil.losses import LossSum
from deployments.distil.optimisers import Optimisers
from router.distil.recipe import Recipe, share_of_rate
from router.errors import BadInput

CHECKPOINT = "checkpoint.safetensors"
BEST = "best.safetensors"
EVERY_S = 120.0  # between two checkpoints
LONGEST_GRADIENT = 1.0  # norm to which longer gradients are clipped
SMOOTHED = 0.02  # weight of a step's loss in the moving mean
WEIGHTS = "weights."  # prefix of the trained weights in a checkpoint
OPTIMISERS = "optimisers."


@dataclass(slots=True)
class Progress:
    """How far a training is; kept in the checkpoint."""

    tokens: int = 0
    """padding included"""
    steps: int = 0
    position: Position = Position()
    loss: float | None = None
    """moving mean over steps, nats an answer token"""
    seconds: float = 0.0
    """of all its processes together"""
    dev: list[tuple[int, float]] = field(default_factory=list)
    """(tokens seen, loss on dev rows) at each look"""
    ended_early: bool = False
    """the loss on dev rows did not fall any more"""

    @property
    def best(self) -> float | None:
        return min((loss for _, loss in self.dev), default=None)


Report = Callable[[Progress], None]
"""called after every step"""


class Interrupted(Exception):
    """Somebody asked the training to end; there is a checkpoint, and the same call goes on."""


class Trainer:
    """Trains those weights of a model that want a gradient, or goes on from the checkpoint in its folder.

    The model is the base, and stands on the device that it is trained on. identity: what the checkpoint must be of.
    """

    def __init__(
        self,
        model: Any,
        recipe: Recipe,
        source: Source,
        loss: LossSum,
        folder: Path,
        dev: Sequence[Batch] = (),
        identity: str = "",
    ) -> None:
        self.model, self.recipe, self.source, self.loss = model, recipe, source, loss
        self.folder, self.dev, self.identity = folder, dev, identity
        self.learned = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.optimisers = Optimisers(self.learned, recipe)
        self.device = next(iter(self.learned.values())).device
        self.progress = Progress()
        if recipe.gradient_checkpointing:
            renamed = getattr(model, "activation_checkpointing_enable", None)  # transformers 5.24 has both names
            (renamed or model.gradient_checkpointing_enable)({"use_reentrant": False})
        self.resume()

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one. Raises BadInput where it is another training's."""
        if not (self.folder / CHECKPOINT).exists():
            return
        tensors, state = checkpoint.load(self.folder / CHECKPOINT)
        if state["identity"] != self.identity:
            raise BadInput(f"{self.folder}: holds the checkpoint of another training; choose another folder, or delete it")
        kept = state["progress"]
        self.progress = Progress(
            **{**kept, "position": Position(*kept["position"]), "dev": [tuple(look) for look in kept["dev"]]}
        )
        self.put(without(WEIGHTS, tensors))
        self.optimisers.restore(without(OPTIMISERS, tensors))

    def put(self, weights: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.learned.items():
                parameter.copy_(weights[name])

    def save(self) -> None:
        weights = {WEIGHTS + name: value for name, value in self.learned.items()}
        state = {OPTIMISERS + name: value for name, value in self.optimisers.tensors().items()}
        kept = {"identity": self.identity, "progress": asdict(self.progress)}
        checkpoint.save(self.folder / CHECKPOINT, {**weights, **state}, kept)

    def run(self, report: Report, stop: Callable[[], bool] = lambda: False) -> Progress:
        """Train to the end. The model then has the best weights: those of the lowest loss on dev rows, or without any the last.

        stop: asked after every step; raises Interrupted with a checkpoint written. Raises BadInput where the loss is no number.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        began, saved = time.monotonic() - self.progress.seconds, time.monotonic()
        if not self.progress.steps and not self.progress.dev:
            self.look()
        for position, step in self.source.steps(self.progress.position):
            if self.ended:
                break
            before = self.progress.tokens
            self.learn(step)
            self.progress.position = position
            if self.due(before):
                self.look()
            self.progress.seconds = time.monotonic() - began
            report(self.progress)
            wanted = stop()
            if wanted or time.monotonic() - saved > EVERY_S:
                self.save()
                saved = time.monotonic()
            if wanted:
                raise Interrupted
        self.save()
        if self.dev:
            self.put(checkpoint.load(self.folder / BEST)[0])
        return self.progress

    @property
    def ended(self) -> bool:
        return self.progress.ended_early or self.progress.tokens >= self.recipe.tokens

    def learn(self, step: Sequence[Batch]) -> None:
        """One optimiser step: the mean loss over the answer tokens of all its batches."""
        self.model.train()
        answers = sum(batch.answer_tokens for batch in step)
        total = 0.0
        for batch in step:
            with self.numbers():
                loss = self.loss(self.model, batch.on(self.device)) / answers
            loss.backward()  # type: ignore[no-untyped-call]  # torch's method has no annotations
            total += loss.item()
        if not math.isfinite(total):
            raise BadInput(
                f"the loss is {total} at step {self.progress.steps + 1}, expected a number; train with a lower rate, "
                f"below {self.recipe.learning_rate:g}, into another folder"
            )
        torch.nn.utils.clip_grad_norm_(self.learned.values(), LONGEST_GRADIENT)
        self.optimisers.step(share_of_rate(self.recipe, self.progress.tokens, self.progress.steps))
        self.progress.steps += 1
        self.progress.tokens += sum(batch.tokens for batch in step)
        smooth = self.progress.loss if self.progress.loss is not None else total
        self.progress.loss = smooth + SMOOTHED * (total - smooth)

    def numbers(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.recipe.precision == "bf16-autocast")

    # -- dev rows ----------------------------------------------------------------------------------------------------------

    def due(self, before: int) -> bool:
        """Whether the loss on dev rows is to be looked at. before: tokens seen before the last step."""
        each = self.recipe.tokens / self.recipe.looks
        return math.floor(self.progress.tokens / each) > math.floor(before / each) or self.ended

    def look(self) -> None:
        """Measure the loss on dev rows, keep the weights if it is the lowest, and end where it has not fallen for too long.

        The base's own loss does not count there: at the highest rate the loss often rises above it, and falls below it later.
        """
        if not self.dev:
            return
        loss, best = self.dev_loss(), self.progress.best
        self.progress.dev.append((self.progress.tokens, loss))
        if best is None or loss < best:
            checkpoint.save(self.folder / BEST, self.learned, {"tokens": self.progress.tokens, "loss": loss})
        losses = [found for tokens, found in self.progress.dev if tokens]
        if losses:
            self.progress.ended_early = len(losses) - 1 - losses.index(min(losses)) >= self.recipe.patience

    def dev_loss(self) -> float:
        """Nats an answer token."""
        self.model.eval()
        with torch.no_grad(), self.numbers():
            total = sum(self.loss(self.model, batch.on(self.device)).item() for batch in self.dev)
        return total / sum(batch.answer_tokens for batch in self.dev)


def without(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Those that have the prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
