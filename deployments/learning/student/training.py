"""Runs a training as a child process: niced, ended with this one, watched by what it writes down."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from deployments.learning.student.parts import Report
from router.errors import BadInput

COMMAND = (sys.executable, "-m", "deployments.distil.training_process")
NICENESS = 10  # requests come first
LOOK_S = 1.0
END_S = 30.0  # for the child to write its checkpoint when it is asked to end
PROGRESS = "progress.jsonl"
LAST_BYTES = 8_192  # of the child's last words, and of its progress


def run(data: Path, base: Path, folder: Path, wanted: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Train to the end, from where an earlier call got to. Returns the run's manifest. Raises BadInput with the reason."""
    folder.mkdir(parents=True, exist_ok=True)
    asked = json.dumps({**wanted, "beside": True})
    with (folder.parent / f"{folder.name}.log").open("w+b") as log:
        process = subprocess.Popen(
            [*COMMAND, str(data), str(base), str(folder), asked], stdin=subprocess.PIPE, stdout=log, stderr=log
        )
        with suppress(OSError):  # it has ended already
            os.setpriority(os.PRIO_PROCESS, process.pid, os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)
        try:
            while process.poll() is None:
                time.sleep(LOOK_S)
                tell(folder / PROGRESS, report)
        finally:
            ended(process)
        if process.returncode:
            raise BadInput(f"the training ended with code {process.returncode}: {last_words(log)}")
    try:
        return dict(json.loads((folder / "manifest.json").read_text("utf-8")))
    except (OSError, ValueError):
        raise BadInput(f"{folder}: the training has left no manifest.json; run it again") from None


def ended(process: "subprocess.Popen[bytes]") -> None:
    """Ask the child to end, if it has not; it writes its checkpoint first."""
    assert process.stdin
    process.stdin.close()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def tell(path: Path, report: Report) -> None:
    """Report the last line of progress."""
    with suppress(OSError, ValueError):
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - LAST_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
        found = next((one for line in reversed(lines) if (one := parsed(line)).get("event") == "progress"), {})
        if "tokens" in found and "of" in found:
            rest = {name: value for name, value in found.items() if name not in ("event", "tokens", "of")}
            report(int(found["tokens"]), int(found["of"]), rest)


def parsed(line: str) -> dict[str, Any]:
    """Empty for what is no JSON object, as a line that is being written."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def last_words(log: IO[bytes]) -> str:
    """The last line of what the child said."""
    log.seek(0, os.SEEK_END)
    log.seek(max(0, log.tell() - LAST_BYTES))
    lines = [line.strip() for line in log.read().decode("utf-8", "replace").splitlines() if line.strip()]
    return (lines or ["nothing"])[-1].removeprefix("stepdown: ")[:500]
