"""Runs a file of an SDK's checks in the environment that has the SDK."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.clients.bench import LOCAL, PROXIES
from tests.clients.environment import NODE, SDKS, Environment
from tests.clients.ladder import Ladder

LIMIT_S = 300


@dataclass(frozen=True)
class Sdk:
    """number: of the acceptance list. environment: of `tests.clients.environment`."""

    client: str
    number: int
    file: str
    environment: str


OPENAI = Sdk("openai-py", 2, "openai_py.py", "sdks")
ANTHROPIC = Sdk("anthropic-py", 3, "anthropic_py.py", "sdks")
QUICK = (
    Sdk("openai-js", 2, "openai_js.mjs", "sdks-js"),
    Sdk("anthropic-js", 3, "anthropic_js.mjs", "sdks-js"),
    Sdk("openai-agents", 4, "openai_agents_py.py", "sdks"),
    Sdk("pydantic-ai", 4, "pydantic_ai_py.py", "sdks"),
    Sdk("langchain", 4, "langchain_py.py", "sdks"),
    Sdk("ai sdk", 4, "ai_sdk.mjs", "sdks-js"),
)
"""those that install in seconds"""
MORE = Sdk("litellm, dspy, ...", 7, "more_py.py", "more")


@dataclass(frozen=True)
class Checked:
    """One check's outcome. why: it failed; empty: it passed."""

    check: str
    version: str
    why: str
    took_s: float


def checked(sdk: Sdk, served: Ladder, environment: Environment) -> list[Checked]:
    """Every check of the file, and one more where the file itself broke off."""
    with command(sdk, environment) as (words, folder):
        ran = subprocess.run(
            [*words, "--url", served.origin, "--key", served.key],
            cwd=folder,
            env={**os.environ, **PROXIES, **LOCAL, "PYTHONPATH": ""},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
    lines: list[Mapping[str, Any]] = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith('{"check"')]
    found = [Checked(**line) for line in lines]
    if ran.returncode or not lines:
        found.append(Checked("runs", "", ran.stderr[-1500:] or f"exit {ran.returncode}", 0.0))
    return found


@contextmanager
def command(sdk: Sdk, environment: Environment) -> Iterator[tuple[list[str], Path]]:
    """The words that run the file, and where. Node looks for packages beside a file, so there it is copied beside them."""
    if sdk.environment not in NODE:
        yield [str(environment.python(sdk.environment) / "python"), str(SDKS / sdk.file)], SDKS
        return
    with tempfile.TemporaryDirectory(prefix="stepdown-sdk-") as name:
        folder = Path(name)
        (folder / "node_modules").symlink_to(environment.node(sdk.environment) / "node_modules")
        for file in SDKS.glob("*.mjs"):
            shutil.copy(file, folder)
        yield ["node", sdk.file], folder
