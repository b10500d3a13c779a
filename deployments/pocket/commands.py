"""stepdown pocket: train the embedded ladder again, and write fresh graded prompts for it."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import click

HERE = Path(__file__).parent
KINDS = click.Choice(["single", "composite", "chain"])
KIND = click.option(
    "--kind", type=KINDS, default="single", show_default=True, help="Single tasks, lists of them, or chains of steps."
)
ORDER = ("base", "large", "medium", "small")  # each after the one that it is made from


@click.group()
def pocket() -> None:
    """Train the embedded ladder, or write prompts for it."""


def show(bar: Any, job: Any, tier: str, progress: Any) -> None:
    bar.update(job, completed=progress.tokens, description=f"{tier} loss {progress.loss:.3f}")


@pocket.command()
@click.option("--tier", type=click.Choice(ORDER), default=None, help="Train only this model.  [default: all four]")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("runs/pocket"), show_default=True, help="Folder to write to."
)
@click.option("--seed", default=0, show_default=True, help="Seed of weights and data.")
def train(tier: str | None, out: Path, seed: int) -> None:
    """Train `base`, teach it to plan (`large`), distil `medium` and `small` from that. A killed run resumes where it stopped."""
    from rich.progress import Progress

    from deployments.pocket.train import SHAPES, development_set, exact_match
    from deployments.pocket.train import train as train_tier

    out.mkdir(parents=True, exist_ok=True)
    for name in [tier] if tier else ORDER:
        if (out / name / "model.safetensors").exists():
            click.echo(f"{name}: already trained")
            continue
        with Progress() as bar:
            job = bar.add_task(name, total=SHAPES[name].tokens_m * 1e6)
            model = train_tier(name, out, partial(show, bar, job, name), seed)
        scores = exact_match(model, development_set())
        click.echo(f"{name}: {scores['all']:.3f} of 600 held-out prompts right")


@pocket.command()
@KIND
@click.option("--n", default=100, show_default=True, type=click.IntRange(1, 200_000), help="Number of prompts.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="The same seed gives the same prompts.")
def prompts(kind: Any, n: int, seed: int) -> None:
    """Write graded prompts as JSONL. The recipe never trained on any of them."""
    from deployments.pocket.tasks import fresh

    for i, task in enumerate(fresh(kind, n, seed)):
        row = {
            "id": f"{kind}-{seed}-{i}",
            "messages": [{"role": "user", "content": task.prompt}],
            "answer": task.answer,
            "kind": task.kind,
            "difficulty": task.difficulty,
        }
        click.echo(json.dumps(row))
