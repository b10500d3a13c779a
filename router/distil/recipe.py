"""How a student is trained: the numbers of one training, and which ones suit a model on a machine.

The defaults are those measured on the pocket ladder (processor, below ten million parameters), elsewhere the usual ones.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from router.engine_settings import Settings
from router.errors import BadInput

Device = Literal["cpu", "cuda"]
Loss = Literal["sequence", "token"]
RANKS = (1, 8, 16, 32, 64, 128, 256)  # those that vLLM serves
SMALL = 10_000_000  # parameters below which a processor trains all weights in minutes
USED = 0.9  # of the memory; the rest is for the framework and fragments
WHOLE_BYTES = 16  # a parameter whose value, gradient and two moments of AdamW are float32
HALF = 2  # bytes of a frozen parameter on a GPU: bfloat16
SINGLE = 4  # bytes of a float32
VALUES_A_LAYER = 17  # kept for the backward pass, for each token and hidden unit: 34 bytes at 2 a value, arXiv 2205.05198
LOGIT_COPIES = 3  # the logits, their logarithms and their gradient, float32
LONGEST = 2_048  # tokens of a row, prompt and answer, unless asked otherwise
LONGEST_GPU = 8_192
GB = 1e9


class Recipe(Settings):
    """The numbers of one training. Two runs with the same recipe, rows and base give the same weights."""

    loss: Loss = "sequence"
    """sequence: cross-entropy of the teacher's answer. token: half of that and half the divergence from the teacher's scores"""
    learning_rate: Annotated[float, Field(gt=0)]
    tokens: Annotated[int, Field(ge=1)]
    """that pass through the model in all, padding included; a row counts each time that it is shown"""
    batch_tokens: Annotated[int, Field(ge=1)]
    """of one optimiser step, at most, padding included"""
    micro_tokens: Annotated[int, Field(ge=1)]
    """of one pass through the model, at most, padding included; a longer row is a pass of its own"""
    warmup_steps: Annotated[int, Field(ge=0)]
    schedule: Literal["line", "cosine"]
    """how the rate falls with the tokens: in a line to 2 %, or as half a cosine to 0"""
    optimiser: Literal["muon+adamw", "adamw"]
    precision: Literal["float32", "bf16-autocast"]
    """of the passes; weights that are trained are float32 always"""
    gradient_checkpointing: bool = False
    """compute a layer's values again instead of keeping them: less memory, a third more time"""
    rank: Literal[1, 8, 16, 32, 64, 128, 256] | None = None
    """of the LoRA adapters of all linear layers; none: all weights are trained"""
    alpha: Annotated[int, Field(ge=1)] = 1
    """LoRA's factor: alpha / rank scales what an adapter adds"""
    seed: Annotated[int, Field(ge=0)] = 0
    longest: Annotated[int, Field(ge=2)] = LONGEST
    """tokens of a row; longer ones are left out, never cut"""
    looks: Annotated[int, Field(ge=1)] = 8
    """times that the loss on dev rows is measured, evenly over the tokens, beside once before the first step"""
    patience: Annotated[int, Field(ge=1)] = 3
    """looks in a row above the lowest loss since the first step, after which the training ends; the weights of the lowest of all,
    the base's included, are what is kept"""


