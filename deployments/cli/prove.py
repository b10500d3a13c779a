"""stepdown prove: evidence on an operator's own models, machines and prompts, in one page."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from deployments.cli.shared import AS_JSON, LADDER, PATH, POSITIVE, SEEDS, FiniteRange
from router.config import load_config
from router.decide.targets import TARGETS
from router.errors import BadInput

SHARE = FiniteRange(0, 1, min_open=True, max_open=True)
NO_SAVING = 3  # exit code


@click.command()
@LADDER
@click.option("--prompts", required=True, type=PATH, help="Prompts: id, messages or prompt, and answer where it is known.")
@click.option("--answers", type=PATH, default=None, help="References: answer, and id (else one row for each prompt).")
@click.option("-o", "--output", required=True, type=PATH, help="Folder of the proof; a run that was stopped goes on there.")
@click.option("--usd", type=FiniteRange(0, min_open=True), default=None, help="Spend at most this, by token prices.")
@click.option("--grader", default=None, help="As for `stepdown label`.  [default: exact where there are references, else judge]")
@click.option("--sample", type=POSITIVE, default=600, show_default=True, help="Use at most so many of the prompts.")
@click.option("--url", default=None, help="A ladder that runs.  [default: start the ladder of --config here]")
@click.option("--api-key", envvar="STEPDOWN_API_KEY", default="", help="Key of that ladder, with the right admin.")
@click.option("--target", type=click.Choice(TARGETS), default=None, help="What auto means.  [default: the configuration's]")
@click.option("--alpha", type=SHARE, default=None, help="Certify as `stepdown calibrate --alpha`.  [default: flywheel.alpha]")
@click.option("--delta", type=SHARE, default=None, help="Probability that this promise fails.  [default: flywheel.delta]")
@click.option("--classifier", default=None, help="One of `stepdown classifiers`.  [default: the best of them]")
@click.option("--max-tokens", type=POSITIVE, default=256, show_default=True, help="Limit of tokens of an answer.")
@click.option("--concurrency", type=POSITIVE, default=16, show_default=True, help="Requests at once while labelling.")
@click.option("--at-once", type=POSITIVE, default=2, show_default=True, help="Requests at once in the live comparison.")
@click.option("--seed", type=SEEDS, default=0, show_default=True, help="Seed of the split, the order and the bootstrap.")
@click.option("--no-texts", is_flag=True, help="Show no prompts and answers in the page, so that it can be given away.")
@AS_JSON
def prove(
    config: str,
    prompts: Path,
    answers: Path | None,
    output: Path,
    usd: float | None,
    grader: str | None,
    sample: int,
    url: str | None,
    api_key: str,
    target: str | None,
    alpha: float | None,
    delta: float | None,
    classifier: str | None,
    max_tokens: int,
    concurrency: int,
    at_once: int,
    seed: int,
    no_texts: bool,
    as_json: bool,
) -> None:
    """Show on your own models, machines and prompts what routing saves, and write it into one HTML page.

    It labels a part of the prompts by every tier, trains and certifies a router, and sends the rest live to `auto` and to the top
    tier, interleaved. OUTPUT/proof.html is the page, OUTPUT/proof.json all figures. The exit code is 0 where a saving is shown, 3
    where none is (the page says so), 130 after Ctrl-C: the same command goes on.
    """
    from deployments.prove.inputs import given  # loads scikit-learn, as do the next
    from deployments.prove.ladder import started
    from deployments.prove.proof import files_of
    from deployments.prove.proof import prove as make
    from deployments.prove.wish import Wish
    from router.learn.inputs import fresh_folder, known_classifier

    loaded = load_config(config)
    if len(loaded.names) < 2:
        raise BadInput(f"{config}: one tier, {loaded.names[0]}; there is nothing to route between, at least two are needed")
    named = loaded.routing.target if isinstance(loaded.routing.target, str) else "balanced"
    wish = Wish(
        config=loaded,
        command_config=config,
        given=given(prompts, answers, grader),
        folder=output,
        url=url or "",
        api_key=api_key,
        usd=usd,
        sample=sample,
        target=target or named,
        alpha=alpha or loaded.flywheel.alpha,
        delta=delta or loaded.flywheel.delta,
        classifier=known_classifier(classifier),
        max_tokens=max_tokens,
        concurrency=concurrency,
        at_once=at_once,
        seed=seed,
        texts=not no_texts,
        command=repeated(click.get_current_context()),
    )
    fresh_folder(output)
    try:
        found = make(wish, lambda said: click.echo(said, err=True), bar, started)
    except KeyboardInterrupt:
        click.echo(f"stopped; what is done and paid for is in {output}, and the same command goes on", err=True)
        raise click.exceptions.Exit(130) from None
    told(found, files_of(output), as_json)
    if not found["verdict"]["shown"]:
        raise click.exceptions.Exit(NO_SAVING)


def told(found: dict[str, Any], files: Any, as_json: bool) -> None:
    """Print the result."""
    import json

    from deployments.prove.page import verdict

    short = {name: found.get(name) for name in ("compared", "verdict", "quality", "cost")} | {"page": str(files[0])}
    click.echo(json.dumps(short) if as_json else f"{verdict(found)}\n{files[0]}\n{files[1]}")


def repeated(context: click.Context) -> str:
    """The command as it can be given again, with the options that were given; a key is never shown."""
    words = ["stepdown", "prove"]
    for parameter in context.command.params:
        value = context.params.get(parameter.name or "")
        if parameter.name == "api_key" or value is None or value is False or value == parameter.default:
            continue
        words += [max(parameter.opts, key=len), *([] if value is True else [str(value)])]
    return shlex.join(words)


@contextmanager
def bar(what: str, total: int) -> Iterator[Any]:
    from router.learn.inputs import progress_bar

    with progress_bar(what, total) as progress:
        yield progress
