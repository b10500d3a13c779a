"""The LoRA adapters of one replica: loaded at its start and while it runs, and each tried before anybody is answered by it.

vLLM says of an adapter whose modules fit none of the base model's only that it is loaded, and then serves the base. So base and
adapter are asked the same prompts: where the answers and their log-probabilities are the same, the adapter is not there.

Which adapters were loaded while a host runs is written in a file, its board: replicas that start later read it, and those that
missed a call look at it from time to time. It knows neither Ray nor vLLM.
"""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any, Protocol

from classifiers.files import atomic_write
from deployments.replicas.adapter_files import Adapter, digest_of
from deployments.replicas.request_faults import Refusal
from router.distil.variants import MARK, tier_of
from router.errors import BadConfig
from router.types import Path as ApiPath

log = logging.getLogger("stepdown")
PROMPTS = (
    "What is 23 plus 45?",
    "Name the capital of France.",
    "def add(a, b):",
    "Dear Sir or Madam,",
    "The quick brown fox",
    "SELECT name FROM",
    "Translate to German: good morning",
    "1, 2, 3, 4,",
    "Once upon a time",
    '{"name": "',
    "Summarise: the meeting was moved to Monday.",
    "Q: Who wrote Hamlet? A:",
    "Write a title for a report on rivers.",
    "yes or no: is ice cold?",
    "# Introduction",
    "The opposite of hot is",
)
TOKENS = 8  # of each answer
NOISE = 4.0  # times the difference between two answers of the base itself
LOOK_S = 0.05  # between two looks whether requests for an adapter that leaves are answered
LEAST = 1e-6  # difference of log-probabilities that counts

Ask = Callable[[ApiPath, dict[str, Any]], AsyncGenerator[Any]]
"""Sends one request to the engine. Yields its answers; a Refusal is the last."""


class Registry(Protocol):
    """The engine's own list of adapters."""

    async def load(self, name: str, folder: str) -> str:
        """Why it could not; empty: it is loaded."""

    async def forget(self, name: str) -> None:
        """Refuse further requests for it; those under way go on."""

    async def free(self, name: str) -> None:
        """Give its place to others. No request for it is under way."""


