"""stepdown: one command with subcommands, each imported only when it is called or explained."""

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
    "simulate": "deployments.cli.learn_evaluate:simulate",
    "decide": "deployments.cli.learn_decide:decide",
    "explain": "deployments.cli.learn_decide:explain",
    "show": "deployments.cli.learn_decide:show",
    "classifiers": "deployments.cli.learn_train:classifiers",
    "pocket": "deployments.pocket.commands:pocket",
    "keys": "deployments.cli.keys:keys",
    "certificates": "deployments.cli.certificates:certificates",
    "costs": "deployments.cli.costs:costs",
    "replay": "deployments.cli.replay:replay",
    "dashboard": "deployments.cli.dashboard:dashboard",
    "demo": "deployments.cli.demo:demo",
    "bench": "deployments.cli.bench:bench",
}


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
        """Print our errors, and those of files that cannot be read or written, as one line, and exit with code 2."""
        try:
            return super().invoke(ctx)
        except OSError as error:
            if error.filename is None:  # it is no file's: a connection's, a pipe's
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
    """Another installed distribution with a top-level `router`: one of the two would overwrite the other.

    It runs with every command, so it searches lists of files as text: `packages_distributions()` takes ten times as long.
    """
    from importlib.metadata import distributions

    lists = ((distribution, f"\n{distribution.read_text('RECORD') or ''}") for distribution in distributions())
    owners = {distribution.name for distribution, files in lists if "\nrouter/" in files or "\nrouter.py," in files}
    return min(owners - {"stepdown"}, default=None)
