"""Why a model does not fit, in numbers."""

from router.fit.families import Model
from router.fit.machine import GIB, Machine
from router.fit.memory import Engine
from router.fit.shape import Checkpoint, Weights

OTHERS: dict[Weights, str] = {"bf16": "bf16", "fp8": "FP8", "int4": "int4"}


def refusal(model: Model, machine: Machine, windows: float, context: int, cards: int) -> str:
    """What the model needs and what there is. cards: that may share it."""
    most = max(number for number in (1, 2, 4, 8) if number <= max(1, cards if machine.name else 1))
    checkpoint = model.checkpoints[-1] if machine.cards else model.checkpoints[0]
    if not machine.cards and checkpoint.weights != "bf16":
        return f"{checkpoint.source} has {checkpoint.weights} weights, which were not tried on CPUs; name a checkpoint in bf16"
    engine = Engine(model, checkpoint, machine, most, min(context, model.shape.context))
    place = f"each of {most} cards has" if most > 1 else ("the card has" if machine.cards else "engines may use")
    needs = f"{checkpoint.source} {checkpoint.weights} needs {engine.weights / GIB:.1f} + {engine.peak / GIB:.1f} GiB"
    has = f"{place} {machine.usable / GIB:.1f}"
    left = machine.usable - engine.weights - engine.peak
    if left <= 0:
        return f"{needs}, {has}; {elsewhere(engine)}"
    fit = engine.placed(machine.usable).windows
    fewer = f"for fewer with --windows {int(fit)}, or " if fit >= 1 else ""
    return (
        f"{needs}, {has}: that leaves {fit:.2f} windows of {engine.context:,} tokens ({engine.window / GIB:.2f} GiB each), fewer "
        f"than {windows:g}; ask {fewer}for shorter ones with --context; {elsewhere(engine)}"
    )


def elsewhere(engine: Engine) -> str:
    """What the weights would take in other precisions, on each card."""
    shape, own = engine.model.shape, engine.checkpoint.weights
    others = [
        f"{name} {Checkpoint('', weights).bytes_of(shape) / engine.cards / GIB:.1f}"
        for weights, name in OTHERS.items()
        if weights != own and Checkpoint("", weights).bytes_of(shape) < engine.weights * engine.cards
    ]
    return ", ".join(others) if others else "name a smaller model"
