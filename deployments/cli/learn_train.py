"""stepdown train and classifiers."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deployments.cli.shared import AS_JSON, COSTS, PATH, show
from router.config import load_config
from router.errors import BadInput
from router.learn.outcomes import parse_tiers

if TYPE_CHECKING:
    from classifiers.replies.posterior import Posterior
    from router.learn.training import Trained

PREFIX = click.IntRange(1, 64)


@click.command()
@click.argument("outcomes", nargs=-1, required=True, type=PATH)
@click.option("--tiers", required=True, help="Cheapest first: small=NAME,large=NAME; NAME as in the column score|NAME.")
@click.option("-o", "--output", required=True, type=PATH, help="Folder of the artefact.")
@click.option("--classifier", default=None, help="One of `stepdown classifiers`.  [default: the best of them]")
@COSTS
@click.option("--config", type=PATH, default=None, help="The ladder to train for; its tiers must be --tiers, in the same order.")
@click.option("--val", multiple=True, type=PATH, help="Rows kept out of training; targets and report come from them.")
@click.option(
    "--prefix", type=PREFIX, default=16, show_default=True, help="Tokens on which the streaming mode `holdback` decides."
)
@click.option("--report", "report_folder", type=PATH, default=None, help="Folder of the report.  [default: OUTPUT/report]")
@click.option("--no-report", is_flag=True, help="Write no report, which is faster.")
@AS_JSON
def train(
    outcomes: tuple[Path, ...],
    tiers: str,
    output: Path,
    classifier: str | None,
    costs: str | None,
    config: Path | None,
    val: tuple[Path, ...],
    prefix: int,
    report_folder: Path | None,
    no_report: bool,
    as_json: bool,
) -> None:
    """Train a router from OUTCOMES (Parquet, JSONL, a JSON list or CSV): which tier answers which prompt well enough.

    Rows with split "test" are left out; all others are learned from. The figures of the report come from predictions for rows
    that the classifier had not seen (cross-fitting), or from --val. If OUTCOMES hold the answers too, the router also
    learns to judge answers, for escalation and `stepdown simulate`.
    """
    from router.learn import inputs  # loads scikit-learn, as do the next
    from router.learn.cascades import teach
    from router.learn.evidence import read_seen
    from router.learn.inputs import parse_costs, progress_bar, read_all
    from router.learn.report import write
    from router.learn.training import check_teaches, measured_on
    from router.learn.training import train as fit

    name = inputs.known_classifier(classifier)
    inputs.fresh_output(output, (*outcomes, *val))
    if report_folder and not no_report:
        inputs.fresh_folder(report_folder)
    check_ladder(parse_tiers(tiers), config)
    table = inputs.training_rows(read_all(outcomes, tiers, parse_costs(costs)))
    inputs.check_costs_rise(table)
    check_teaches(table)
    kept = read_all(val, tiers, parse_costs(costs)) if val else None
    seen = read_seen(outcomes, parse_tiers(tiers), table, prefix)
    with progress_bar(f"fitting {name}", 6) as progress:
        trained = fit(table, name, progress, kept)
    posterior, cascades = teach(trained, table, seen) if seen else (None, {})
    trained.manifest["cascades"] = {key: rule.to_dict() for key, rule in cascades.items()}
    place = keep(output, trained, posterior)
    if not no_report:
        try:
            write(report_folder or place / "report", *measured_on(trained, table, kept), trained.manifest)
        except OSError as error:
            raise BadInput(
                f"{error.filename}: {error.strerror}; only the report is missing, the artefact is in {place}"
            ) from None
    told = summary(trained.manifest, place)
    if table.repeated:
        told += f"\n{table.repeated} rows were given before (same prompt and replies) and count once"
    show(trained.manifest, told, as_json)


def check_ladder(tiers: Mapping[str, str], config: Path | None) -> None:
    """Refuse tiers in another order than the ladder's: an artefact knows its tiers by their place. Raises BadInput."""
    names = load_config(config).names if config else list(tiers)
    if list(tiers) != list(names):
        raise BadInput(f"--tiers names {', '.join(tiers)}; the ladder of {config} is {', '.join(names)}, cheapest first")


def keep(output: Path, trained: "Trained", posterior: "Posterior | None") -> Path:
    """Save the artefact; where that fails, in a folder for temporary files, so that the work is not lost. Returns the folder."""
    from classifiers import save

    try:
        save(output.resolve(), trained.model, trained.manifest, posterior)
        return output
    except OSError as error:
        why = error.strerror or str(error)
    other = Path(tempfile.mkdtemp(prefix="stepdown-router-")) / "router"
    try:
        save(other, trained.model, trained.manifest, posterior)
    except OSError as error:
        raise BadInput(f"{output}: {why}; {other}: {error.strerror}; the artefact could be written to neither") from None
    raise BadInput(f"{output}: {why}; the artefact was written to {other} instead, move it from there")


def summary(manifest: Mapping[str, Any], output: Path) -> str:
    """The result of the training, for people."""
    from classifiers import Rule

    value, low, high = manifest["recovered"]
    lines = [
        f"{manifest['classifier']} on {manifest['rows']} rows -> {output}",
        f"recovers {value:.1%} [{low:.1%}, {high:.1%}] of the oracle's gain over mixing tiers at random",
    ]
    if not low > 0:
        lines.append("not significantly better than mixing: the router is switched off")
    for part, how in ((manifest["rules"], ""), (manifest.get("cascades", {}), ", looking at answers")):
        lines += [f"  auto:{key}{how}  {Rule.from_dict(rule).describe(manifest['tiers'])}" for key, rule in part.items()]
    return "\n".join(lines)


@click.command()
@AS_JSON
def classifiers(as_json: bool) -> None:
    """List the classifiers that `stepdown train --classifier` knows."""
    from classifiers import CLASSIFIERS, DEFAULT

    first_lines = {name: (make.__doc__ or "").strip().splitlines()[0] for name, make in CLASSIFIERS.items()}
    listed = [f"{name + (' (default)' if name == DEFAULT else ''):22} {line}" for name, line in first_lines.items()]
    show(first_lines, "\n".join(listed), as_json)
