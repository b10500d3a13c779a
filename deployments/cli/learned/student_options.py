"""What `stepdown flywheel` asks of a run for a student: options, and what they say together."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from deployments.cli.log import pairs
from deployments.cli.shared import POSITIVE
from router.config import Config
from router.errors import BadInput

if TYPE_CHECKING:
    from deployments.learning.flywheel import Flywheel
    from deployments.learning.student.asked import StudentAsked

F = TypeVar("F", bound=Callable[..., Any])
ONLY = ("router",)
"""what may be learned alone"""
STUDENT = click.option("--student", default=None, metavar="TIER", help="The tier that learns: new weights, and their router.")
TEACHER = click.option("--teacher", default=None, metavar="TIER", help="The tier that it learns from.  [default: the largest]")
WISHES = (
    click.option("--adopt", default="", metavar="DIGEST", help="Try weights that `stepdown distil adopt` has kept; train none."),
    click.option("--tokens", type=POSITIVE, default=None, help="Of the training, padding included."),
    click.option("--lora/--no-lora", default=None, help="Train adapters, or all weights.  [default: what fits]"),
)


def wishes(command: F) -> F:
    """The options of one training."""
    for option in reversed(WISHES):
        command = option(command)
    return command


def student_of(
    config: Config, only: str | None, student: str | None, teacher: str | None, metadata: tuple[str, ...], **wished: Any
) -> "StudentAsked | None":
    """What a run is for; None: a router alone. wished: `adopt`, and fields of `router.distil.recipe.Asked`. Raises BadInput."""
    from deployments.learning.student.asked import StudentAsked, checked

    if only is not None and only not in ONLY:
        raise BadInput(f"--only {only}: only a router can be learned alone; use --only router, or --student TIER")
    adopt = wished.pop("adopt", "") or ""
    recipe = {name: value for name, value in wished.items() if value is not None}
    if student is None:
        if teacher or metadata or adopt or recipe:
            raise BadInput("--teacher, --metadata, --adopt, --tokens and --lora are for a student; say which with --student TIER")
        return None
    if only is not None:
        raise BadInput("--only router learns a router alone, and --student TIER new weights with a router; give one of the two")
    if adopt and recipe:
        raise BadInput("--adopt tries weights as they are, so --tokens and --lora have no meaning beside it; leave them out")
    return checked(config, StudentAsked(student, teacher or config.names[-1], pairs(metadata), adopt, recipe))


def workloads(
    config: Config, student: str | None, teacher: str | None, metadata: tuple[str, ...]
) -> "tuple[StudentAsked | None, ...]":
    """The students that `watch` looks after in turn, each with one workload, and a router alone where its promise is broken.

    metadata: one workload each; `a=b,c=d` is one with two pairs.
    """
    if student is None:
        student_of(config, None, None, teacher, metadata)
        return (None,)
    each: list[tuple[str, ...]] = [tuple(text.split(",")) for text in metadata] or [()]
    return (*(student_of(config, None, student, teacher, pairs) for pairs in each), None)


def check_under_way(one: "Flywheel", student: "StudentAsked | None") -> None:
    """A run that is under way goes on; if it is for something else, the command says so. Raises BadInput."""
    from deployments.learning import runs
    from deployments.learning.steps.work import STUDENT as KIND

    with one.work.engine.connect() as connection:
        run = runs.latest(connection)
    if run is None or run.closed:
        return
    same = student.same_workload(run.settings) if student else run.kind != KIND
    if not same:
        raise BadInput(
            f"{run.id} is under way, {told(run.kind, run.settings)}; let it go on with `stepdown flywheel watch`, or give it up "
            "with `stepdown flywheel rollback`"
        )


def told(kind: str, settings: Mapping[str, Any]) -> str:
    """`for small from large (app=mail)`."""
    from deployments.learning.student.asked import StudentAsked

    given = settings.get("student")
    return f"for {StudentAsked.from_json(given).workload}" if given else f"for a {kind} alone"
