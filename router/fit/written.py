"""The ladder as a file, and the arithmetic behind it as text."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from router.fit.families import Family
from router.fit.machine import GIB, Machine
from router.fit.memory import Placed

NAMES = ("small", "medium", "large")
FEW_SEQUENCES = 256
"""most requests in a step, vLLM's default for most cards"""
CPUS = 4
"""cores of a replica on a card"""
LONGEST_THOUGHT = 8_192
WIDTH = 10**6


def names(ladder: Sequence[Placed]) -> list[str]:
    """small, medium and large, or the models' own names where there are more."""
    if len(ladder) > len(NAMES):
        return [each.engine.model.name.lower() for each in ladder]
    return ["large"] if len(ladder) == 1 else [NAMES[0], *NAMES[1:-1][: len(ladder) - 2], NAMES[-1]]


def flow(value: Any) -> str:
    """YAML in one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=WIDTH, sort_keys=False).strip()
    return text.removesuffix("...").strip()


def cheapest_first(ladder: Sequence[Placed]) -> list[Placed]:
    """As a ladder's file wants it: by a replica's hour, then by what a token passes."""
    return sorted(ladder, key=lambda each: (round(each.usd_hour, 4), each.engine.model.shape.active))


def document(machine: Machine, ladder: Sequence[Placed], command: str, as_of: str) -> str:
    """The YAML file. command: what makes it. as_of: the date of families.yaml."""
    ordered = cheapest_first(ladder)
    lines = [
        "# Made by",
        f"#   {command}",
        f"# with the families of {as_of}, for {machine}, of which engines may use {machine.usable / GIB:.1f} GiB"
        f"{' each' if machine.cards > 1 else ''}. What is left for requests:",
        *(f"#   {name}: {summary(each)}" for name, each in zip(names(ordered), ordered, strict=True)),
        "# Prices are the hardware's by the hour. Which tier is good enough for which request: label and train.",
        "tiers:",
    ]
    for name, each in zip(names(ordered), ordered, strict=True):
        lines += tier(name, each, machine) + rungs(name, each)
    return "\n".join(lines) + "\n"


def summary(each: Placed) -> str:
    """What an engine leaves for requests, in one line."""
    engine = each.engine
    return (
        f"{engine.weights / GIB:.1f} GiB of weights, {engine.peak / GIB:.1f} at work, {each.cache / GIB:.1f} for {each.tokens:,} "
        f"tokens: {each.windows:.1f} windows of {engine.context:,}"
    )


def tier(name: str, each: Placed, machine: Machine) -> list[str]:
    """The lines of a tier with an engine."""
    engine, family = each.engine, each.engine.model.family
    lines = [
        f"  - name: {name}",
        "    engine: vllm",
        f"    source: {flow(engine.checkpoint.source)}",
        f"    context: {engine.context}",
        f"    licence: {flow(dict(family.licence))}",
        f"    price: {flow({'usd_per_accelerator_hour': price(each, machine)})}",
    ]
    lines += hardware(each, machine)
    if each.replicas > 1:
        lines.append(f"    replicas: {each.replicas}")
    if family.parser:
        default = "on" if family.efforts and family.efforts[0] != "none" else "off"
        lines.append(f"    reasoning: {{parser: {family.parser}, switch: {family.switch}, default: {default}}}")
    if family.efforts:
        lines += [f"    effort: {family.efforts[0]}", f"    body: {flow(body(family, family.efforts[0]))}"]
    if family.env:
        lines.append(f"    env: {flow(dict(family.env))}")
    return [*lines, "    engine_kwargs:", *(f"      {option}: {flow(value)}" for option, value in options(each).items())]


def price(each: Placed, machine: Machine) -> float:
    """USD an hour of an accelerator; on CPUs each tier has its share of the computer's."""
    return machine.usd_hour if machine.cards else round(machine.usd_hour * (each.share or 1.0), 4)


