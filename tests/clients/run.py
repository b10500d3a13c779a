"""Runs every client against a served ladder and prints what passed: `python -m tests.clients.run [CLIENT...]`.

The clients are installed into `.clients/`, whatever way out of this machine they try is closed, and the exit status is 1 where a
check failed. CLIENT: the beginning of a client's name; none: all of them.
"""

import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.clients import chat_clients, claude_code, codex, libraries, sdk_runs
from tests.clients.bench import Bench, Check
from tests.clients.environment import CLINE, OPEN_WEBUI, ROOT, TERMINAL, Environment, version_of
from tests.clients.ladder import Ladder, ladder

PACKAGES = {
    "codex": "@openai/codex",
    "claude code": "@anthropic-ai/claude-code",
    "opencode": "opencode-ai",
    "qwen-code": "@qwen-code/qwen-code",
    "cline": CLINE,
    "ai sdk": "ai",
    "cn": "@continuedev/cli",
}
"""client -> its node package"""
PROGRAMS = {
    "aider": ("aider", "aider-chat"),
    "llm": ("llm", "llm"),
    "langchain": ("sdks", "langchain-openai"),
    "open webui": (OPEN_WEBUI, "open-webui"),
}
"""client -> its Python environment and package"""
GROUPS = {"cline": CLINE, "ai sdk": "sdks-js"}
"""client -> its group of node packages, where it is not TERMINAL"""
CHECKS: Sequence[Check] = [*codex.CHECKS, *claude_code.CHECKS, *chat_clients.CHECKS, *libraries.CHECKS]


SDKS = (sdk_runs.OPENAI, sdk_runs.ANTHROPIC, *sdk_runs.QUICK, sdk_runs.MORE)


@dataclass(frozen=True)
class Row:
    """One line of the table. why: it failed; empty: it passed."""

    client: str
    version: str
    number: int
    check: str
    why: str
    took_s: float


def sdk_rows(sdk: sdk_runs.Sdk, served: Ladder, environment: Environment) -> Iterator[Row]:
    served.forget()
    try:
        environment.ready(sdk.environment)
    except (OSError, subprocess.SubprocessError) as error:
        yield Row(sdk.client, "", sdk.number, "installs", str(error), 0.0)
        return
    for one in sdk_runs.checked(sdk, served, environment):
        yield Row(sdk.client, one.version, sdk.number, one.check.replace("_", " "), one.why, one.took_s)


def check_row(check: Check, served: Ladder, environment: Environment) -> Row:
    served.forget()
    began, why = time.monotonic(), ""
    with tempfile.TemporaryDirectory(prefix="stepdown-client-", ignore_cleanup_errors=True) as folder:
        try:
            environment.ready(group(check.client))
            check.run(Bench(served, environment, Path(folder)))
        except Exception as error:  # noqa: BLE001  # whatever a check finds is its row
            why = str(error) or traceback.format_exc(limit=-2)
    return Row(check.client, shown_version(check.client, environment), check.number, check.name, why, time.monotonic() - began)


def group(client: str) -> str:
    """The environment that it is in."""
    return PROGRAMS[client][0] if client in PROGRAMS else GROUPS.get(client, TERMINAL)


@cache
def shown_version(client: str, environment: Environment) -> str:
    if client in PACKAGES:
        return version_of(environment, group(client), PACKAGES[client])
    place, package = PROGRAMS[client]
    ask = f"import importlib.metadata as m; print(m.version({package!r}))"
    return subprocess.run([environment.python(place) / "python", "-c", ask], capture_output=True, text=True).stdout.strip()


def rows(wanted: Sequence[str], environment: Environment, folder: Path) -> Iterator[Row]:
    """Those of the clients whose names begin with one of these."""
    chosen = [check for check in CHECKS if begins(check.client, wanted)]
    with ladder(folder) as served:
        for sdk in SDKS:
            if begins(sdk.client, wanted):
                yield from sdk_rows(sdk, served, environment)
        yield from (check_row(check, served, environment) for check in chosen if place(check) == (0, False))
    for window, keeps in sorted({place(check) for check in chosen} - {(0, False)}):
        sections = {"responses": {"store": "memory"}} if keeps else {}
        with ladder(folder, *(("--window", str(window)) if window else ()), **sections) as served:
            yield from (check_row(check, served, environment) for check in chosen if place(check) == (window, keeps))


def place(check: Check) -> tuple[int, bool]:
    """What makes a check's ladder differ from the usual one, which is (0, False)."""
    return check.window or 0, check.keeps


def begins(client: str, wanted: Sequence[str]) -> bool:
    return not wanted or any(client.startswith(name) for name in wanted)


def line(row: Row) -> str:
    passed = "no" if row.why else "yes"
    return f"{row.client:<20} {row.version[:28]:<28} {row.number:>2}  {row.check[:62]:<62} {passed:<4} {row.took_s:6.1f} s"


def main() -> None:
    environment = Environment(ROOT / ".clients")
    failed, count = [], 0
    print(f"{'client':<20} {'version':<28} no  {'check':<62} passed")
    with tempfile.TemporaryDirectory(prefix="stepdown-clients-") as folder:
        for row in rows(sys.argv[1:], environment, Path(folder)):
            print(line(row), flush=True)
            count += 1
            failed += [row] if row.why else []
    for row in failed:
        print(f"\n{row.client}, {row.check}:\n{row.why}")
    print(f"\n{count - len(failed)} of {count} checks passed")
    sys.exit(1 if failed or not count else 0)


if __name__ == "__main__":
    main()
