"""stepdown distil: makes training data from the log, trains a tier on the answers of the one above it, and compares."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deployments.cli.log import chosen_of, opened
from deployments.cli.shared import AS_JSON, LADDER, PATH, POSITIVE, SEEDS, show
from router.config import load_config
from router.errors import BadInput

if TYPE_CHECKING:
    from deployments.distil.answering import Report
    from deployments.distil.comparing import Verdict
    from router.config import VllmTier

# Inside the commands: what loads numpy and the classifiers.

FAILED = 3  # exit code: a gate failed
TRAINING = "deployments.cli.distil_train"
STUDENT = click.option("--student", required=True, help="The tier that learns; it runs on vllm.")
FOLDERS = click.Path(path_type=Path, file_okay=False)


class DistilGroup(click.Group):
    """Imports the commands that need torch when they are called or explained."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return ["data", *(["score", "train"] if find_spec(TRAINING) else []), "evaluate", "adopt"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in ("train", "score") or not find_spec(TRAINING):
            return super().get_command(ctx, cmd_name)
        found: click.Command = getattr(import_module(TRAINING), cmd_name)
        return found


@click.group(cls=DistilGroup)
def distil() -> None:
    """Teach a tier from the answers of a larger one: data from the log, training, and the gates before anything is promoted."""


@distil.command()
@LADDER
@STUDENT
@click.option("--teacher", default=None, help="The tier that it learns from.  [default: the largest]")
@click.option("-o", "--output", type=PATH, default=Path("data"), show_default=True, help="Folder to write.")
@click.option("--since", default=None, help="Only requests since then: 30d, 12h, 2026-11-24.  [default: all that is kept]")
@click.option("--until", default=None, help="Only before this time, in the same forms.")
@click.option("--metadata", multiple=True, metavar="NAME=VALUE", help="Only one workload; may be repeated.")
@click.option("--key", default=None, help="Only requests of the key with this id.")
@click.option("--rows", type=POSITIVE, default=None, help="Most drawn requests, and most others; the newest count.")
@click.option("--seed", type=SEEDS, default=0, show_default=True, help="The same log and seed give the same rows.")
@AS_JSON
def data(
    config: str,
    student: str,
    teacher: str | None,
    output: Path,
    since: str | None,
    until: str | None,
    metadata: tuple[str, ...],
    key: str | None,
    rows: int | None,
    seed: int,
    as_json: bool,
) -> None:
    """Write what a student can learn from the kept requests: what it answers worse than its teacher, and as much that it can.

    Exit code 2: the teacher's licence does not allow it, or too little is kept.
    """
    from deployments.distil import data_folder
    from deployments.learning.student.from_log import Wanted, student_data
    from router.flywheel.rows.cleaning import MOST_ROWS

    settings = load_config(config)
    chosen = chosen_of(since, until, key, metadata, None)
    wanted = Wanted(student, teacher or settings.names[-1], chosen, seed, rows or MOST_ROWS)
    if output.exists() and not data_folder.replaceable(output):
        raise BadInput(f"{output}: is there already and is no data folder; choose another -o, or move it away")
    with opened(settings, None) as engine:
        found, about = student_data(engine, settings, wanted, time.time(), reporter(f"asking {student} offline", as_json))
    manifest = data_folder.write(output, found, about)
    finish(as_json)
    show({"output": str(output), **manifest}, data_text(output, manifest), as_json)


@distil.command()
@click.argument("run", type=FOLDERS)
@click.argument("data_", metavar="DATA", type=FOLDERS)
@LADDER
@AS_JSON
@click.pass_context
def evaluate(ctx: click.Context, run: Path, data_: Path, config: str, as_json: bool) -> None:
    """Compare the student before and after a RUN on the test rows of DATA. Writes RUN/evaluation.json.

    Exit code 3: a gate failed.
    """
    from deployments.distil import data_folder, model_identity

    settings, folder = load_config(config), data_folder.read(data_)
    model = model_of(run)
    check_trained_on(run, folder.manifest)
    tier = student_tier(settings, folder.student)
    model_identity.check_same(identity_in(folder.manifest), model_identity.identity_of(model), model, tier.name)
    found = compared(folder, tier, model, run / "evaluation", reporter("answering offline", as_json), settings)
    finish(as_json)
    said = {"run": str(run), "data": str(data_), "dataset_sha256": folder.manifest["dataset_sha256"], **found.report}
    write_json(run / "evaluation.json", said)
    show(said, verdict_text(found), as_json)
    if not found.passed:
        click.echo(f"stepdown: {found.why}", err=True)
        ctx.exit(FAILED)


