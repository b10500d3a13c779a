"""stepdown evaluate and calibrate: measure an artefact on prompts with known outcomes, and set its targets."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deployments.cli.shared import AS_JSON, COLUMNS, COSTS, PATH, SEED, SPLIT, show
from deployments.tiers.fingerprints import ladder_fingerprints
from router.config import load_config
from router.errors import BadInput

if TYPE_CHECKING:
    from classifiers import Artifact
    from router.learn.outcomes import Outcomes

SHARE = click.FloatRange(0, 1, min_open=True, max_open=True)

# Inside the commands: what loads scikit-learn.


@click.command()
@click.argument("artefact", type=PATH)
@click.argument("outcomes", nargs=-1, required=True, type=PATH)
@COLUMNS
@SPLIT
@click.option("--train", "train_file", type=PATH, default=None, help="Rows to fit the baselines on.")
@click.option("--against", type=PATH, default=None, help="Another artefact, for paired differences.")
@COSTS
@SEED
@AS_JSON
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
    """Measure ARTEFACT on OUTCOMES that it was not trained on, and compare it with baselines.

    Intervals are 95 % bootstrap intervals. PGR, APGR and CPT are RouteLLM's; AIQ and the recovered share of the oracle's gap
    are RouterBench's; arena is RouterArena's. Also: the cost at a share of the top tier's quality; AUC, ECE and Brier
    score of each tier's predicted chance.
    """
    from router.learn.compare import compare, compare_text
    from router.learn.inputs import measured_rows, open_artefact

    loaded = open_artefact(artefact)
    table = measured_rows(outcomes, tiers, loaded.tiers, split, costs)
    train = measured_rows((train_file,), tiers, loaded.tiers, None, costs) if train_file else None
    other = open_artefact(against) if against else None
    found = compare(loaded, table, train, other, seed)
    show(found, compare_text(found), as_json)


@click.command()
@click.argument("artefact", type=PATH)
@click.argument("outcomes", nargs=-1, required=True, type=PATH)
@click.option("--quality", type=click.FloatRange(0, 1.5), help="Keep this share of the top tier's quality: 0.98.")
@click.option("--cost", type=click.FloatRange(0, 1), help="Spend at most this share of what the top tier alone would cost.")
@click.option("--large-share", type=click.FloatRange(0, 1), help="Send at most this share of requests to the top tier.")
@click.option(
    "--alpha",
    type=SHARE,
    help="Certify that at most this share of requests gets a smaller tier's answer that is worse than the top tier's.",
)
@click.option(
    "--delta", type=SHARE, default=0.10, show_default=True, help="Probability with which the promise of --alpha may fail."
)
@click.option(
    "--holdback",
    is_flag=True,
    help="With --alpha: certify streams under escalation.mode holdback, which are accepted by their first tokens.",
)
@click.option(
    "--config", type=PATH, default=None, help="The ladder that gave OUTCOMES; the certificate records its models and templates."
)
@click.option(
    "--temperature", default=0.0, show_default=True, help="Temperature of the answers; `stepdown label` samples with 0."
)
@click.option("--name", default="balanced", show_default=True, help="The target to set: cheap, balanced or quality.")
@click.option(
    "--confidence",
    type=click.FloatRange(0.5, 0.999),
    default=0.95,
    show_default=True,
    help="Confidence of the lower bound that must keep --quality.",
)
@COLUMNS
@SPLIT
@COSTS
@AS_JSON
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
    """Set a target of ARTEFACT from OUTCOMES that it was not trained on, and write it into the artefact.

    Give one of --quality, --cost, --large-share and --alpha. A quality is promised by a lower confidence bound; if no rule
    keeps it, the target becomes "always the top tier" and the command says so.

    --alpha certifies the acceptance of smaller tiers' answers by Learn-then-Test. If nothing can be certified, the command says
    so and ends with code 3, and under that target every request goes to the top tier.
    """
    from router.learn.calibration import solve
    from router.learn.inputs import answers_of, measured_rows, open_artefact, rewrite_rule

    if sum(wish is not None for wish in (quality, cost, large_share, alpha)) != 1:
        raise BadInput("give one of --quality, --cost, --large-share and --alpha")
    if holdback and alpha is None:
        raise BadInput("--holdback says which answers --alpha promises something about; give --alpha too")
    loaded = open_artefact(artefact)
    table = measured_rows(outcomes, tiers, loaded.tiers, split, costs)
    if alpha is not None:
        made = fingerprints(config, temperature)
        prefix = {"prefix": loaded.posterior.prefix} if loaded.posterior else {}
        seen = answers_of(outcomes, tiers, table, **prefix)
        return certify(artefact, loaded, table, seen, alpha, delta, holdback, made, name, as_json)
    guess, recalled = loaded.guess_honestly(list(table.texts))
    rule = solve(guess.p, guess.cost, table, quality, cost, large_share, confidence)
    rewrite_rule(artefact, name, rule)
    known = f" ({recalled} of {len(table)} rows were trained on; judged as if unseen)" if recalled else ""
    text = f"auto:{name}: {rule.describe(loaded.tiers)}{known}"
    if quality is not None and rule.kind == "tier":
        text += f"\nno cheaper rule is sure to keep that, judged by {len(table)} rows; more rows prove more, even rows trained on"
    show({"name": name, **rule.to_dict()}, text, as_json)


def fingerprints(config: Path | None, temperature: float) -> dict[str, Any]:
    """What made the answers, as far as it is known."""
    sampling = {"sampling": {"temperature": temperature}}
    return sampling if config is None else {**ladder_fingerprints(load_config(config)), **sampling}


def certify(
    folder: Path,
    artefact: "Artifact",
    table: "Outcomes",
    seen: Any,
    alpha: float,
    delta: float,
    holdback: bool,
    made: dict[str, Any],
    name: str,
    as_json: bool,
) -> None:
    """`calibrate --alpha`: write the certificate into the manifest, print the region that it was chosen from."""
    from router.decide.certificates import Certificate
    from router.learn.cascades import bind, certificate_text, promise, reach_of, rows_to_judge
    from router.learn.inputs import rewrite_manifest

    rows, recalled = rows_to_judge(artefact, table, seen)
    found, region = promise(artefact, rows, name, alpha, delta, made, reach_of(artefact, table), holdback)
    rewrite_manifest(folder, bind(artefact.manifest, name, found))
    points = [[p.threshold, p.coverage, p.k, p.bound] for p in region]
    show({**found.to_dict(), "trained_on": recalled, "region": points}, certificate_text(found, region, recalled), as_json)
    if not isinstance(found, Certificate):
        sys.exit(3)
