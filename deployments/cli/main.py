"""stepdown: one command with subcommands, each loaded only when it is called."""

import importlib
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
    "simulate": "deployments.cli.learn_simulate:simulate",
    "decide": "deployments.cli.learn_decide:decide",
    "explain": "deployments.cli.learn_decide:explain",
    "show": "deployments.cli.learn_decide:show",
    "classifiers": "deployments.cli.learn_train:classifiers",
    "pocket": "deployments.pocket.commands:pocket",
    "keys": "deployments.cli.keys:keys",
    "costs": "deployments.cli.costs:costs",
    "replay": "deployments.cli.replay:replay",
    "dashboard": "deployments.cli.dashboard:dashboard",
    "demo": "deployments.cli.demo:demo",
    "bench": "deployments.cli.bench:bench",
}


class Lazy(click.Group):
    """A group whose subcommands are imported when they are asked for: `stepdown check` needs no Ray."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Errors of ours, and of a file that cannot be read or written, are one line and exit code 2, never a trace."""
        try:
            return super().invoke(ctx)
        except OSError as error:
            if error.filename is None:  # no file: a connection, a pipe
                raise
            click.echo(f"stepdown: {error.filename}: {error.strerror}", err=True)
            ctx.exit(2)
        except (StepdownError, ValueError) as error:
            if not isinstance(error, StepdownError) and type(error).__module__.split(".")[0] != "classifiers":
                raise
            click.echo(f"stepdown: {error}", err=True)
            ctx.exit(2)


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
    """Another distribution that owns a top-level `router`: one of the two would overwrite the other.

    Asked at every command, so lists of files are searched as text: `packages_distributions()` takes ten times as long.
    """
    from importlib.metadata import distributions

    lists = ((distribution, f"\n{distribution.read_text('RECORD') or ''}") for distribution in distributions())
    owners = {distribution.name for distribution, files in lists if "\nrouter/" in files or "\nrouter.py," in files}
    return min(owners - {"stepdown"}, default=None)
