"""stepdown distil train and score."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from deployments.cli.shared import AS_JSON, LADDER, PATH, POSITIVE, SEEDS, FiniteRange, show
from router.config import load_config
from router.distil.recipe import RANKS, Asked, Recipe
from router.errors import BadInput

LOSS = click.Choice(["sequence", "token"])
RANK = click.Choice([str(rank) for rank in RANKS])
RATE = FiniteRange(0, 1, min_open=True)
JSON_EVERY_S = 1.0  # between two lines of progress


@click.command()
@click.argument("data", type=PATH)
@click.option("-o", "--output", required=True, type=PATH, help="Folder of the run. The same command again goes on in it.")
@LADDER
@click.option("--student", default=None, help="The tier to train.  [default: the one that DATA was made for]")
@click.option("--base", type=PATH, default=None, help="Folder of the model to train, instead of a tier's.")
@click.option("--lora/--no-lora", default=None, help="Train adapters, or all weights.  [default: all weights where that fits]")
@click.option("--rank", type=RANK, default=None, help="Rank of the adapters.  [default: 16, on a GPU 32]")
@click.option("--tokens", type=POSITIVE, default=None, help="In all, padding included.  [default: 2.4 million, or two passes]")
@click.option("--seed", type=SEEDS, default=0, show_default=True, help="Same seed, rows and base: same weights, on one thread.")
@click.option("--loss", type=LOSS, default="sequence", show_default=True, help="token needs `stepdown distil score` before.")
@click.option("--longest", type=POSITIVE, default=None, help="Tokens of a row; longer rows are left out, never cut.")
@click.option("--rate", type=RATE, default=None, help="Learning rate.  [default: what suits the model and the machine]")
@click.option("--threads", type=POSITIVE, default=None, help="Of the processor.  [default: 1 for small models, else all]")
@AS_JSON
def train(
    data: Path,
    output: Path,
    config: str,
    student: str | None,
    base: Path | None,
    lora: bool | None,
    rank: str | None,
    tokens: int | None,
    seed: int,
    loss: Any,
    longest: int | None,
    rate: float | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Train a model on the rows of DATA, a folder that `stepdown distil data` wrote.

    A killed run goes on where it was when the same command is given again, to the same end. OUTPUT/model is a folder that vLLM
    serves; with --lora, OUTPUT/adapter is the adapter that was merged into it.
    """
    from deployments.distil.run_folder import RunFolder
    from deployments.distil.training import Job
    from deployments.distil.training import train as run

    asked = Asked(lora, int(rank) if rank else None, tokens, seed, loss, longest, rate)
    folder, name = (base, base.resolve().name) if base else student_folder(data, config, student)
    use_threads(threads, folder)
    finished = RunFolder(output).manifest is not None
    with progress_of("training", as_json) as tell:
        manifest = run(
            Job(data, folder, output, asked, base_name=name), lambda progress, recipe: tell(*figures(progress, recipe))
        )
    said = f"{output}: was finished already; nothing was done\n" if finished else ""
    show({"event": "finished", "already": finished, **manifest}, said + summary(manifest, output), as_json)


@click.command()
@click.argument("data", type=PATH)
@click.option("--top", type=click.IntRange(1, 1_000), default=20, show_default=True, help="Log-probabilities at each token.")
@LADDER
@click.option("--teacher", type=PATH, default=None, help="Folder of the teacher's model.  [default: that of the tier in DATA]")
@click.option("--student", type=PATH, default=None, help="Folder of the student's model, to compare vocabularies.")
@AS_JSON
def score(data: Path, top: int, config: str, teacher: Path | None, student: Path | None, as_json: bool) -> None:
    """Keep the teacher's log-probabilities of the answers in DATA, for `stepdown distil train --loss token`.

    Teacher and student must have the same vocabulary. A killed run goes on with the first shard that is missing.
    """
    from deployments.distil import scoring
    from deployments.distil.encoding import read_manifest

    named = (read_manifest(data).get("teacher") or {}).get("tier")
    folder = teacher or tier_folder(config, named, "the teacher", "--teacher FOLDER")
    with progress_of("scoring", as_json) as tell:
        manifest = scoring.score(
            scoring.Scoring(data, folder, top, student),
            lambda done, of: tell(done, of, {"event": "progress", "shards": done, "of": of}),
        )
    by = f"{manifest['rows']} rows scored by {manifest['teacher']['name']}"
    text = f"{by}, top {top}, in {manifest['shards']} shards -> {data / 'scores'}"
    show({"event": "finished", **manifest}, text, as_json)


