"""stepdown fit: which ladder fits a machine, with the arithmetic, and the file for it."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from deployments.cli.shared import PATH, FiniteRange, aligned


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option(
    "--gpus", help="The machine: 1x24GB, 2x80GB, 8xH200:141GB, cpu:32GB. By default this one, with the memory free now."
)
@click.option(
    "--windows",
    type=FiniteRange(0, 10_000, min_open=True),
    help="Full windows that each model must have room for. By default 4, and 1 for models that are named.",
)
@click.option(
    "--context", type=click.IntRange(256), help="Tokens of a window. By default 32768; 8192 on CPUs and cards below 20 GB."
)
@click.option(
    "--usd-hour", type=FiniteRange(0, None), help="USD an hour of one card, or of a machine without. By default by its memory."
)
@click.option("--accelerator", help="Ray's name of the cards, such as A100-80G. By default H100 for 80 GB.")
@click.option("--online", is_flag=True, help="Read config.json and the headers of weights of unknown models from the hub.")
@click.option("-o", "--output", type=PATH, help="The file to write. By default the ladder is printed.")
def fit(
    models: tuple[str, ...],
    gpus: str | None,
    windows: float | None,
    context: int | None,
    usd_hour: float | None,
    accelerator: str | None,
    online: bool,
    output: Path | None,
) -> None:
    """The ladder that fits a machine: of the MODELs (hub ids or folders), or of the families of today.

    Nothing is downloaded and nothing started. Which tier is good enough for which request is not known before `stepdown
    label` and `stepdown train`.
    """
    from deployments.fit.found_machine import found_machine
    from deployments.fit.model_files import model_of
    from router.fit.choose import NAMED_WINDOWS, WINDOWS, Wish, chosen, named
    from router.fit.families import known
    from router.fit.machine import parsed
    from router.fit.written import document, notes, table

    machine = parsed(gpus, usd_hour, accelerator) if gpus else found_machine(usd_hour, accelerator)
    wish = Wish(windows or (NAMED_WINDOWS if models else WINDOWS), context or machine.context)
    if models:
        ladder = named(machine, [model_of(given, known(), online) for given in models], wish)
    else:
        ladder = chosen(machine, known().chosen_on(machine.kind), wish)
    command = command_line(click.get_current_context().params)
    click.echo(f"{machine}, of which engines may use {machine.usable / 2**30:.1f} GiB{' each' if machine.cards > 1 else ''}\n")
    click.echo("\n".join(aligned(table(machine, ladder))))
    click.echo("\n" + "\n".join(notes(ladder)))
    text = document(machine, ladder, command, known().as_of)
    if output is None:
        click.echo(f"\n{text}", nl=False)
        return
    output.write_text(text, "utf-8")
    click.echo(f"\nwritten to {output}; next: stepdown check {output}")


def command_line(given: Mapping[str, Any]) -> str:
    """What was asked, for the file's first lines. given: the command's parameters by name."""
    words = ["stepdown", "fit"]
    for option in ("gpus", "windows", "context", "usd_hour", "accelerator"):
        value = given[option]
        if value is not None:
            words += [f"--{option.replace('_', '-')}", f"{value:g}" if isinstance(value, float) else str(value)]
    return shlex.join([*words, *given["models"]])