@distil.command()
@click.argument("folder", type=FOLDERS)
@LADDER
@STUDENT
@click.option("--data", "data_", required=True, type=FOLDERS, help="The data folder whose test rows decide.")
@click.option("--licence", required=True, help="The licence of the adopted model, such as apache-2.0.")
@click.option("--name", default=None, help="What the model is called; some licences want a certain beginning.")
@AS_JSON
@click.pass_context
def adopt(
    ctx: click.Context, folder: Path, config: str, student: str, data_: Path, licence: str, name: str | None, as_json: bool
) -> None:
    """Check a model that was trained elsewhere, and keep it if it passes the same gates. Prints its digest.

    `stepdown flywheel run --student NAME --adopt DIGEST` takes it on from there. Exit code 3: a gate failed.
    """
    from deployments.distil import data_folder, model_identity
    from deployments.learning.live import weights
    from deployments.learning.student import adopted
    from router.distil.licences import checked_name

    settings, source = load_config(config), data_folder.read(data_)
    if source.student != student:
        raise BadInput(f"{data_}: is data for {source.student}, not for {student}; give the data that {student} was trained on")
    tier = student_tier(settings, student)
    safe(folder, weights.files_of)
    model_identity.check_same(identity_in(source.manifest), model_identity.identity_of(folder), folder, student)
    called = checked_name(name or folder.resolve().name, source.manifest.get("name_begins", []))
    found = compared(source, tier, folder, None, reporter("answering offline", as_json), settings)
    finish(as_json)
    if not found.passed:
        show({"folder": str(folder), "digest": None, **found.report}, verdict_text(found), as_json)
        click.echo(f"stepdown: {found.why}", err=True)
        ctx.exit(FAILED)
    about = {
        "name": called,
        "student": student,
        "parents": [source.manifest["student"]["fingerprint"]],
        "licence": licence,
        "learned_from": source.manifest["licences"],
        "dataset_sha256": source.manifest["dataset_sha256"],
        "evaluation": found.report,
        "adopted_s": time.time(),
    }
    digest = adopted.keep(folder, weights.root(settings), about)
    text = f"{verdict_text(found)}\n{digest}\nnow: stepdown flywheel run --config {config} --student {student} --adopt {digest}"
    show({"folder": str(folder), "digest": digest, **found.report}, text, as_json)


# -- parts -----------------------------------------------------------------------------------------------------------------


def student_tier(settings: Any, name: str) -> "VllmTier":
    """Raises BadInput."""
    from deployments.learning.student.from_log import student_of

    return student_of(settings, name)


def model_of(run: Path) -> Path:
    """The model of a run, or a model's own folder. Raises BadInput."""
    found = run / "model" if (run / "model").is_dir() else run
    if not any(found.glob("*.safetensors")):
        raise BadInput(f"{run}: holds no model/ with .safetensors; let `stepdown distil train` finish first")
    return found


def check_trained_on(run: Path, manifest: Mapping[str, Any]) -> None:
    """A run on other data may have been trained on these test rows. Raises BadInput."""
    from deployments.distil.model_identity import json_of

    told = json_of(run / "manifest.json").get("dataset_sha256")
    if told and told != manifest["dataset_sha256"]:
        raise BadInput(
            f"{run}: was trained on data {str(told)[:12]}, not on {manifest['dataset_sha256'][:12]}, whose test rows it may have "
            f"seen; give the data that it was trained on"
        )


def identity_in(manifest: Mapping[str, Any]) -> Any:
    """That of the student for which the data was made."""
    from deployments.distil.model_identity import Identity

    return Identity(**{name: manifest[name] for name in Identity.__slots__ if name in manifest})


def safe(folder: Path, files_of: Any) -> None:
    """Refuse what could run code. Raises BadInput."""
    from deployments.distil.model_identity import json_of

    files_of(folder)
    for name in ("config.json", "tokenizer_config.json"):
        if "auto_map" in json_of(folder / name):
            raise BadInput(f"{folder / name}: names code of its own (auto_map), which is never run here; export the plain model")


def compared(source: Any, tier: "VllmTier", model: Path, work: Path | None, report: "Report", settings: Any) -> "Verdict":
    """The student as it was when the data was made, and the new model."""
    from deployments.distil.answering import spec_of
    from deployments.distil.comparing import evaluated
    from deployments.learning.live import weights

    used = source.manifest["student"].get("weights", "")
    before = spec_of(tier, weights.find(used, weights.root(settings)) if used else "", greedy=True)
    return evaluated(source, before, spec_of(tier, model.absolute(), greedy=True), report, work)


def write_json(path: Path, found: Any) -> None:
    from classifiers.files import atomic_write

    atomic_write(path, json.dumps(found, indent=2) + "\n")


# -- printing --------------------------------------------------------------------------------------------------------------


def reporter(what: str, as_json: bool) -> "Report":
    """One line that is written over in a terminal; with --json a line for each progress, on standard error."""

    def report(done: int, total: int) -> None:
        if as_json:
            click.echo(json.dumps({"stage": what, "done": done, "of": total}), err=True)
        elif sys.stderr.isatty():
            click.echo(f"\r\x1b[K{what}: {done:,} of {total:,}", err=True, nl=False)

    return report


def finish(as_json: bool) -> None:
    if not as_json and sys.stderr.isatty():
        click.echo("\r\x1b[K", err=True, nl=False)


def data_text(output: Path, manifest: Mapping[str, Any]) -> str:
    sides = [f"  {side:5}  {sum(by.values()):>6,}  {said(by)}" for side, by in manifest["counts"].items()]
    left = [f"  left out: {count:,} x {why}" for why, count in sorted(manifest["left_out"].items(), key=lambda pair: -pair[1])]
    head = (
        f"{output}: data {manifest['dataset_sha256'][:12]} for {manifest['student']['tier']} from {manifest['teacher']['tier']}"
    )
    licences = ", ".join(f"{name} {count:,}" for name, count in manifest["licences"].items())
    return "\n".join([head, *sides, f"  licences: {licences}", *(f"  {note}" for note in manifest["notes"]), *left])


def said(by: Mapping[str, int]) -> str:
    names: Sequence[tuple[str, str]] = (("failure", "failures"), ("success", "successes"), ("correction", "corrections"))
    return ", ".join(f"{by[name]:,} {many}" for name, many in names if name in by)


def verdict_text(found: "Verdict") -> str:
    slices = [
        f"  {name:30} {one['before']:.3f} -> {one['after']:.3f}  ({one['won']} won, {one['lost']} lost of {one['n']})"
        for name, one in found.report["slices"].items()
    ]
    gates = [f"  {'passed' if gate.passed else 'FAILED'}  {gate.name}: {gate.why}" for gate in found.gates]
    return "\n".join([f"{found.report['rows']} test rows", *slices, *gates])