@dataclass(frozen=True, slots=True)
class ModelSize:
    """What decides whether a training fits."""

    parameters: int
    hidden: int
    layers: int
    vocabulary: int
    context: int
    """tokens that it was made for"""
    linear: int
    """inputs and outputs of all linear layers but the last, summed: the parameters of adapters of rank 1"""


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody wants other than the defaults."""

    lora: bool | None = None
    """none: all weights where they fit and a processor manages them, else LoRA"""
    rank: int | None = None
    tokens: int | None = None
    seed: int = 0
    loss: Loss = "sequence"
    longest: int | None = None
    learning_rate: float | None = None

    def __post_init__(self) -> None:
        """Raises BadInput."""
        if self.rank is not None and self.rank not in RANKS:
            raise BadInput(
                f"rank {self.rank}: vLLM serves adapters of rank {', '.join(map(str, RANKS))} only; choose one of them"
            )
        if self.rank is not None and self.lora is False:
            raise BadInput("a rank was given, but no LoRA; give --lora, or no rank")


def share_of_rate(recipe: Recipe, tokens: int, steps: int) -> float:
    """The share of the learning rate for the next step. tokens, steps: done before it."""
    from math import cos, pi

    warm = min(1.0, (steps + 1) / recipe.warmup_steps) if recipe.warmup_steps else 1.0
    done = min(1.0, tokens / recipe.tokens)
    return warm * (max(0.02, 1 - done) if recipe.schedule == "line" else 0.5 * (1 + cos(pi * done)))


def recipe_for(size: ModelSize, device: Device, memory_bytes: float, pass_tokens: int, asked: Asked = Asked()) -> Recipe:
    """The recipe that suits a model on a machine. pass_tokens: what showing each row once costs, padding included.

    memory_bytes: of the GPU, or of the machine where there is none. Where nothing fits: raises BadInput, which says what would.
    """
    for recipe in wanted(size, device, pass_tokens, asked):
        if (fitting := fitted(recipe, size, device, memory_bytes)) is not None:
            return fitting
    raise BadInput(f"{too_large(size, device, memory_bytes, pass_tokens, asked)}")


def wanted(size: ModelSize, device: Device, pass_tokens: int, asked: Asked) -> Iterator[Recipe]:
    """Recipes in order of preference, as if memory had no end."""
    whole_first = device == "cuda" or size.parameters < SMALL
    lora = asked.lora if asked.lora is not None or asked.rank is None else True
    if lora is False or (lora is None and whole_first):
        yield table(size, device, pass_tokens, asked, None)
    if lora is not False:
        yield table(size, device, pass_tokens, asked, asked.rank or (32 if device == "cuda" else 16))


def table(size: ModelSize, device: Device, pass_tokens: int, asked: Asked, rank: int | None) -> Recipe:
    """The defaults. rank: of LoRA; None: all weights."""
    cuda, small = device == "cuda", device == "cpu" and size.parameters < SMALL
    longest = min(asked.longest or (LONGEST_GPU if cuda else LONGEST), size.context)
    batch = 65_536 if cuda else (1_800 if small else 1_024)
    tokens = asked.tokens or (2_400_000 if small else max(1, 2 * pass_tokens))
    rates = (1e-5, 2e-4) if cuda else ((2e-3, 1e-2) if small else (5e-5, 1e-3))
    return Recipe(
        loss=asked.loss,
        learning_rate=asked.learning_rate or rates[rank is not None],
        tokens=tokens,
        batch_tokens=batch,
        micro_tokens=batch,
        warmup_steps=max(1, min(50, round(0.1 * tokens / batch)) if small else round(0.03 * tokens / batch)),
        schedule="line" if small else "cosine",
        optimiser="muon+adamw" if small else "adamw",
        precision="bf16-autocast" if cuda else "float32",
        rank=rank,  # type: ignore[arg-type]  # checked by Asked
        alpha=2 * rank if rank else 1,
        seed=asked.seed,
        longest=longest,
    )


# -- memory ----------------------------------------------------------------------------------------------------------------


def needed_bytes(recipe: Recipe, size: ModelSize, device: Device) -> float:
    """Memory of a training: weights, gradients, moments, and the values kept of one pass."""
    half = HALF if device == "cuda" else SINGLE
    weights = WHOLE_BYTES * size.parameters if recipe.rank is None else half * size.parameters + adapter_bytes(size, recipe.rank)
    kept = size.hidden * (size.layers + VALUES_A_LAYER if recipe.gradient_checkpointing else size.layers * VALUES_A_LAYER)
    a_pass = max(recipe.micro_tokens, recipe.longest) * (half * kept + LOGIT_COPIES * SINGLE * size.vocabulary)
    return weights + a_pass


def adapter_bytes(size: ModelSize, rank: int) -> float:
    return WHOLE_BYTES * rank * size.linear


def fitted(recipe: Recipe, size: ModelSize, device: Device, memory_bytes: float) -> Recipe | None:
    """The same with passes as long as memory allows; checkpointing only where it must be. None: it does not fit."""
    for checkpointing in (False, True):
        micro = recipe.batch_tokens
        while True:
            tried = recipe.model_copy(update={"micro_tokens": micro, "gradient_checkpointing": checkpointing})
            if needed_bytes(tried, size, device) <= USED * memory_bytes:
                return tried
            if micro <= min(recipe.longest, recipe.batch_tokens):
                break
            micro = max(micro // 2, min(recipe.longest, recipe.batch_tokens))
    return None


def too_large(size: ModelSize, device: Device, memory_bytes: float, pass_tokens: int, asked: Asked) -> str:
    """What was found, and what would fit."""
    last = list(wanted(size, device, pass_tokens, asked))[-1].model_copy(update={"gradient_checkpointing": True})
    how = "all weights" if last.rank is None else f"LoRA of rank {last.rank}"
    least = last.model_copy(update={"micro_tokens": min(last.longest, last.batch_tokens)})
    found = needed_bytes(least, size, device) / GB
    mends = [
        words for words, recipe in smaller(size, device, pass_tokens, asked, last) if fitted(recipe, size, device, memory_bytes)
    ]
    per_parameter = WHOLE_BYTES if asked.lora is False else (HALF if device == "cuda" else SINGLE)
    most = USED * memory_bytes / per_parameter / 1e6
    mend = " or ".join(mends[:3]) or f"a smaller model, of fewer than {most:,.0f} million parameters"
    return (
        f"training {how} of {size.parameters / 1e6:,.0f} million parameters on rows of {last.longest} tokens needs {found:,.1f} "
        f"GB; expected at most {USED * memory_bytes / GB:,.1f} of the {memory_bytes / GB:,.1f} GB here. What would fit: {mend}"
    )


def smaller(size: ModelSize, device: Device, pass_tokens: int, asked: Asked, last: Recipe) -> Iterator[tuple[str, Recipe]]:
    """Ways that need less, each with its words."""
    if last.rank is None:
        yield "LoRA (--lora)", table(size, device, pass_tokens, asked, 16)
    elif lower := [rank for rank in RANKS if rank < last.rank]:
        for rank in reversed(lower):
            yield f"a lower rank (--rank {rank})", table(size, device, pass_tokens, asked, rank)
    for longest in (4_096, 2_048, 1_024, 512, 256):
        if longest < last.longest:
            yield f"shorter rows (--longest {longest})", last.model_copy(update={"longest": longest})
