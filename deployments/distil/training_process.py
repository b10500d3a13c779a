"""A training in a process of its own: `python -m deployments.distil.training_process DATA BASE RUN [WANTED]`.

WANTED is a JSON object: fields of `Asked`, and `parents`, `base_name`, `threads` and `beside` (end when the standard input does).
RUN/progress.jsonl tells how far it is: lines with `event` progress, finished, interrupted or failed. The code is 0 when it is
finished, 2 when it cannot be done and the last line says why, 3 when it was asked to end (SIGTERM, or the end of its input): the
same call then goes on. Killed in any other way, it goes on from its checkpoint too.
"""

import json
import os
import signal
import sys
import threading
from dataclasses import fields
from pathlib import Path
from typing import Any

from router.distil.recipe import Asked
from router.errors import BadInput, StepdownError

FINISHED = 0
CANNOT = 2
INTERRUPTED = 3


def main(arguments: list[str]) -> int:
    """Returns the exit code."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    run = Path(arguments[2])
    from deployments.distil.run_folder import WANTED, RunFolder
    from deployments.distil.trainer import Interrupted
    from deployments.distil.training import train

    note = RunFolder(run).note
    try:
        wanted = json.loads(arguments[3]) if len(arguments) > 3 else {}
        if wanted.pop("beside", False):
            threading.Thread(target=watch_input, args=(ended,), daemon=True).start()
        use_threads(wanted.pop("threads", None))
        manifest = train(job_of(Path(arguments[0]), Path(arguments[1]), run, wanted), lambda progress, recipe: None, ended.is_set)
    except Interrupted:
        note({"event": "interrupted"})
        return INTERRUPTED
    except StepdownError as error:
        if (run / WANTED).is_file():
            note({"event": "failed", "message": str(error)})
        print(f"stepdown: {error}", file=sys.stderr)
        return CANNOT
    note(
        {
            "event": "finished",
            "tokens": manifest["tokens"],
            "seconds": manifest["seconds"],
            "model_sha256": manifest["model_sha256"],
        }
    )
    return FINISHED


def job_of(data: Path, base: Path, run: Path, wanted: dict[str, Any]) -> Any:
    """Raises BadInput for a name that it does not know."""
    from deployments.distil.training import Job

    parents, base_name = tuple(wanted.pop("parents", ())), wanted.pop("base_name", "")
    known = [field.name for field in fields(Asked)]
    if unknown := sorted(set(wanted) - set(known)):
        expected = ", ".join([*known, "parents", "base_name", "threads", "beside"])
        raise BadInput(f"{unknown[0]!r} is no wish of a training; expected {expected}")
    return Job(data, base, run, Asked(**wanted), parents, base_name)


def use_threads(number: int | None) -> None:
    """None: as torch chooses."""
    if number is not None:
        import torch

        torch.set_num_threads(number)


def watch_input(ended: threading.Event) -> None:
    """Ask for the end when the parent is gone, or closes the pipe."""
    while os.read(0, 1024):
        pass
    ended.set()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
