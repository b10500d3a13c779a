"""stepdown train, calibrate, classifiers, show."""

from pathlib import Path

import click


@click.command()
@click.argument("outcomes", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--tiers", required=True, help="Cheapest first: small=NAME,large=NAME; NAME as in the column score|NAME."
)
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder of the artefact."
)
@click.option(
    "--classifier", default=None, help="One of `stepdown classifiers`; the default is the best of them."
)
@click.option(
    "--costs", default=None, help="USD a request where the file has no costs: small=0.001,large=0.02."
)
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
def train(
    outcomes: tuple[Path, ...],
    tiers: str,
    output: Path,
    classifier: str | None,
    costs: str | None,
    as_json: bool,
) -> None:
    """Train a router from OUTCOMES (Parquet or JSONL): which tier answers which prompt well enough.

    Rows with split "test" are left out. Everything else is learned from; what the report says comes from
    predictions for rows that the classifier had not seen.
    """
    import json

    from classifiers import Rule, save
    from router.learn_inputs import known_classifier, parse_costs, read_all, training_rows
    from router.training import train as fit

    name = known_classifier(classifier)
    table = training_rows(read_all(outcomes, tiers, parse_costs(costs)))
    trained = fit(table, name, lambda message: click.echo(f"  fitted {message}", err=True))
    save(output, trained.model, trained.manifest)
    if as_json:
        click.echo(json.dumps(trained.manifest))
        return
    click.echo(f"{name} on {len(table)} rows -> {output}")
    for key, rule in trained.manifest["rules"].items():
        click.echo(f"  auto:{key}  {Rule.from_dict(rule).describe(table.tiers)}")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def classifiers(as_json: bool) -> None:
    """List the classifiers that `stepdown train --classifier` knows."""
    import json

    from classifiers import CLASSIFIERS, DEFAULT

    lines = {name: (make.__doc__ or "").strip().splitlines()[0] for name, make in CLASSIFIERS.items()}
    if as_json:
        click.echo(json.dumps(lines))
        return
    for name, line in lines.items():
        click.echo(f"{name + (' (default)' if name == DEFAULT else ''):22} {line}")
