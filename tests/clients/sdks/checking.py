"""What the checks of the SDKs share. A file here runs alone, in an environment that has its SDK: `python FILE --url U --key K`.

It prints one JSON line for each check. Its functions are also tests of pytest, where the SDK is installed.
"""

import argparse
import asyncio
import inspect
import json
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}
CALL_WEATHER = 'TOOL get_weather {"city": "Rome"}'
SUNNY = "sunny in Rome"
SAID_SUNNY = f"The tool said: {SUNNY}"


@dataclass(frozen=True)
class Where:
    """A served ladder."""

    origin: str
    """without a path"""
    key: str

    @property
    def url(self) -> str:
        return f"{self.origin}/v1"


Run = Callable[[Where], Any]


def checks(module: dict[str, Any]) -> dict[str, Run]:
    """The checks of a file, by their names: its functions that begin with `does_`."""
    return {name.removeprefix("does_"): run for name, run in module.items() if name.startswith("does_")}


def run(check: Run, where: Where) -> None:
    """Raises whatever the check finds."""
    asyncio.run(check(where)) if inspect.iscoroutinefunction(check) else check(where)


def main(module: dict[str, Any], *packages: str) -> None:
    """packages: those whose versions are shown."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--key", required=True)
    given = parser.parse_args()
    where = Where(given.url, given.key)
    shown = " ".join(version(package) for package in packages)
    for name, check in checks(module).items():
        began, why = time.monotonic(), ""
        try:
            run(check, where)
        except Exception:  # noqa: BLE001  # whatever an SDK raises
            why = traceback.format_exc(limit=-4)
        line = {"check": name, "version": shown, "why": why, "took_s": round(time.monotonic() - began, 2)}
        print(json.dumps(line), flush=True)