class Adapters:
    """base: the name of the base model. board: the host's file; None: nothing is loaded while it runs.

    places: how many adapters the engine may have at once; None: any number.
    """

    def __init__(self, base: str, registry: Registry, ask: Ask, board: Path | None = None, places: int | None = None) -> None:
        self.base, self.registry, self.ask, self.board, self.places = base, registry, ask, board, places
        self.folders: dict[str, str] = {}
        """the loaded adapters: name -> folder"""
        self.under_way: Counter[str] = Counter()
        """requests that are being answered, by the name that they asked for"""
        self.leaving: set[str] = set()
        """adapters that get no request any more, and still have their place"""
        self.lock = asyncio.Lock()
        self.catching_up: asyncio.Task[None] | None = None
        self.read_at = 0
        """time of change of the board when it was read last, ns"""

    async def start(self, configured: Iterable[Adapter]) -> None:
        """Load what the settings name, and what was loaded since. Raises BadConfig where one is not there afterwards."""
        for adapter in configured:
            await self.load(adapter.name, adapter.folder)
        await self.catch_up()

    async def load(self, name: str, folder: str) -> None:
        """Load it under a name that was never used for other files, and try it. Raises BadConfig; then it is not loaded."""
        async with self.lock:
            if name in self.folders:
                return
            if not (await asyncio.to_thread(digest_of, Path(folder))).startswith(name.partition(MARK)[2]):
                raise BadConfig(f"{where(name)}: {folder} no longer holds the files that {name} is named after; restart")
            if self.places is not None and len(self.folders) + len(self.leaving) >= self.places:
                raise BadConfig(
                    f"{where(name)}: {self.base} has places for {self.places} adapters, and all are taken; unload one, or set "
                    f"tiers.{self.base}.engine_kwargs.max_loras higher"
                )
            if why := await self.registry.load(name, folder):
                raise BadConfig(f"{where(name)}: vLLM cannot load {folder}: {why}")
            try:
                await self.check(name, folder)
            except BaseException:
                await self.registry.forget(name)
                await self.registry.free(name)
                raise
            self.folders[name] = folder

    async def unload(self, name: str) -> None:
        """Forget it, and return when the last request for it was answered; nothing happens where it is not loaded."""
        async with self.lock:
            if self.folders.pop(name, None) is None:
                return
            self.leaving.add(name)
            await self.registry.forget(name)
        while self.under_way[name]:  # else the engine would load it again for them, into a place that may be another's
            await asyncio.sleep(LOOK_S)
        async with self.lock:
            await self.registry.free(name)
            self.leaving.discard(name)

    @contextmanager
    def asked(self, name: str) -> Iterator[None]:
        """Around the answer to a request for it."""
        self.under_way[name] += 1
        try:
            yield
        finally:
            self.under_way[name] -= 1

    async def check(self, name: str, folder: str) -> None:
        """Raises BadConfig where the adapter changes nothing."""
        first, again, its = [await self.answers(model) for model in (self.base, self.base, name)]
        (others, noise), (differ, change) = difference(first, again), difference(first, its)
        said = f"{differ} of {len(PROMPTS)} answers differ, and log-probabilities by up to {change:.2g}"
        log.warning("adapter %s is loaded from %s: %s (%d and %.2g without it)", name, folder, said, others, noise)
        if differ <= others and change <= LEAST + NOISE * noise:
            raise BadConfig(
                f"{where(name)}: {len(PROMPTS)} prompts get the same answers from {self.base} with the adapter in {folder} and "
                "without, so vLLM does not apply it. Look whether the modules named in adapter_model.safetensors are the base "
                "model's, and whether the adapter was trained at all (lora_B is all zeros before)"
            )

    async def answers(self, model: str) -> list[tuple[str, float]]:
        """Each text, and the log-probability of its first token, which is the largest there is; 0 where the engine gives none."""
        body = {"model": model, "prompt": list(PROMPTS), "max_tokens": TOKENS, "temperature": 0}
        answer = await self.answer({**body, "logprobs": 1})
        if isinstance(answer, Refusal):
            answer = await self.answer(body)
        if answer is None or isinstance(answer, Refusal):
            said = answer.text[:500] if answer else "nothing"
            raise BadConfig(f"{where(model)}: the engine does not answer a request for {model}: {said}")
        choices = sorted(answer.choices, key=lambda choice: int(choice.index))
        return [(choice.text, first_of(choice.logprobs)) for choice in choices]

    async def answer(self, body: dict[str, Any]) -> Any:
        """The last item of the engine's answer."""
        last = None
        async with aclosing(self.ask("completions", body)) as items:
            async for item in items:
                last = item
        return last

    # -- what was loaded while the host runs ---------------------------------------------------------------------------

    async def catch_up(self) -> None:
        """Load what the board names. Raises BadConfig."""
        if self.board is None or (at := changed_ns(self.board)) == self.read_at:
            return
        for name, folder in on_board(self.board).items():
            await self.load(name, folder)
        self.read_at = at

    def look(self) -> None:
        """Catch up beside the requests, if there is something to catch up with."""
        if self.board is None or changed_ns(self.board) == self.read_at or (self.catching_up and not self.catching_up.done()):
            return
        self.catching_up = asyncio.create_task(self.try_to_catch_up())

    async def try_to_catch_up(self) -> None:
        try:
            await self.catch_up()
        except BadConfig as error:
            log.error("%s (named in %s)", error, self.board)


def first_of(logprobs: Any) -> float:
    known = logprobs.token_logprobs if logprobs else []
    return float(known[0]) if known and known[0] is not None else 0.0


def difference(one: Sequence[tuple[str, float]], other: Sequence[tuple[str, float]]) -> tuple[int, float]:
    """How many texts differ, and by how much a log-probability does at most."""
    pairs = list(zip(one, other, strict=True))
    return sum(a[0] != b[0] for a, b in pairs), max(abs(a[1] - b[1]) for a, b in pairs)


def board_of(weights: Path, host: str) -> Path:
    """weights: the folder of learned weights, which all machines see."""
    return weights / "adapters" / f"{host}.json"


def where(name: str) -> str:
    """The setting that an adapter's name comes from."""
    return f"tiers.{tier_of(name)}.lora"


def changed_ns(board: Path) -> int:
    """0 where there is none."""
    try:
        return board.stat().st_mtime_ns
    except OSError:
        return 0


def on_board(board: Path) -> dict[str, str]:
    """name -> folder; empty where there is no such file. Raises BadConfig."""
    try:
        found = json.loads(board.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BadConfig(f"{board} cannot be read ({error}); it lists adapters that were loaded at run time, delete it") from None
    if not isinstance(found, dict) or not all(isinstance(folder, str) for folder in found.values()):
        raise BadConfig(f"{board} is not as it was written; it lists adapters that were loaded at run time, delete it")
    return found


def write_board(board: Path, adapters: Mapping[str, str]) -> None:
    """adapters: name -> folder. Raises OSError."""
    board.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    atomic_write(board, json.dumps(adapters, indent=1))
