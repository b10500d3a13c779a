"""stepdown log: what was kept to learn from: show it, export it, forget it. Works whether or not the server is running."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
from sqlalchemy import Engine, inspect

from deployments.cli.shared import AS_JSON, LADDER, PATH, FiniteRange, aligned, show
from deployments.costs import ledgers
from deployments.costs.interval import asked_for, utc_text
from deployments.learning.kept.completions import ENDLESS, Chosen
from router.config import Config, load_config
from router.entry_points import load_function
from router.errors import BadConfig, BadInput, BadRequest
from router.flywheel.variants import Versions

F = TypeVar("F", bound=Callable[..., Any])
LEDGER = click.option("--ledger", default=None, help="Another ledger: sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME.")
TIMES = "7d, 24h, 2w, 2026-11-24, 2026-11-24T13:00 (UTC)"
WEIGHTS = "Weights do not forget: train again without these requests, or stop using what was made from them."


def which(command: F) -> F:
    """The options by which requests are chosen."""
    for option in (
        click.option("--tier", default=None, help="Only requests that this tier answered."),
        click.option("--metadata", multiple=True, metavar="NAME=VALUE", help="Only with this metadata; may be repeated."),
        click.option("--key", default=None, help="Only requests of the key with this id."),
        click.option("--until", default=None, help="Only before this time, in the same forms; a date includes that day."),
        click.option("--since", default=None, help=f"Only since this time: {TIMES}.  [default: all that is kept]"),
        LEDGER,
        LADDER,
    ):
        command = option(command)
    return command


@click.group()
def log() -> None:
    """Show, export and forget the requests that were kept to learn from (section `learning` of the configuration)."""


@log.command("show")
@which
@click.option("--last", type=click.IntRange(0, 1000), default=10, show_default=True, help="How many requests to list.")
@AS_JSON
def show_(config: str, ledger: str | None, last: int, as_json: bool, **given: Any) -> None:
    """Show how much is kept, by tier and role, its grades, consent, licences and feedback, and the last requests."""
    from deployments.learning.kept.log_report import report

    settings, chosen = load_config(config), chosen_of(**given)
    with opened(settings, ledger) as engine, engine.connect() as connection:
        found = report(connection, chosen, last)
    show(found, shown(found), as_json)


@log.command()
@which
@click.option("-o", "--output", required=True, type=PATH, help="File to write, as JSONL.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["stepdown", "openai", "sharegpt", "trl"]),
    default="stepdown",
    show_default=True,
    help="stepdown: outcomes as `stepdown label` writes them; openai: fine-tuning; sharegpt; trl: prompt and completion.",
)
@click.option("--partial", is_flag=True, help="stepdown: also requests of which some tier has no grade.")
@click.option(
    "--least-score", type=FiniteRange(0, 1), default=None, help="The other formats: only answers graded so, or corrected."
)
@AS_JSON
def export(
    config: str,
    ledger: str | None,
    output: Path,
    form: Any,
    partial: bool,
    least_score: float | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Write kept requests into a file, redacted once more where `learning.redact` is set.

    An answer that somebody corrected (POST /v1/feedback) is written as corrected.
    """
    from deployments.learning.kept.log_export import Export
    from router.flywheel.rows.outcome_rows import write_rows

    if partial and form != "stepdown":
        raise BadInput(f"--partial is about grades, which {form} has none of; leave it out")
    if least_score is not None and form == "stepdown":
        raise BadInput("--least-score is for formats of one answer; stepdown has the scores of all tiers; leave it out")
    settings, chosen = load_config(config), chosen_of(**given)
    hook = settings.learning.redact
    work = Export(form, settings.names, partial, least_score, load_function(hook, "learning.redact", BadConfig) if hook else None)
    with opened(settings, ledger) as engine:
        work.versions, work.weights = learned_weights(engine, settings)
        rows = write_rows(work.rows(engine, chosen), output)
    found = {"rows": rows, "output": str(output), "format": form, "left_out": dict(work.left_out.most_common())}
    lines = [f"{rows} requests written to {output}", *(f"  left out: {n} x {why}" for why, n in work.left_out.most_common())]
    show(found, "\n".join(lines), as_json)


