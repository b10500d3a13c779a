"""stepdown simulate: routing, cascading, and both together, simulated on outcomes."""

from pathlib import Path

import click

from deployments.cli.shared import AS_JSON, COLUMNS, COSTS, PATH, SEED, SPLIT, show
from router.errors import BadInput


@click.command()
@click.argument("artefact", type=PATH)
@click.argument("outcomes", nargs=-1, required=True, type=PATH)
@COLUMNS
@SPLIT
@COSTS
@click.option("-o", "--output", default=None, type=PATH, help="PNG file of the cost-quality curves to write.")
@click.option("--best-of", is_flag=True, help="After the top tier has answered, a smaller tier's answer may still be chosen.")
@SEED
@AS_JSON
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
    """Simulate ARTEFACT on OUTCOMES whose answers are all known: routing, cascading, and both together.

    Every call is paid for, probes included. OUTCOMES and the rows of training must hold the answers (`pred|NAME` and
    `out_tok|NAME`, or what `stepdown label` writes). Prints the cost at 95, 98, 99 and 100 % of the top tier's score.
    """
    from router.learn.cascades import rows_to_judge  # loads scikit-learn, as do the next
    from router.learn.inputs import answers_of, measured_rows, open_artefact
    from router.learn.simulate_report import draw, text
    from router.learn.simulate_report import simulate as play

    loaded = open_artefact(artefact)
    if loaded.posterior is None:
        raise BadInput(f"{artefact}: it knows no answers; train it on outcomes that hold them")
    table = measured_rows(outcomes, tiers, loaded.tiers, split, costs)
    rows, recalled = rows_to_judge(loaded, table, answers_of(outcomes, tiers, table))
    found, frontiers = play(loaded.posterior, rows, best_of, seed=seed)
    if output:
        draw(frontiers, rows, loaded.tiers, output)
    show({"trained_on": recalled, **found}, text(found, loaded.tiers), as_json)
    if recalled and not as_json:
        click.echo(f"{recalled} of these rows were trained on; only their chances before an answer are as if unseen")
