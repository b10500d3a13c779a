"""From a data folder and a base to a trained model in a run folder: the whole of `stepdown distil train`."""

import hashlib
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from deployments.distil import adapters, base_models, encoding, losses, scores
from deployments.distil.batching import EncodedRow, RowSource, in_order
from deployments.distil.model_card import card
from deployments.distil.run_folder import ADAPTER, MODEL, RunFolder
from deployments.distil.trainer import Progress, Report, Trainer
from router.distil.recipe import Asked, Device, Recipe, recipe_for
from router.errors import BadInput

DEV_SHARE = 0.05  # of the training's tokens that one look at dev rows may take
DEV_PASS = 4_096  # tokens of one pass over dev rows
PACKAGES = ("torch", "transformers", "peft", "safetensors", "stepdown")


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be trained, on what, and where it goes."""

    data: Path
    base: Path
    run: Path
    asked: Asked = Asked()
    parents: tuple[str, ...] = ()
    """digests of weights that it descends from, beside the base"""
    base_name: str = ""
    """what the base is called in manifests; empty: its folder's name"""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a training needs beside the model."""

    recipe: Recipe
    rows: Sequence[EncodedRow]
    dev: Sequence[EncodedRow]
    left_out: Mapping[str, int]
    tokenizer: Any
    manifest: Mapping[str, Any]
    """of the data folder"""
    wanted: Mapping[str, Any]


def train(job: Job, report: Callable[[Progress, Recipe], None], stop: Callable[[], bool] = lambda: False) -> Mapping[str, Any]:
    """Train, or go on where an earlier call was killed; returns the manifest. A finished run: at once, nothing is done.

    Raises BadInput; Interrupted where `stop` said so.
    """
    run = RunFolder(job.run)
    ready = prepared(job, run)
    if (done := run.manifest) is not None:
        return done
    device = device_here()
    recipe = ready.recipe
    model = started(job, recipe, device)
    source = RowSource(ready.rows, recipe.seed, recipe.micro_tokens, recipe.batch_tokens, pad=0)
    dev = in_order(ready.dev, min(DEV_PASS, recipe.micro_tokens), pad=0)
    identity = str(ready.wanted["identity"])
    trainer = Trainer(model, recipe, source, losses.LOSSES[recipe.loss], job.run, dev, identity)
    progress = trainer.run(noted(run, recipe, report), stop)
    publish(job, run, trainer.model, ready)
    manifest = described(job, ready, progress, device)
    run.finish(manifest, card(manifest))
    return manifest


def prepared(job: Job, run: RunFolder) -> Prepared:
    """Read and encode the rows, decide the recipe, and claim the folder. Raises BadInput."""
    manifest = encoding.read_manifest(job.data)
    tokenizer = base_models.load_tokenizer(job.base)
    check_fits(manifest, job.base, tokenizer)
    size = base_models.size_of(job.base)
    ends = base_models.ends_of(job.base, tokenizer)
    longest = min(job.asked.longest or size.context, size.context)
    found, dev = (
        encoding.encode(list(encoding.read_rows(job.data, side)), tokenizer, ends, longest) for side in ("train", "dev")
    )
    if not found.rows:
        raise BadInput(f"{job.data}: none of its rows can be learned {dict(found.left_out) or ''}; expected at least one")
    recipe = recipe_for(size, device_here(), memory_here(), tokens_once(found.rows), job.asked)
    wanted = run.claim(what_is_wanted(job, recipe))
    recipe = Recipe.model_validate(wanted["recipe"])
    short = [row for row in found.rows if len(row.ids) <= recipe.longest]
    left_out = {**found.left_out, encoding.TOO_LONG: found.left_out.get(encoding.TOO_LONG, 0) + len(found.rows) - len(short)}
    dev_rows = few([row for row in dev.rows if len(row.ids) <= recipe.longest], int(DEV_SHARE * recipe.tokens))
    if not short:
        raise BadInput(f"{job.data}: no row has at most {recipe.longest} tokens; train with a larger --longest")
    if recipe.loss == "token":
        short, dev_rows = (scores.joined(job.data, rows, tokenizer) for rows in (short, dev_rows))
    return Prepared(recipe, short, dev_rows, {k: n for k, n in left_out.items() if n}, tokenizer, manifest, wanted)


def check_fits(manifest: Mapping[str, Any], base: Path, tokenizer: Any) -> None:
    """Refuse rows that were made for another template or tokenizer. Raises BadInput."""
    found = {
        "template_sha256": base_models.template_sha256(tokenizer),
        "tokenizer_sha256": base_models.sha256(base / "tokenizer.json"),
    }
    for name, here in found.items():
        if manifest.get(name) and here and manifest[name] != here:
            raise BadInput(
                f"the rows were made for a {name.removesuffix('_sha256')} {manifest[name][:12]}, {base} has {here[:12]}; give "
                "the base that the tier serves, or make the data again"
            )


