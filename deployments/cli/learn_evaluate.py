"""stepdown evaluate, calibrate and simulate: measure an artefact on prompts with known outcomes, set its targets, try it."""

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deployments.cli.shared import AS_JSON, COSTS, PATH, SEEDS, FiniteRange, show
from deployments.tiers.fingerprints import ladder_fingerprints, to_record
from router.config import load_config
from router.decide.targets import TARGETS
from router.errors import BadInput

if TYPE_CHECKING:
    from classifiers import Artifact
    from classifiers.replies.signals import Seen
    from router.learn.outcomes import Outcomes

SHARE = FiniteRange(0, 1, min_open=True, max_open=True)
QUALITY = FiniteRange(0, 1, min_open=True)
WHOLE_SHARE = FiniteRange(0, 1)
COLUMNS = click.option("--tiers", default=None, help="TIER=NAME,... if columns are named differently from the artefact's tiers.")
SPLIT = click.option("--split", default=None, help="Use only rows of this split: test, val or train.")
SEED = click.option("--seed", type=SEEDS, default=0, show_default=True, help="Seed of the bootstrap.")
CONFIDENCE = FiniteRange(0.5, 0.999)

# What loads scikit-learn is imported inside the commands.


@dataclass(frozen=True)
class Rows:
    """OUTCOMES, with the options that select and interpret their rows."""

    outcomes: tuple[Path, ...]
    tiers: str | None
    split: str | None
    costs: str | None

    def table(self, artefact: "Artifact") -> "Outcomes":
        from router.learn.inputs import measured_rows

        return measured_rows(self.outcomes, self.tiers, artefact.tiers, self.split, self.costs)

    def answers(self, table: "Outcomes", **prefix: int) -> "Seen":
        from router.learn.inputs import answers_of

        return answers_of(self.outcomes, self.tiers, table, **prefix)


def rows_of_outcomes(command: Callable[..., None]) -> Callable[..., None]:
    """Add the argument OUTCOMES and its options to a command, which gets them as `rows`."""

    @wraps(command)
    def called(outcomes: tuple[Path, ...], tiers: str | None, split: str | None, costs: str | None, **others: Any) -> None:
        command(rows=Rows(outcomes, tiers, split, costs), **others)

    return click.argument("outcomes", nargs=-1, required=True, type=PATH)(COLUMNS(SPLIT(COSTS(called))))


@click.command()
@click.argument("artefact", type=PATH)
@rows_of_outcomes
@click.option("--train", "train_file", type=PATH, default=None, help="Rows to fit the baselines on.")
@click.option("--against", type=PATH, default=None, help="Another artefact, for paired differences.")
@SEED
@AS_JSON
def evaluate(artefact: Path, rows: Rows, train_file: Path | None, against: Path | None, seed: int, as_json: bool) -> None:
    """Measure ARTEFACT on OUTCOMES that it was not trained on, and compare it with baselines.

    Intervals are 95 % bootstrap intervals. PGR, APGR and CPT are RouteLLM's; AIQ and the recovered share of the oracle's gap
    are RouterBench's; arena is RouterArena's. Also: the cost at a share of the top tier's quality; AUC, ECE and Brier
    score of each tier's predicted chance.
    """
    from router.learn.compare import compare, compare_text
    from router.learn.inputs import open_artefact

    loaded = open_artefact(artefact)
    table = rows.table(loaded)
    train = replace(rows, outcomes=(train_file,), split=None).table(loaded) if train_file else None
    other = open_artefact(against) if against else None
    found = {**compare(loaded, table, train, other, seed), "repeated": table.repeated}
    show(found, compare_text(found) + repeated(table), as_json)