# -- where models are -------------------------------------------------------------------------------------------------------


def student_folder(data: Path, config: str, student: str | None) -> tuple[Path, str]:
    """(folder, name) of the model to train. Raises BadInput."""
    from deployments.distil.encoding import read_manifest

    tier = student or (read_manifest(data).get("student") or {}).get("tier")
    return tier_folder(config, tier, "the student", "--base FOLDER"), str(tier)


def tier_folder(config: str, tier: str | None, who: str, instead: str) -> Path:
    """The folder of a tier's model. Raises BadInput."""
    ladder = load_config(config)
    found = next((one for one in ladder.tiers if one.name == tier), None)
    if found is None:
        raise BadInput(
            f"{who}: found tier {tier!r}, expected one of {', '.join(ladder.names)} in {config}; name it, or give {instead}"
        )
    if (folder := found.model_source.folder) is None:
        raise BadInput(f"tier {tier}: its model is no folder on this machine; download it as safetensors and give {instead}")
    return folder


def use_threads(threads: int | None, folder: Path) -> None:
    """One thread is fastest for models of a few million parameters. Raises BadInput."""
    import torch

    from deployments.distil.base_models import size_of
    from router.distil.recipe import SMALL

    if threads is None and size_of(folder).parameters < SMALL:
        threads = 1
    if threads is not None:
        torch.set_num_threads(threads)


# -- what is said -----------------------------------------------------------------------------------------------------------

Tell = Callable[[int, int, dict[str, Any]], None]
"""(done, of, the same and more as a line of JSON)"""


def figures(progress: Any, recipe: Recipe) -> tuple[int, int, dict[str, Any]]:
    from deployments.distil.training import line_of

    return progress.tokens, recipe.tokens, line_of(progress, recipe)


@contextmanager
def progress_of(what: str, as_json: bool) -> Iterator[Tell]:
    """A bar on a terminal, lines of JSON with --json, nothing elsewhere."""
    import time

    from router.learn.inputs import progress_bar

    if not as_json:
        with progress_bar(what, 1) as bar:
            yield lambda done, of, line: bar(min(done, of), of)
        return
    last = -JSON_EVERY_S

    def told(done: int, of: int, line: dict[str, Any]) -> None:
        nonlocal last
        if (now := time.monotonic()) - last >= JSON_EVERY_S or done >= of:
            last = now
            click.echo(json.dumps(line))
            sys.stdout.flush()

    yield told


def summary(manifest: dict[str, Any] | Any, output: Path) -> str:
    """The result of a training, for people."""
    recipe, dev = manifest["recipe"], manifest["dev"]
    how = "all weights" if recipe["rank"] is None else f"LoRA of rank {recipe['rank']}"
    lines = [
        f"{manifest['base']['name']}: {how}, {manifest['rows']} rows, {manifest['tokens']} tokens in {manifest['seconds']:.0f} s "
        f"-> {output / 'model'}" + (f" and {output / 'adapter'}" if recipe["rank"] else "")
    ]
    if dev:
        right = manifest["dev_right"]
        lines.append(f"dev rows answered right: {right[0]:.3f} before, {max(right):.3f} kept")
    if manifest["ended_early"]:
        lines.append("it ended early: dev rows did not go any better")
    lines += [f"left out: {rows} rows: {reason}" for reason, rows in manifest["left_out"].items()]
    return "\n".join(lines)
