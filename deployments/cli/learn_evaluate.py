"""stepdown evaluate and calibrate: what an artefact is worth on prompts with known outcomes, and its targets."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from classifiers import Artifact

TIERS_HELP = "TIER=NAME,… where the table's columns are named otherwise than the artefact's tiers."


@click.command()
@click.argument("artefact", type=click.Path(path_type=Path))
@click.argument("outcomes", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--tiers", default=None, help=TIERS_HELP)
@click.option("--split", default=None, help="Only rows of this split: test, val or train.")
@click.option("--train", "train_file", type=click.Path(path_type=Path), default=None, help="Rows to fit the baselines on.")
@click.option("--against", type=click.Path(path_type=Path), default=None, help="Another artefact: paired differences.")
@click.option("--costs", default=None, help="USD a request where the table has no costs: small=0.001,large=0.02.")
@click.option("--seed", default=0, show_default=True, help="Of the bootstrap.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def evaluate(
    artefact: Path,
    outcomes: tuple[Path, ...],
    tiers: str | None,
    split: str | None,
    train_file: Path | None,
    against: Path | None,
    costs: str | None,
    seed: int,
    as_json: bool,
) -> None:
    """Measure ARTEFACT on OUTCOMES it was not trained on, beside the baselines, with 95 % bootstrap intervals.

    PGR, APGR, CPT: RouteLLM; AIQ and the share of the oracle's gap recovered: RouterBench; arena: RouterArena; cost at
    a share of the top tier's quality; AUC, ECE and Brier score of each tier's chance.
    """
    import json

    from router.learn.compare import compare, compare_text
    from router.learn.inputs import measured_rows, open_artefact

    loaded = open_artefact(artefact)
    table = measured_rows(outcomes, tiers, loaded.tiers, split, costs)
    train = measured_rows((train_file,), tiers, loaded.tiers, None, costs) if train_file else None
    other = open_artefact(against) if against else None
    found = compare(loaded, table, train, other, seed)
    click.echo(json.dumps(found) if as_json else compare_text(found))


@click.command()
@click.argument("artefact", type=click.Path(path_type=Path))
@click.argument("outcomes", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--quality", type=click.FloatRange(0, 1.5), help="Keep this share of the top tier's quality: 0.98.")
@click.option("--cost", type=click.FloatRange(0, 1), help="Spend at most this share of always the top tier.")
@click.option("--large-share", type=click.FloatRange(0, 1), help="Send at most this share to the top tier.")
@click.option(
    "--alpha",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Certify: at most this share of requests gets a smaller tier's answer that is worse than the top tier's.",
)
@click.option(
    "--delta",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.10,
    show_default=True,
    help="Chance that --alpha is not kept.",
)
@click.option(
    "--holdback",
    is_flag=True,
    help="With --alpha: certify streams under escalation.mode holdback, which are accepted by their first tokens.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    default=None,
    help="The ladder that gave OUTCOMES: its models and templates are noted in the certificate.",
)
@click.option("--temperature", default=0.0, show_default=True, help="That the answers were sampled with; 0 by `stepdown label`.")
@click.option("--name", default="balanced", show_default=True, help="The target to set: cheap, balanced or quality.")
@click.option(
    "--confidence",
    type=click.FloatRange(0.5, 0.999),
    default=0.95,
    show_default=True,
    help="Of the lower bound that must keep --quality.",
)
@click.option("--tiers", default=None, help=TIERS_HELP)
@click.option("--split", default=None, help="Only rows of this split.")
@click.option("--costs", default=None, help="USD a request where the table has no costs.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def calibrate(
    artefact: Path,
    outcomes: tuple[Path, ...],
    quality: float | None,
    cost: float | None,
    large_share: float | None,
    alpha: float | None,
    delta: float,
    holdback: bool,
    config: Path | None,
    temperature: float,
    name: str,
    confidence: float,
    tiers: str | None,
    split: str | None,
    costs: str | None,
    as_json: bool,
) -> None:
    """Set a target of ARTEFACT from OUTCOMES it was not trained on, and write it into the artefact.

    One of --quality, --cost, --large-share and --alpha. A quality is promised on a lower confidence bound; where no rule
    keeps it, the target becomes "always the top tier" and the command says so.

    --alpha certifies the acceptance of smaller tiers' answers by Learn-then-Test. Where nothing can be certified the
    command says so and ends with code 3, and under that target every request goes to the top tier.
    """
    import json

    from router.errors import BadInput
    from router.learn.calibration import solve
    from router.learn.inputs import measured_rows, open_artefact, rewrite_rule

    if sum(wish is not None for wish in (quality, cost, large_share, alpha)) != 1:
        raise BadInput("give one of --quality, --cost, --large-share and --alpha")
    if holdback and alpha is None:
        raise BadInput("--holdback says which answers --alpha is promised of; give --alpha too")
    loaded = open_artefact(artefact)
    if alpha is not None:
        made = fingerprints(config, temperature)
        return certify(artefact, loaded, outcomes, alpha, delta, holdback, made, name, tiers, split, costs, as_json)
    table = measured_rows(outcomes, tiers, loaded.tiers, split, costs)
    guess, recalled = loaded.guess_honestly(list(table.texts))
    rule = solve(guess.p, guess.cost, table, quality, cost, large_share, confidence)
    rewrite_rule(artefact, name, rule)
    known = f" ({recalled} of {len(table)} rows were trained on; judged as if unseen)" if recalled else ""
    text = f"auto:{name}: {rule.describe(loaded.tiers)}{known}"
    if quality is not None and rule.kind == "tier":
        text += f"\nnothing cheaper is sure to keep that by {len(table)} rows; more prove more, those trained on included"
    click.echo(json.dumps({"name": name, **rule.to_dict()}) if as_json else text)


def fingerprints(config: Path | None, temperature: float) -> dict[str, Any]:
    """What the answers came from, as far as it is known."""
    from router.config import load_config

    if config is None:
        return {"sampling": {"temperature": temperature}}
    from deployments.tiers.fingerprints import of

    return {**of(load_config(config)), "sampling": {"temperature": temperature}}


def certify(
    folder: Path,
    artefact: "Artifact",
    outcomes: tuple[Path, ...],
    alpha: float,
    delta: float,
    holdback: bool,
    made: dict[str, Any],
    name: str,
    tiers: str | None,
    split: str | None,
    costs: str | None,
    as_json: bool,
) -> None:
    """`calibrate --alpha`: the certificate goes into the manifest, the region it was chosen from is printed."""
    import json
    import sys

    from router.decide.certificates import Certificate
    from router.learn.cascades import bind, certificate_text, promise, reach_of, rows_to_judge
    from router.learn.inputs import answers_of, measured_rows, rewrite_manifest

    table = measured_rows(outcomes, tiers, artefact.tiers, split, costs)
    prefix = {"prefix": artefact.posterior.prefix} if artefact.posterior else {}
    rows, recalled = rows_to_judge(artefact, table, answers_of(outcomes, tiers, table, **prefix))
    found, region = promise(artefact, rows, name, alpha, delta, made, reach_of(artefact, table), holdback)
    rewrite_manifest(folder, bind(artefact.manifest, name, found))
    shown = {**found.to_dict(), "trained_on": recalled, "region": [[p.threshold, p.coverage, p.k, p.bound] for p in region]}
    click.echo(json.dumps(shown) if as_json else certificate_text(found, region, recalled))
    if not isinstance(found, Certificate):
        sys.exit(3)