@click.command()
@click.argument("artefact", type=PATH)
@rows_of_outcomes
@click.option("--quality", type=QUALITY, help="Keep this share of the top tier's quality: 0.98.")
@click.option("--cost", type=WHOLE_SHARE, help="Spend at most this share of what the top tier alone would cost.")
@click.option("--large-share", type=WHOLE_SHARE, help="Send at most this share of requests to the top tier.")
@click.option("--alpha", type=SHARE, help="Certify: at most this share gets a smaller tier's answer worse than the top tier's.")
@click.option("--delta", type=SHARE, default=0.10, show_default=True, help="Probability that the promise of --alpha fails.")
@click.option("--holdback", is_flag=True, help="With --alpha: certify streams under escalation.mode holdback.")
@click.option("--config", type=PATH, default=None, help="The ladder that gave OUTCOMES, to be recorded in the certificate.")
@click.option(
    "--temperature",
    type=FiniteRange(0),
    default=0.0,
    show_default=True,
    help="Temperature of the answers; `stepdown label` uses 0.",
)
@click.option(
    "--name",
    type=click.Choice(TARGETS),
    default="balanced",
    show_default=True,
    help="The target to set: cheap, balanced or quality.",
)
@click.option("--confidence", type=CONFIDENCE, default=0.95, show_default=True, help="Confidence of the bound for --quality.")
@AS_JSON
def calibrate(
    artefact: Path,
    rows: Rows,
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
    as_json: bool,
) -> None:
    """Set a target of ARTEFACT from OUTCOMES that it was not trained on, and write it into the artefact.

    Give one of --quality, --cost, --large-share and --alpha. A quality is promised by a lower confidence bound; if no rule
    keeps it, the target becomes "always the top tier" and the command says so.

    --alpha certifies the acceptance of smaller tiers' answers by Learn-then-Test. If nothing can be certified, the command says
    so and ends with code 3, and under that target every request goes to the top tier.
    """
    from classifiers.artifact import MANIFEST
    from router.learn.calibration import solve
    from router.learn.inputs import fresh_file, open_artefact, rewrite_rule

    if sum(wish is not None for wish in (quality, cost, large_share, alpha)) != 1:
        raise BadInput("give one of --quality, --cost, --large-share and --alpha")
    if holdback and alpha is None:
        raise BadInput("--holdback says which answers --alpha promises something about; give --alpha too")
    loaded = open_artefact(artefact)
    fresh_file(artefact / MANIFEST)
    if alpha is not None:
        prints = to_record(ladder_fingerprints(load_config(config))) if config else {}
        made = {**prints, "sampling": {"temperature": temperature}}
        return certify(artefact, loaded, rows, alpha, delta, holdback, made, name, as_json)
    table = rows.table(loaded)
    guess, recalled = loaded.guess_honestly(list(table.texts))
    rule = solve(guess.p, guess.cost, table, quality, cost, large_share, confidence)
    rewrite_rule(artefact, name, rule)
    known = f" ({recalled} of {len(table)} rows were trained on; judged as if unseen)" if recalled else ""
    known += repeated(table)
    text = f"auto:{name}: {rule.describe(loaded.tiers)}{known}"
    if quality is not None and rule.kind == "tier":
        text += f"\nno cheaper rule is sure to keep that, judged by {len(table)} rows; more rows prove more, even rows trained on"
    show({"name": name, **rule.to_dict()}, text, as_json)


def repeated(table: "Outcomes") -> str:
    """What is said of rows that were given more than once."""
    return f"\n{table.repeated} rows were given before (same prompt and replies) and count once" if table.repeated else ""


def certify(
    folder: Path,
    artefact: "Artifact",
    rows: Rows,
    alpha: float,
    delta: float,
    holdback: bool,
    made: dict[str, Any],
    name: str,
    as_json: bool,
) -> None:
    """`calibrate --alpha`: write the certificate into the manifest, print the region that it was chosen from."""
    from router.decide.certificates import Certificate
    from router.learn.cascades import bind, certificate_text, judged_by, promise, reach_of, rows_to_judge
    from router.learn.certified_rows import certifiable
    from router.learn.inputs import rewrite_manifest

    judged_by(artefact, name, holdback)
    table, left = certifiable(artefact, rows.table(artefact))
    prefix = {"prefix": artefact.posterior.prefix} if artefact.posterior else {}
    judged, _ = rows_to_judge(artefact, table, rows.answers(table, **prefix))
    found, region = promise(artefact, judged, name, alpha, delta, made, reach_of(artefact, table), holdback)
    rewrite_manifest(folder, bind(artefact.manifest, name, found))
    points = [[p.threshold, p.coverage, p.k, p.bound] for p in region]
    notes = left.lines()
    if "models" not in made:
        notes.append("made without --config, so it does not know for which models, and will be stale on every served ladder")
    told = {**found.to_dict(), "left_out": asdict(left), "trained_on": left.trained_on, "region": points}
    show(told, certificate_text(found, region, notes), as_json)
    if not isinstance(found, Certificate):
        sys.exit(3)


@click.command()
@click.argument("artefact", type=PATH)
@rows_of_outcomes
@click.option("-o", "--output", default=None, type=PATH, help="PNG file of the cost-quality curves to write.")
@click.option("--best-of", is_flag=True, help="After the top tier has answered, a smaller tier's answer may still be chosen.")
@SEED
@AS_JSON
def simulate(artefact: Path, rows: Rows, output: Path | None, best_of: bool, seed: int, as_json: bool) -> None:
    """Simulate ARTEFACT on OUTCOMES whose answers are all known: routing, cascading, and both together.

    Every call is paid for, probes included. OUTCOMES, and the rows that ARTEFACT learned from, must hold the answers (`pred|NAME`
    and `out_tok|NAME`, or what `stepdown label` writes). Prints the cost at 95, 98, 99 and 100 % of the top tier's score.
    """
    from router.learn.cascades import rows_to_judge
    from router.learn.inputs import fresh_file, open_artefact
    from router.learn.simulate_report import draw, text
    from router.learn.simulate_report import simulate as play

    if output:
        fresh_file(output, *rows.outcomes)
    loaded = open_artefact(artefact)
    if loaded.posterior is None:
        raise BadInput(f"{artefact}: it knows no answers; train it on outcomes that hold them")
    table = rows.table(loaded)
    judged, recalled = rows_to_judge(loaded, table, rows.answers(table))
    found, frontiers = play(loaded.posterior, judged, best_of, seed=seed)
    if output:
        draw(frontiers, judged, loaded.tiers, output)
    show({"trained_on": recalled, "repeated": table.repeated, **found}, text(found, loaded.tiers) + repeated(table), as_json)
    if recalled and not as_json:
        click.echo(f"{recalled} of these rows were trained on; only their chances before an answer are as if unseen")