def hardware(each: Placed, machine: Machine) -> list[str]:
    """Where a replica runs."""
    if not machine.cards:
        return [f"    cpus: {max(1, int(machine.cpus * (each.share or 1.0)))}"]
    lines = [f"    accelerator: {machine.name}"] if machine.name else []
    if each.share is not None or not machine.name:
        lines.append(f"    gpu: {1.0 if each.share is None else each.share}")
    if each.engine.cards > 1:
        lines.append(f"    tensor_parallel: {each.engine.cards}")
    return [*lines, f"    cpus: {2 * CPUS if each.engine.cards > 1 else CPUS}"]


def options(each: Placed) -> dict[str, Any]:
    """vLLM's options. The cache's size is given, so that vLLM does not measure it and a neighbour cannot spoil it."""
    engine, family = each.engine, each.engine.model.family
    found: dict[str, Any] = {
        "kv_cache_memory_bytes": each.cache,
        "max_num_batched_tokens": engine.machine.batch,
        "max_num_seqs": max(1, min(FEW_SEQUENCES, each.short)),
        "enable_prefix_caching": True,
    }
    if family.tools:
        found |= {"enable_auto_tool_choice": True, "tool_call_parser": family.tools}
    return found | ({"language_model_only": True} if engine.model.shape.sees else {})


def rungs(name: str, each: Placed) -> list[str]:
    """Lines of the same model thinking more: they cost no memory."""
    family = each.engine.model.family
    thought = min(LONGEST_THOUGHT, each.engine.context // 4)
    found = []
    for effort in family.efforts[1:]:
        own = "think" if len(family.efforts) == 2 else effort
        limit = f", thought: {thought}" if family.switch == "chat_template" else ""
        found.append(f"  - {{name: {name}-{own}, on: {name}, effort: {effort}{limit}, body: {flow(body(family, effort))}}}")
    return found


def body(family: Family, effort: str) -> Mapping[str, Any]:
    """The fields of a request that make a model think so much."""
    if family.switch == "effort":
        return {"reasoning_effort": effort}
    return {"chat_template_kwargs": {"enable_thinking": effort != "none"}}


def table(machine: Machine, ladder: Sequence[Placed]) -> list[list[str]]:
    """The arithmetic, a row for each engine, on each of its cards."""
    ordered = cheapest_first(ladder)
    head = "tier,source,weights,cards,GiB weights,at work,cache,a window,windows,tokens,at 2k,USD/h,licence".split(",")
    return [head, *(row(name, each) for name, each in zip(names(ordered), ordered, strict=True))]


def row(name: str, each: Placed) -> list[str]:
    engine = each.engine
    checkpoint = engine.checkpoint
    part = f"{each.replicas} x " if each.replicas > 1 else ""
    place = str(engine.cards) if each.share is None else f"{each.share:.2f}"
    sizes = [engine.weights, engine.peak, each.cache, engine.window]
    return [
        name,
        checkpoint.source,
        checkpoint.weights,
        part + place,
        *(f"{size / GIB:.2f}" for size in sizes),
        f"{each.windows:.1f} of {engine.context:,}",
        f"{each.tokens:,}",
        str(each.short),
        f"{each.usd_hour * each.replicas:.2f}",
        str(engine.model.family.licence["id"]),
    ]


def notes(ladder: Sequence[Placed]) -> list[str]:
    """What an operator should know of the families, and what nobody can say."""
    families = {each.engine.model.family.name: each.engine.model.family for each in ladder}
    found = [f"{name}: {family.note}" for name, family in families.items() if family.note]
    if any(family.licence["id"] == "unknown" for family in families.values()):
        found.append("licence unknown: read it before serving answers, and set `licence`")
    if any(len(family.efforts) > 1 for family in families.values()):
        found.append("rungs that think more are on the same engine and cost no memory")
    return [
        *found,
        "peaks were measured on an H100 and are at most that on smaller cards; compare with the log of the first start",
        "which tier is good enough for what nobody can compute: label and train",
    ]