@log.command()
@which
@click.option("--id", "ids", multiple=True, metavar="ID", help="Only this request: a reply's id or its trace's; may be repeated.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@AS_JSON
def forget(config: str, ledger: str | None, ids: tuple[str, ...], yes: bool, as_json: bool, **given: Any) -> None:
    """Delete kept requests with all their answers, grades and feedback, and name what was made from them.

    Texts that the ledger itself keeps (ledger.store) are not touched.
    """
    from deployments.learning.kept.log_report import about, artefacts, forget_all

    settings, chosen = load_config(config), chosen_of(**given, ids=ids)
    if chosen == Chosen():
        raise BadInput(
            "say what to forget: --key, --metadata, --tier, --since, --until or --id; `--since 2000-01-01` is everything"
        )
    if as_json and not yes:
        raise BadInput("--json asks nothing, so it needs --yes; see first what would go with: stepdown log show")
    # What is kept from now on is not meant, and would have no end.
    chosen = Chosen(chosen.key, None, chosen.tier, chosen.metadata, chosen.since_s, min(chosen.until_s, time.time()), chosen.ids)
    with opened(settings, ledger) as engine:
        if not yes:
            plan = about(engine, chosen)
            with engine.connect() as connection:
                click.echo("\n".join([f"{plan.requests} kept requests are meant", *named(artefacts(connection, plan.made))]))
            if plan.requests:
                click.confirm("forget them", abort=True)
        done = forget_all(engine, chosen)
        with engine.connect() as connection:
            made = artefacts(connection, done.made)
    found = {"requests": done.requests, "answers": done.answers, "artefacts": made}
    text = [f"{done.requests} requests forgotten, with {done.answers} answers", *named(made), *([WEIGHTS] if made else [])]
    show(found, "\n".join(text), as_json)


# -- options ---------------------------------------------------------------------------------------------------------------


def chosen_of(
    since: str | None, until: str | None, key: str | None, metadata: tuple[str, ...], tier: str | None, ids: tuple[str, ...] = ()
) -> Chosen:
    """Raises BadInput."""
    low, high = 0.0, ENDLESS
    try:
        if since or until:
            low, high = asked_for(since or "1970-01-01", until).asked
    except BadRequest as error:
        raise BadInput(str(error)) from None
    return Chosen(key, None, tier, pairs(metadata), low, high if until else ENDLESS, ids)


def pairs(given: tuple[str, ...]) -> Mapping[str, str]:
    """`a=b` -> {a: b}. Raises BadInput."""
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not name or not equals or found.get(name, value) != value:
            raise BadInput(f"--metadata {text[:80]!r}: write NAME=VALUE, each NAME once")
        found[name] = value
    return found


@contextmanager
def opened(settings: Config, ledger: str | None) -> Iterator[Engine]:
    """The ledger with the tables of kept requests. Raises BadInput."""
    with ledgers.open_for_reading(settings.ledger, ledger) as engine:
        if "completions" not in inspect(engine).get_table_names():
            place = engine.url.render_as_string(hide_password=True)
            raise BadInput(f"{place} was made by an older version; start `stepdown serve` on it to bring it up to date")
        yield engine


# -- printing --------------------------------------------------------------------------------------------------------------


def shown(found: Mapping[str, Any]) -> str:
    if not found["requests"]:
        return "nothing of this is kept; `learning.collect: consented` and a key made with --learning keep requests"
    told = found["feedback"]
    tables = [
        ["", *aligned([["tier", "role", "rows"], *([row["tier"], row["role"], f"{row['rows']:,}"] for row in found["rows"])])],
        ["", *aligned([["graded by", "tier", "answers", "scored", "failures"], *map(grade_cells, found["grades"])])],
        ["", *aligned([["when", "key", "asked for", "tier", "prompt", "answer"], *map(last_cells, found["last"])])],
    ]
    lines = [
        f"requests  {found['requests']:,}",
        f"consent   {counts(found['consent'])}",
        f"licences  {counts(found['licences'])}",
        f"feedback  {told['given']:,}, of which {told['failures']:,} say it was not right, {told['corrections']:,} corrections",
    ]
    kept = [table for table, rows in zip(tables, ("rows", "grades", "last"), strict=True) if found[rows]]
    return "\n".join(line.rstrip() for line in [*lines, *(line for table in kept for line in table)])


def counts(found: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n:,}" for name, n in sorted(found.items(), key=lambda pair: -pair[1])) or "-"


def grade_cells(row: Mapping[str, Any]) -> list[str]:
    return [row["source"], row["tier"], *(f"{row[name]:,}" for name in ("answers", "scored", "failures"))]


def last_cells(row: Mapping[str, Any]) -> list[str]:
    when = utc_text(row["created_s"])[:16].replace("T", " ")
    return [when, row["key_id"], row["wanted"], row["tier"], row["prompt"], row["answer"]]


def named(made: list[dict[str, Any]]) -> list[str]:
    """What was made from the forgotten requests."""
    if not made:
        return ["no learned router was made from them"]
    head = ["router", "made from", "run", "made", "in use as"]
    rows = [
        [
            row["digest"][:12],
            f"{row['requests']:,} of them",
            row["run_id"] or "-",
            utc_text(row["made_s"])[:10] if row["made_s"] else "-",
            ", ".join(row["in_use"]) or "-",
        ]
        for row in made
    ]
    return ["learned routers that were made from them:", *(f"  {line}" for line in aligned([head, *rows]))]


def learned_weights(engine: Engine, settings: Config) -> tuple[Versions | None, dict[str, str]]:
    """How answers of learned weights are told apart, and those that are in use; None where no tier has learned any."""
    from deployments.learning.live.model_store import weights_listed
    from deployments.learning.live.started_on import deciding
    from deployments.learning.live.weights import root
    from deployments.learning.live.weights_used import versions_of
    from deployments.tiers.fingerprints import ladder_fingerprints

    with engine.connect() as connection:
        made_before = "tier" not in {column["name"] for column in inspect(connection).get_columns("models")}
        if made_before or not weights_listed(connection):
            return None, {}
        models = ladder_fingerprints(settings)["models"]
        return versions_of(connection, settings, models, root(settings)), deciding(connection, settings)
