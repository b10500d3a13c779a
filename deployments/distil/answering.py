"""Answers of any model folder without a server: asked of vLLM's engine in a child process, kept in a folder, resumable.

The child (offline_answers.py) is niced and ends with this process. What a killed one has answered is not asked again.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from classifiers.files import atomic_write
from router.errors import BadInput
from router.flywheel.grading.filling import NOT_SENT
from router.reasoning_settings import Reasoning
from router.request import thinking, wire
from router.tier_settings import VllmTier

COMMAND = (sys.executable, "-m", "deployments.distil.offline_answers")
NICENESS = 10  # requests come first
LAST = 40  # lines of the child that are kept for its last words
ENV = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "WARNING", "TOKENIZERS_PARALLELISM": "false"}
"""set where the settings do not: the engine works in the child itself, and says only what went wrong"""
Report = Callable[[int, int], None]
"""called with (done, all)"""
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Spec:
    """Which model answers, and how its tier runs it."""

    model: str
    """a folder with the model in safetensors, or a hub id"""
    context: int
    """tokens that prompt and answer may have together"""
    adapter: str = ""
    """a folder with a LoRA adapter; empty: none"""
    engine_kwargs: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    greedy: bool = False
    """every answer is the most likely one, whatever the request says"""
    tier: str = ""
    """whose model it is: its own thoughts are given back to it within a turn"""
    reasoning: Reasoning | None = None
    """`Tier.thinking`"""

    def as_json(self) -> dict[str, Any]:
        rest = {"adapter": self.adapter, "engine_kwargs": dict(self.engine_kwargs), "greedy": self.greedy}
        return {"model": self.model, "context": self.context, **rest}


@dataclass(frozen=True, slots=True)
class Answered:
    """What a model answers to one row."""

    message: Mapping[str, Any]
    """OpenAI's"""
    finish: str
    input_tokens: int
    output_tokens: int
    signals: Mapping[str, Any]
    """statistics of its log-probabilities, as `router.learn.labels.labelling.logprob_stats` gives them"""


def spec_of(tier: VllmTier, model: str | Path = "", adapter: str | Path = "", greedy: bool = False) -> Spec:
    """A tier's model, or another one in its place. Raises BadInput where the model is no folder with safetensors."""
    thought = {"reasoning_parser": tier.thinking.parser} if tier.thinking and tier.thinking.parser else {}
    parallel = {"tensor_parallel_size": tier.tensor_parallel} if tier.accelerator else {}
    given = {**parallel, **thought, **tier.engine_kwargs}
    named = str(model or tier.source)
    if model and not any(Path(named).glob("*.safetensors")):
        raise BadInput(f"{named}: holds no .safetensors; expected a model's folder, as `stepdown distil train` writes it")
    return Spec(named, tier.context, str(adapter), given, tier.env, greedy, tier.name, tier.thinking)


def answers(spec: Spec, rows: Iterable[Mapping[str, Any]], report: Report, folder: Path | None = None) -> dict[str, Answered]:
    """Row id -> answer. A row that the model cannot take, as one that is longer than its window, has none.

    rows: with `id`, `messages`, `tools` and `sampling`. folder: where answers are kept, so that the same call, after whatever
    ended it, asks only for what is missing; None: they are not kept. Raises BadInput with the child's last words where it dies.
    """
    with ExitStack() as stack:
        place = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stepdown-answers-")))
        asked = [question(row, spec) for row in rows]
        place.mkdir(parents=True, exist_ok=True)
        atomic_write(place / "spec.json", json.dumps(spec.as_json()))
        atomic_write(place / "rows.jsonl", "".join(json.dumps(row) + "\n" for row in asked))
        if asked:
            run(spec, place, report)
        return collected(place / "answers.jsonl", asked)


def question(row: Mapping[str, Any], spec: Spec) -> Row:
    """What the child is asked: `id`, the body as the tier would get it, and by which words and model `asked` knows it again."""
    body: Row = {name: value for name, value in row["sampling"].items() if name not in NOT_SENT}
    body |= {"messages": list(row["messages"]), **({"tools": list(row["tools"])} if row.get("tools") else {})}
    sent = thinking.written(wire.forwarded(body, spec.tier or "model"), spec.tier, spec.reasoning)
    opened = spec.reasoning is not None and thinking.opened(sent, spec.reasoning)
    whole = json.dumps([sent, stamp(spec)], sort_keys=True)
    return {"id": row["id"], "body": dict(sent), "opened": opened, "asked": hashlib.sha256(whole.encode()).hexdigest()[:32]}


def stamp(spec: Spec) -> list[Any]:
    """What tells one model from another: its settings, and names, sizes and times of its files."""
    files = [file for place in (spec.model, spec.adapter) if place for file in sorted(Path(place).glob("*")) if file.is_file()]
    stats = [(file.name, (found := file.stat()).st_size, found.st_mtime_ns) for file in files]
    return [spec.as_json(), stats]


def collected(path: Path, asked: Sequence[Row]) -> dict[str, Answered]:
    """The answers to what was asked. Raises BadInput where one is missing."""
    found: dict[str, Row] = {}
    if path.exists():
        for line in path.read_text("utf-8").splitlines():
            one = json.loads(line)
            found[one["asked"]] = one
    if missing := sum(row["asked"] not in found for row in asked):
        raise BadInput(f"{path}: {missing} of {len(asked)} answers are missing; run it again to go on")
    names = Answered.__slots__
    kept = {row["id"]: found[row["asked"]] for row in asked}
    return {id: Answered(**{name: one[name] for name in names}) for id, one in kept.items() if "error" not in one}


# -- the child -----------------------------------------------------------------------------------------------------------


def run(spec: Spec, folder: Path, report: Report) -> None:
    """Run the child to its end. Raises BadInput with its last words."""
    said: deque[str] = deque(maxlen=LAST)
    with (folder / "child.log").open("w+b") as log:
        process = subprocess.Popen(
            [*COMMAND, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, **ENV, **spec.env},
        )
        assert process.stdin and process.stdout
        with suppress(OSError):  # it has ended already
            os.setpriority(os.PRIO_PROCESS, process.pid, os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)
        try:
            for raw in process.stdout:
                listen(raw, said, report)
            code = process.wait()
        finally:
            process.stdin.close()
            if process.poll() is None:
                process.kill()
                process.wait()
        if code:
            raise BadInput(f"{spec.model}: the process that answers offline ended with code {code}: {last_words(log, said)}")


def listen(raw: bytes, said: "deque[str]", report: Report) -> None:
    """One line of the child: its progress, or anything else that it prints."""
    text = raw.decode("utf-8", "replace").strip()
    try:
        found = json.loads(text)
        report(int(found["done"]), int(found["of"]))
    except (ValueError, TypeError, KeyError):
        said.append(text)


def last_words(log: IO[bytes], said: Iterable[str]) -> str:
    """What the child said last that tells what went wrong."""
    log.seek(0)
    lines = [line.strip() for line in [*said, *log.read()[-20_000:].decode("utf-8", "replace").splitlines()] if line.strip()]
    errors = [line for line in lines if "Error" in line or "error" in line]
    return (errors or lines or ["nothing"])[-1][:500]
