"""stepdown: one command with subcommands, each imported only when it is called or explained."""

import os
import tempfile
import traceback
from pkgutil import resolve_name
from typing import Any

import click

from router.errors import StepdownError

COMMANDS = {
    "serve": "deployments.serve.command:serve",
    "check": "deployments.cli.check:check",
    "label": "deployments.cli.learn_label:label",
    "train": "deployments.cli.learn_train:train",
    "evaluate": "deployments.cli.learn_evaluate:evaluate",
    "calibrate": "deployments.cli.learn_evaluate:calibrate",
    "prove": "deployments.cli.prove:prove",
    "simulate": "deployments.cli.learn_evaluate:simulate",
    "decide": "deployments.cli.learn_decide:decide",
    "explain": "deployments.cli.learn_decide:explain",
    "show": "deployments.cli.learn_decide:show",
    "classifiers": "deployments.cli.learn_train:classifiers",
    "pocket": "deployments.pocket.commands:pocket",
    "keys": "deployments.cli.keys:keys",
    "certificates": "deployments.cli.certificates:certificates",
    "flywheel": "deployments.cli.flywheel:flywheel",
    "distil": "deployments.cli.distil:distil",
    "costs": "deployments.cli.costs:costs",
    "log": "deployments.cli.log:log",
    "replay": "deployments.cli.replay:replay",
    "dashboard": "deployments.cli.dashboard:dashboard",
    "demo": "deployments.cli.demo:demo",
    "bench": "deployments.cli.bench:bench",
}


TRACE = "STEPDOWN_TRACE"  # environment variable: if set, errors are raised with their traces


class Lazy(click.Group):
    """A group that imports a subcommand when it is called: `stepdown check` needs no Ray."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = resolve_name(COMMANDS[cmd_name])
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Print our errors, and those of files that cannot be read or written, as one line, and exit with code 2.

        Any other error is a mistake of ours: its trace goes to a file, which the line names, and the code is 1.
        """
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click's own, and a reader that left
        except Exception as error:
            said, code = explained(error)
            if os.environ.get(TRACE):
                raise
            click.echo(f"stepdown: {said}", err=True)
            ctx.exit(code)


def explained(error: Exception) -> tuple[str, int]:
    """One line about an error, and the exit code."""
    if isinstance(error, StepdownError) or (isinstance(error, ValueError) and type(error).__module__.startswith("classifiers.")):
        return str(error), 2
    if isinstance(error, OSError) and error.filename is not None:  # else it is no file's: a connection's, a pipe's
        return f"{error.filename}: {error.strerror}", 2
    where = trace_file(error)
    return f"unexpected error: {type(error).__name__}: {one_line(error)[:300]}; its trace is in {where}, please report it", 1


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def trace_file(error: Exception) -> str:
    """Write the trace to a new file. Returns its name, or how to see the trace where no file can be written."""
    try:
        with tempfile.NamedTemporaryFile("w", prefix="stepdown-", suffix=".log", delete=False, errors="replace") as file:
            file.write("".join(traceback.format_exception(error)))
        return file.name
    except OSError:
        return f"nowhere, no file can be written; set {TRACE}=1 to print it"


@click.group(cls=Lazy)
@click.version_option(package_name="stepdown")
def main() -> None:
    """Route each request to the cheapest model that is capable of it."""
    other = claimed_elsewhere()
    if other:
        raise click.ClickException(
            f"the installed package {other!r} also has a module named router; install stepdown in an environment of its own"
        )


def claimed_elsewhere() -> str | None:
    """Another installed distribution with a top-level `router`: one of the two would overwrite the other.

    It runs with every command, so it searches lists of files as text: `packages_distributions()` takes ten times as long.
    """
    from importlib.metadata import distributions

    lists = ((distribution, f"\n{distribution.read_text('RECORD') or ''}") for distribution in distributions())
    owners = {distribution.name for distribution, files in lists if "\nrouter/" in files or "\nrouter.py," in files}
    return min(owners - {"stepdown"}, default=None)
