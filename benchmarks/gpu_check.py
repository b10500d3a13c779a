"""Ten minutes on a GPU: what Stepdown promises about shares of a card, rungs and dozing, measured by whoever has one.

    make gpu-check            # or: python -m benchmarks.gpu_check -o FOLDER

Starts Qwen3-0.6B and Qwen3-4B on the first GPU (shares 0.3 and 0.6; the weights are downloaded if they are not there). Writes
one JSON line a step into gpu_check.jsonl and the page gpu_check.md, both whole after every step. A step that fails is a result,
and the next one follows. Ctrl-C ends what was started and keeps what was written. Nobody has run it on a GPU yet.
"""

import argparse
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import gpu_cards, gpu_ladder, gpu_steps
from benchmarks.gpu_ladder import Ladder
from benchmarks.gpu_steps import Figures, Surroundings
from router.errors import BadInput

INTERRUPTED = 130  # the exit status of a shell's command after Ctrl-C
Start = Callable[[bool], AbstractContextManager[Ladder]]
WANTED = {
    "fit": "a prediction for both engines",
    "start": "both answer; caches within 5 % of the prediction",
    "rungs": "off thinks nothing, brief at most 512 tokens, free most; right answers do not fall",
    "doze": "memory is freed; the same greedy answer after the wake; no answer is cut, no short one fails",
    "kill": "another tier answers meanwhile, and the small one returns",
    "speed": "what sharing the card costs",
    "start at once": "without the lock caches may be off, or an engine refuses to start",
}
"""step -> what to look for"""


@dataclass
class Results:
    """What was found, on disk after each step. folder: for gpu_check.jsonl and gpu_check.md."""

    folder: Path
    found: list[dict[str, Any]] = field(default_factory=list)

    def write(self, step: str, took_s: float, figures: Mapping[str, Any]) -> None:
        line = {"step": step, "at": datetime.now(UTC).isoformat(timespec="seconds"), "took_s": round(took_s, 1), **figures}
        self.found.append(line)
        print(json.dumps(line), flush=True)
        with (self.folder / "gpu_check.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
        (self.folder / "gpu_check.md").write_text(page(self.found))

    def of(self, step: str) -> Figures:
        """Empty: it found nothing."""
        return next((line for line in self.found if line["step"] == step), {})


def page(found: Sequence[Mapping[str, Any]]) -> str:
    """The page in Markdown: a table for each step, and what is missing."""
    done = {line["step"] for line in found}
    missing = [step for step in WANTED if step not in done]
    parts = ["# What a GPU says\n"]
    if missing:
        parts.append(f"Not measured: {', '.join(missing)}.\n")
    for line in found:
        parts.append(f"## {line['step']}\n\n{line['at']}, {line['took_s']} s. Look for: {WANTED.get(line['step'], 'nothing')}.\n")
        if "error" in line:
            parts.append(f"Failed: {line['error']}\n")
        figures = list(rows({name: value for name, value in line.items() if name not in ("step", "at", "took_s", "error")}))
        if figures:
            parts.append("\n".join(["| figure | value |", "| --- | --- |", *figures]) + "\n")
    return "\n".join(parts)


def rows(figures: Mapping[str, Any], under: str = "") -> Iterator[str]:
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from rows(value, f"{under}{name}, ")
        else:
            yield f"| {under}{name.replace('_', ' ')} | {'not known' if value is None else value} |"


def run(results: Results, around: Surroundings, start: Start, only: Sequence[str] = ()) -> None:
    """All steps, in this order. The ladder ends before another is started, and whatever ends this function.

    only: steps to run; empty: all. Raises KeyboardInterrupt, after the step under way is written down as interrupted.
    """
    wanted = [step for step in WANTED if not only or step in only]
    if "fit" in wanted:
        noted(results, around, "fit", lambda: gpu_steps.fit(around))
    on_ladder: dict[str, Callable[[Ladder], Figures]] = {
        "rungs": gpu_steps.rungs,
        "doze": lambda ladder: gpu_steps.doze(ladder, around),
        "kill": lambda ladder: gpu_steps.kill(ladder, around),
        "speed": lambda ladder: gpu_steps.speed(ladder, around),
    }
    if {"start", *on_ladder} & {*wanted}:
        with ExitStack() as running:
            if ladder := begun(results, around, running, start, "start", locked=True):
                for step, work in on_ladder.items():
                    if step in wanted:
                        noted(results, around, step, lambda work=work: work(ladder))
    if "start at once" in wanted:
        with ExitStack() as running:
            begun(results, around, running, start, "start at once", locked=False)


def begun(results: Results, around: Surroundings, running: ExitStack, start: Start, step: str, locked: bool) -> Ladder | None:
    """A ladder that runs until `running` ends; None: it did not start."""
    made: list[Ladder] = []

    def work() -> Figures:
        began_s = around.clock()
        made.append(running.enter_context(start(locked)))
        return gpu_steps.start(made[0], around, results.of("fit"), around.clock() - began_s)

    noted(results, around, step, work)
    return made[0] if made else None


def noted(results: Results, around: Surroundings, step: str, work: Callable[[], Figures]) -> None:
    """Do the step and write down what it found, or that it failed. Raises KeyboardInterrupt."""
    print(f"{step} ...", flush=True)
    began_s = around.clock()
    figures: Figures = {"error": "interrupted"}
    try:
        figures = work()
    except Exception as error:  # noqa: BLE001 whatever breaks, the next step may still tell something
        figures = {"error": f"{type(error).__name__}: {error}"[:1_000]}
    finally:
        results.write(step, around.clock() - began_s, figures)


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("-o", "--output", type=Path, default=Path("gpu_check"), help="Folder for the results.")
    asked.add_argument("--steps", default="", help=f"Only these, with commas between: {', '.join(WANTED)}.")
    given = asked.parse_args()
    only = [step.strip() for step in given.steps.split(",") if step.strip()]
    if unknown := [step for step in only if step not in WANTED]:
        raise SystemExit(f"--steps: found {unknown[0]!r}, expected some of {', '.join(WANTED)}")
    try:
        found = gpu_cards.cards()
    except BadInput as error:
        raise SystemExit(str(error)) from None
    print(f"{len(found)} GPU: {found[0].name}, {found[0].total_gib:.0f} GiB, {found[0].used_gib:.1f} in use", flush=True)
    given.output.mkdir(parents=True, exist_ok=True)
    results = Results(given.output)
    signal.signal(signal.SIGTERM, interrupt)
    began_s = time.monotonic()
    try:
        run(results, Surroundings(gpu_cards.cards), gpu_ladder.started, only)
    except KeyboardInterrupt:
        print(f"interrupted; {given.output / 'gpu_check.md'} has what was found", flush=True)
        raise SystemExit(INTERRUPTED) from None
    print(f"{given.output / 'gpu_check.md'}, after {time.monotonic() - began_s:.0f} s")


if __name__ == "__main__":
    main()