def what_is_wanted(job: Job, recipe: Recipe) -> dict[str, Any]:
    """What makes two trainings the same one, and the recipe."""
    same = {
        "asked": asdict(job.asked),
        "rows_sha256": rows_sha256(job.data),
        "scores_sha256": scores.sha256_of(job.data) if job.asked.loss == "token" else "",
        "base_sha256": base_models.digest_of(job.base),
    }
    identity = hashlib.sha256(repr((sorted(same.items()), recipe.model_dump_json())).encode()).hexdigest()
    return {**same, "recipe": recipe.model_dump(), "identity": identity}


def rows_sha256(data: Path) -> str:
    """Of the rows that are learned and looked at."""
    return hashlib.sha256("".join(base_models.sha256(data / f"{side}.jsonl") for side in ("train", "dev")).encode()).hexdigest()


def tokens_once(rows: Sequence[EncodedRow]) -> int:
    return sum(len(row.ids) for row in rows)


def few(rows: Sequence[EncodedRow], tokens: int) -> list[EncodedRow]:
    """The first rows, as many as have that many tokens together."""
    taken: list[EncodedRow] = []
    for row in rows:
        tokens -= len(row.ids)
        if tokens < 0 and taken:
            break
        taken.append(row)
    return taken


def started(job: Job, recipe: Recipe, device: Device) -> Any:
    """The base with what is to be trained, on its device."""
    torch.manual_seed(recipe.seed)
    if recipe.rank is None:
        return base_models.load_model(job.base, torch.float32, device)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    return adapters.with_adapters(base_models.load_model(job.base, dtype, device), recipe)


def noted(run: RunFolder, recipe: Recipe, report: Callable[[Progress, Recipe], None]) -> Report:
    """Tell the caller after each step, and write a line at each look at the dev rows and every hundredth step."""
    looks = 0

    def told(progress: Progress) -> None:
        nonlocal looks
        if len(progress.dev) > looks or progress.steps % 100 == 0:
            looks = len(progress.dev)
            run.note(line_of(progress, recipe))
        report(progress, recipe)

    return told


def line_of(progress: Progress, recipe: Recipe) -> dict[str, Any]:
    """How far it is, for a line of JSON."""
    return {
        "event": "progress",
        "tokens": progress.tokens,
        "of": recipe.tokens,
        "steps": progress.steps,
        "loss": progress.loss,
        "dev_loss": progress.dev[-1][1] if progress.dev else None,
        "dev_right": progress.right[-1] if progress.right else None,
        "seconds": round(progress.seconds, 1),
    }


def publish(job: Job, run: RunFolder, model: Any, ready: Prepared) -> None:
    """Write the trained model, and the adapter it came from. Raises OSError."""
    name = job.base_name or job.base.name
    if ready.recipe.rank is not None:
        adapter = run.publish(ADAPTER, lambda folder: adapters.save_adapter(model, folder, name))
        model = adapters.merged(job.base, adapter)
    else:
        model = model.to(base_models.stored_dtype(job.base))
    run.publish(MODEL, lambda folder: adapters.save_model(model, ready.tokenizer, job.base, folder))


def described(job: Job, ready: Prepared, progress: Progress, device: Device) -> dict[str, Any]:
    """The run's manifest."""
    licences = ready.manifest.get("licences") or sorted({row.licence for row in encoding.read_rows(job.data, "train")} - {""})
    base = ready.wanted["base_sha256"]
    return {
        "form": 1,
        "recipe": ready.recipe.model_dump(),
        "asked": asdict(job.asked),
        "dataset_sha256": ready.manifest.get("dataset_sha256") or ready.wanted["rows_sha256"],
        "rows_sha256": ready.wanted["rows_sha256"],
        "base": {"name": job.base_name or job.base.name, "sha256": base, "parameters": base_models.size_of(job.base).parameters},
        "model_sha256": base_models.digest_of(job.run / MODEL),
        "parents": [base, *job.parents],
        "licences": licences if isinstance(licences, dict) else list(licences),
        "seed": ready.recipe.seed,
        "rows": len(ready.rows),
        "dev_rows": len(ready.dev),
        "left_out": dict(ready.left_out),
        "tokens": progress.tokens,
        "steps": progress.steps,
        "seconds": round(progress.seconds, 1),
        "dev": progress.dev,
        "dev_right": progress.right,
        "ended_early": progress.ended_early,
        "device": torch.cuda.get_device_name()
        if device == "cuda"
        else f"{platform.machine()}, {torch.get_num_threads()} threads",
        "versions": {name: found for name in PACKAGES if (found := installed(name))},
    }


def installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def device_here() -> Device:
    return "cuda" if torch.cuda.is_available() else "cpu"


def memory_here() -> float:
    """Bytes of the GPU, or of the machine where there is none."""
    if torch.cuda.is_available():
        return float(torch.cuda.get_device_properties(0).total_memory)
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
