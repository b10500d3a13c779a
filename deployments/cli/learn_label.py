"""stepdown label: run prompts through every tier of a served ladder."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from deployments.cli.shared import AS_JSON, PATH, POSITIVE, FiniteRange, show
from router.learn.labels.grading import find_grader

GRADERS = "exact, numeric, regex, choice, json_schema, judge, or package.module:function."
MOST_REASONS = 8  # shown to people


@click.command()
@click.argument("prompts", type=PATH)
@click.option("-o", "--output", required=True, type=PATH, help="JSONL file of outcomes to write.")
@click.option("--url", default="http://127.0.0.1:8000", show_default=True, help="Address of the ladder, with or without /v1.")
@click.option("--api-key", envvar="STEPDOWN_API_KEY", default="", help="Key of that server.  [default: STEPDOWN_API_KEY]")
@click.option("--tiers", default=None, help="Names of the tiers, cheapest first.  [default: those of --config]")
@click.option("--config", type=PATH, default=None, help="The ladder's YAML file: tiers and prices.")
@click.option("--prices", default=None, help="USD per million tokens: small=0.1,large=3 or small=0.1:0.2 (in:out).")
@click.option("--grader", default="exact", show_default=True, help=GRADERS)
@click.option("--max-tokens", type=POSITIVE, default=256, show_default=True, help="Limit of tokens of an answer.")
@click.option("--concurrency", type=POSITIVE, default=16, show_default=True, help="Requests at once.")
@click.option("--rate", type=FiniteRange(0), default=0.0, show_default=True, help="Limit of requests a second; 0: no limit.")
@AS_JSON
def label(
    prompts: Path,
    output: Path,
    url: str,
    api_key: str,
    tiers: str | None,
    config: Path | None,
    prices: str | None,
    grader: str,
    max_tokens: int,
    concurrency: int,
    rate: float,
    as_json: bool,
) -> None:
    """Run PROMPTS through every tier and grade the answers.

    PROMPTS is JSONL, a JSON list, CSV or Parquet, or one of them gzipped: `id`, `messages` or `prompt` or ShareGPT's
    `conversations`, and `answer`, the reference. A row that cannot be asked or graded has a missing score with its reason. A run
    that was stopped goes on where it stopped when it is started again with the same output: what was paid for is kept.
    """
    from router.learn.inputs import fresh_file, ladder_of, progress_bar  # loads scikit-learn, as does the next
    from router.learn.labels.labelling import Labelling, read_prompts
    from router.learn.labels.ladder_client import ServedLadder

    rows = read_prompts(prompts)
    names, price = ladder_of(tiers, config, prices)
    fresh_file(output, prompts)
    ladder = ServedLadder(url, api_key, names, price, max_tokens, concurrency, rate)
    with progress_bar("answers", len(rows) * len(names)) as progress:
        work = Labelling(rows, ladder, find_grader(grader), output, progress)
        try:
            asyncio.run(work.run(check=True))
        except KeyboardInterrupt:
            click.echo(f"stopped; what was paid for is in {work.journal.path}, and the same command goes on", err=True)
            raise click.exceptions.Exit(130) from None
    summary = {"rows": len(rows), "tiers": names, "reused": work.reused, "output": str(output)}
    summary |= {"missing": work.missing.total(), "reasons": dict(work.missing.most_common())}
    show(summary, text(summary), as_json)


def text(summary: Mapping[str, Any]) -> str:
    """The result for people, with the reasons for missing scores, the most frequent first."""
    reused = f"({summary['reused']} answers from an earlier run)"
    head = f"{summary['rows']} prompts x {len(summary['tiers'])} tiers -> {summary['output']} {reused}"
    reasons = [f"  {n} x {why}" for why, n in summary["reasons"].items()]
    more = (
        [f"  and {len(reasons) - MOST_REASONS} other reasons; each is in its row, as `error`"]
        if len(reasons) > MOST_REASONS
        else []
    )
    missing = [f"{summary['missing']} scores are missing; a rerun asks for these alone:"] if reasons else []
    return "\n".join([head, *missing, *reasons[:MOST_REASONS], *more])
