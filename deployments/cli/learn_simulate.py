"""stepdown simulate: routing, cascading and both, played on outcomes."""

from pathlib import Path

import click

from deployments.cli.learn_evaluate import TIERS_HELP

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("artefact", type=PATH)
@click.argument("outcomes", nargs=-1, required=True, type=PATH)
@click.option("--tiers", default=None, help=TIERS_HELP)
@click.option("--split", default=None, help="Only rows of this split: test, val or train.")
@click.option("--costs", default=None, help="USD a request where the table has no costs: small=0.001,large=0.02.")
@click.option("-o", "--output", default=None, type=PATH, help="PNG of the cost-quality curves.")
@click.option("--best-of", is_flag=True, help="Keep a smaller tier's answer in the running after the top tier has answered.")
@click.option("--seed", default=0, show_default=True, help="Of the bootstrap.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def simulate(
    artefact: Path,
    outcomes: tuple[Path, ...],
    tiers: str | None,
    split: str | None,
    costs: str | None,
    output: Path | None,
    best_of: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Play ARTEFACT on OUTCOMES whose answers are all known: routing, cascading, and both together.

    Every call is paid for, probes included. Needs what answers tell (`pred|NAME` and `out_tok|NAME`, or what `stepdown
    label` writes), in training too. Prints the cost at 95, 98, 99 and 100 % of the top tier's score.
    """
    import json

    from router.errors import BadInput
    from router.learn.cascades import rows_to_judge
    from router.learn.inputs import answers_of, measured_rows, open_artefact
    from router.learn.simulate_report import draw, text
    from router.learn.simulate_report import simulate as play

    loaded = open_artefact(artefact)
    if loaded.posterior is None:
        raise BadInput(f"{artefact}: knows no answers; train it on outcomes that hold them")
    table = measured_rows(outcomes, tiers, loaded.tiers, split, costs)
    rows, recalled = rows_to_judge(loaded, table, answers_of(outcomes, tiers, table))
    found, frontiers = play(loaded.posterior, rows, best_of, seed=seed)
    if output:
        draw(frontiers, rows, loaded.tiers, output)
    click.echo(json.dumps({"trained_on": recalled, **found}) if as_json else text(found, loaded.tiers))
    if recalled and not as_json:
        click.echo(f"{recalled} of these rows were trained on; their chances before an answer are as if unseen, after it not")
