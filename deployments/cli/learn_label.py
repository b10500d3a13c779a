"""stepdown label: run prompts through every tier of a served ladder."""

import asyncio
from pathlib import Path

import click

from deployments.cli.shared import AS_JSON, PATH, show
from router.learn.grading import find_grader

GRADERS = "exact, numeric, regex, choice, json_schema, judge, or package.module:function."


@click.command()
@click.argument("prompts", type=PATH)
@click.option("-o", "--output", required=True, type=PATH, help="JSONL file of outcomes to write.")
@click.option("--url", default="http://127.0.0.1:8000", show_default=True, help="Address where the ladder is served.")
@click.option("--api-key", envvar="STEPDOWN_API_KEY", default="", help="Key of that server.  [default: STEPDOWN_API_KEY]")
@click.option("--tiers", default=None, help="Names of the tiers, cheapest first.  [default: those of --config]")
@click.option("--config", type=PATH, default=None, help="The ladder's YAML file: tiers and prices.")
@click.option("--prices", default=None, help="USD per million tokens: small=0.1,large=3 or small=0.1:0.2 (in:out).")
@click.option("--grader", default="exact", show_default=True, help=GRADERS)
@click.option("--max-tokens", default=256, show_default=True, help="Limit of tokens of an answer.")
@click.option("--concurrency", default=16, show_default=True, help="Requests at once.")
@click.option("--rate", default=0.0, show_default=True, help="Limit of requests a second; 0: no limit.")
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
    """Run PROMPTS (JSONL: `id`, `messages` or `prompt`, `answer`) through every tier and grade the answers.

    A killed run resumes where it stopped when it is started again with the same output.
    """
    from router.learn.inputs import ladder_of, progress_bar  # loads scikit-learn, as does the next
    from router.learn.labelling import ServedLadder, label, read_prompts

    rows = read_prompts(prompts)
    names, price = ladder_of(tiers, config, prices)
    ladder = ServedLadder(url, api_key, names, price, max_tokens, concurrency, rate)
    with progress_bar("answers", len(rows) * len(names)) as progress:
        reused = asyncio.run(label(rows, ladder, find_grader(grader), output, progress))
    summary = {"rows": len(rows), "tiers": names, "reused": reused, "output": str(output)}
    show(summary, f"{len(rows)} prompts x {len(names)} tiers -> {output} ({reused} answers from an earlier run)", as_json)
