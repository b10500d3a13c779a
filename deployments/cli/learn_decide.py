"""stepdown decide, explain, show: what an artefact says of prompts, without serving."""

from pathlib import Path

import click

from classifiers import Rule


def _rule(rules: dict[str, Rule], target: str) -> Rule:
    """`auto`, `cheap`, `balanced`, `quality`, `auto:NAME`, or a chance such as 0.97."""
    from classifiers import explicit
    from router.errors import BadInput
    from router.learn.calibration import DEFAULT_RULE

    name = target.removeprefix("auto:").replace("auto", DEFAULT_RULE)
    if name in rules:
        return rules[name]
    try:
        return explicit(float(name))
    except ValueError:
        raise BadInput(f"--target {target!r}: expected {', '.join(rules)}, or a chance from 0 to 1") from None


@click.command()
@click.argument("artefact", type=click.Path(path_type=Path))
@click.argument("prompts", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="JSONL to write.")
@click.option("--target", default="auto", show_default=True, help="auto, cheap, balanced, quality, or a chance: 0.97.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def decide(artefact: Path, prompts: Path, output: Path, target: str, as_json: bool) -> None:
    """Decide for every prompt of a JSONL file (`id`, and `prompt` or `messages`), one line each.

    A line has `id`, `p` (the chance of each tier, cheapest first), `tier`, `reason` and `unfamiliar`.
    """
    import json

    from classifiers import load
    from router.learn.decisions import decide_table, write_lines
    from router.learn.inputs import fresh_file
    from router.learn.tables import read_table

    fresh_file(output)
    loaded = load(artefact)
    rule = _rule(loaded.rules, target)
    lines = decide_table(loaded, read_table(prompts), rule, prompts)
    write_lines(output, lines)
    counts = {tier: sum(line["tier"] == tier for line in lines) for tier in loaded.tiers}
    shares = "  ".join(f"{tier} {count / len(lines):.0%}" for tier, count in counts.items())
    click.echo(json.dumps({"rows": len(lines), "tiers": counts}) if as_json else f"{len(lines)} decisions: {shares}")


@click.command()
@click.argument("artefact", type=click.Path(path_type=Path))
@click.argument("prompt")
@click.option("--target", default="auto", show_default=True, help="auto, cheap, balanced, quality, or a chance: 0.97.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def explain(artefact: Path, prompt: str, target: str, as_json: bool) -> None:
    """Decide for one PROMPT and show which features and n-grams moved it most."""
    import json

    from classifiers import load
    from router.learn.decisions import explain_one, explain_text

    loaded = load(artefact)
    found = explain_one(loaded, prompt, _rule(loaded.rules, target))
    click.echo(json.dumps(found) if as_json else explain_text(found, loaded.tiers))


@click.command()
@click.argument("artefact", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
def show(artefact: Path, as_json: bool) -> None:
    """Print the card of an artefact: tiers, data, targets, measured quality."""
    import json

    from classifiers import load
    from router.learn.decisions import card

    manifest = load(artefact).manifest
    click.echo(json.dumps(manifest) if as_json else card(manifest))
