"""stepdown label: prompts through every tier of a running ladder."""

from pathlib import Path

import click


@click.command()
@click.argument("prompts", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="JSONL of outcomes to write.")
@click.option("--url", default="http://127.0.0.1:8000", show_default=True, help="Where the ladder is served.")
@click.option("--api-key", envvar="STEPDOWN_API_KEY", default="", help="Its key; by default STEPDOWN_API_KEY.")
@click.option("--tiers", default=None, help="Names, cheapest first; by default those of --config.")
@click.option("--config", type=click.Path(path_type=Path), default=None, help="The ladder's YAML: tiers and prices.")
@click.option("--prices", default=None, help="USD per million tokens: small=0.1,large=3 or small=0.1:0.2 (in:out).")
@click.option(
    "--grader",
    default="exact",
    show_default=True,
    help="exact, numeric, regex, choice, json_schema, judge, or package.module:function.",
)
@click.option("--max-tokens", default=256, show_default=True, help="Longest answer.")
@click.option("--concurrency", default=16, show_default=True, help="Requests at once.")
@click.option("--rate", default=0.0, show_default=True, help="Most requests a second; 0 is no limit.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
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

    A run that was killed goes on where it stopped when it is started again with the same output.
    """
    import asyncio
    import json

    from router.learn.grading import find_grader
    from router.learn.inputs import ladder_of, progress_bar
    from router.learn.labelling import ServedLadder, label, read_prompts

    rows = read_prompts(prompts)
    names, price = ladder_of(tiers, config, prices)
    ladder = ServedLadder(url, api_key, names, price, max_tokens, concurrency, rate)
    with progress_bar("answers", len(rows) * len(names)) as progress:
        reused = asyncio.run(label(rows, ladder, find_grader(grader), output, progress))
    summary = {"rows": len(rows), "tiers": names, "reused": reused, "output": str(output)}
    text = f"{len(rows)} prompts x {len(names)} tiers -> {output} ({reused} answers from an earlier run)"
    click.echo(json.dumps(summary) if as_json else text)
