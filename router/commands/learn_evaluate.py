"""stepdown evaluate and calibrate: what an artefact is worth on prompts with known outcomes, and its targets."""

from pathlib import Path

import click

TIERS_HELP = "TIER=NAME,… where the table's columns are named otherwise than the artefact's tiers."


@click.command()
@click.argument("artefact", type=click.Path(path_type=Path))
@click.argument("outcomes", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--tiers", default=None, help=TIERS_HELP)
@click.option("--split", default=None, help="Only rows of this split: test, val or train.")
@click.option(
    "--train",
    "train_file",
    type=click.Path(path_type=Path),
    default=None,
    help="Rows to fit the baselines on.",
)
@click.option(
    "--against", type=click.Path(path_type=Path), default=None, help="Another artefact: paired differences."
)
@click.option(
    "--costs", default=None, help="USD a request where the table has no costs: small=0.001,large=0.02."
)
@click.option("--seed", default=0, show_default=True, help="Of the bootstrap.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def evaluate(
    artefact: Path, outcomes: tuple[Path, ...], tiers: str | None, split: str | None, train_file: Path | None,
    against: Path | None, costs: str | None, seed: int, as_json: bool,
) -> None:  # fmt: skip
    """Measure ARTEFACT on OUTCOMES it was not trained on, beside the baselines, with 95 % bootstrap intervals.

    PGR, APGR, CPT: RouteLLM; AIQ and the share of the oracle's gap recovered: RouterBench; arena: RouterArena; cost at
    a share of the top tier's quality; AUC, ECE and Brier score of each tier's chance.
    """
    import json

    from router.learn_compare import compare, compare_text
    from router.learn_inputs import measured_rows, open_artefact

    loaded = open_artefact(artefact)
    table = measured_rows(outcomes, tiers, loaded.tiers, split, costs)
    train = measured_rows((train_file,), tiers, loaded.tiers, None, costs) if train_file else None
    other = open_artefact(against) if against else None
    found = compare(loaded, table, train, other, seed)
    click.echo(json.dumps(found) if as_json else compare_text(found))


@click.command()
@click.argument("artefact", type=click.Path(path_type=Path))
@click.argument("outcomes", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--quality", type=click.FloatRange(0, 1.5), help="Keep this share of the top tier's quality: 0.98."
)
@click.option("--cost", type=click.FloatRange(0, 1), help="Spend at most this share of always the top tier.")
@click.option("--large-share", type=click.FloatRange(0, 1), help="Send at most this share to the top tier.")
@click.option(
    "--name", default="balanced", show_default=True, help="The target to set: cheap, balanced or quality."
)
@click.option(
    "--confidence", type=click.FloatRange(0.5, 0.999), default=0.95, show_default=True,
    help="Of the lower bound that must keep --quality.",
)
@click.option("--tiers", default=None, help=TIERS_HELP)
@click.option("--split", default=None, help="Only rows of this split.")
@click.option("--costs", default=None, help="USD a request where the table has no costs.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def calibrate(
    artefact: Path, outcomes: tuple[Path, ...], quality: float | None, cost: float | None, large_share: float | None,
    name: str, confidence: float, tiers: str | None, split: str | None, costs: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Set a target of ARTEFACT from OUTCOMES it was not trained on, and write it into the artefact.

    One of --quality, --cost and --large-share. A quality is promised on a lower confidence bound; where no rule keeps
    it, the target becomes "always the top tier" and the command says so.
    """
    import json

    from router.calibration import solve
    from router.errors import BadInput
    from router.learn_inputs import measured_rows, open_artefact, rewrite_rule

    if sum(wish is not None for wish in (quality, cost, large_share)) != 1:
        raise BadInput("give one of --quality, --cost and --large-share")
    loaded = open_artefact(artefact)
    table = measured_rows(outcomes, tiers, loaded.tiers, split, costs)
    guess, recalled = loaded.guess_honestly(list(table.texts))
    rule = solve(guess.p, guess.cost, table, quality, cost, large_share, confidence)
    rewrite_rule(artefact, name, rule)
    known = f" ({recalled} of {len(table)} rows were trained on; judged as if unseen)" if recalled else ""
    text = f"auto:{name}: {rule.describe(loaded.tiers)}{known}"
    if quality is not None and rule.kind == "tier":
        text += f"\nnothing cheaper is sure to keep that by {len(table)} rows; more prove more, those trained on included"
    click.echo(json.dumps({"name": name, **rule.to_dict()}) if as_json else text)
