"""stepdown decide, explain, show: what an artefact decides for prompts, without serving."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from deployments.cli import shared
from deployments.cli.shared import AS_JSON, PATH, TARGET
from router.decide.targets import as_chance
from router.errors import BadInput
from router.learn.tables import read_table

if TYPE_CHECKING:
    from classifiers import Artifact, Rule

# Inside the commands: what loads scikit-learn.


def rule_of(artefact: "Artifact", target: str) -> "Rule":
    """The rule of `auto`, `cheap`, `balanced`, `quality`, `auto:NAME`, or a chance such as 0.97."""
    from classifiers import explicit
    from router.learn.calibration import DEFAULT_RULE

    name = target.removeprefix("auto:").replace("auto", DEFAULT_RULE)
    if name in artefact.rules:
        return artefact.rules[name]
    if (chance := as_chance(name)) is None:
        raise BadInput(f"--target {target!r}: expected {', '.join(artefact.rules)}, or a chance from 0 to 1")
    return explicit(chance)


@click.command()
@click.argument("artefact", type=PATH)
@click.argument("prompts", type=PATH)
@click.option("-o", "--output", required=True, type=PATH, help="JSONL file to write.")
@TARGET
@AS_JSON
def decide(artefact: Path, prompts: Path, output: Path, target: str, as_json: bool) -> None:
    """Choose a tier for every prompt of a JSONL file (`id`, and `prompt` or `messages`).

    Each line written has `id`, `p` (the chance of each tier, cheapest first), `tier`, `reason` and `unfamiliar`.
    """
    from classifiers import load
    from router.learn.decisions import decide_table, write_lines
    from router.learn.inputs import fresh_file

    fresh_file(output, prompts)
    loaded = load(artefact)
    rule = rule_of(loaded, target)
    lines = decide_table(loaded, read_table(prompts), rule, prompts)
    write_lines(output, lines)
    counts = {tier: sum(line["tier"] == tier for line in lines) for tier in loaded.tiers}
    shares = "  ".join(f"{tier} {count / len(lines):.0%}" for tier, count in counts.items())
    shared.show({"rows": len(lines), "tiers": counts}, f"{len(lines)} decisions: {shares}", as_json)


@click.command()
@click.argument("artefact", type=PATH)
@click.argument("prompt")
@TARGET
@AS_JSON
def explain(artefact: Path, prompt: str, target: str, as_json: bool) -> None:
    """Choose a tier for one PROMPT and show which features and n-grams influenced the choice most."""
    from classifiers import load
    from router.learn.decisions import explain_one, explain_text

    loaded = load(artefact)
    found = explain_one(loaded, prompt, rule_of(loaded, target))
    shared.show(found, explain_text(found, loaded.tiers), as_json)


@click.command()
@click.argument("artefact", type=PATH)
@AS_JSON
def show(artefact: Path, as_json: bool) -> None:
    """Show an artefact's card: tiers, data, targets, measured quality. With --json, its manifest."""
    from classifiers import load
    from router.learn.decisions import card

    manifest = load(artefact).manifest
    shared.show(manifest, card(manifest), as_json)
