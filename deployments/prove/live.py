"""Asks the ladder live, as a client would: every prompt to `auto` and to the top tier by name, interleaved, streamed."""

import json
import random
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from deployments.prove.budget import SPENT, PricedClient, Purse, most_usd
from router.learn.chats import chat_of, whole
from router.learn.labels.grading import Grader
from router.learn.labels.journal import Journal, key_of
from router.learn.labels.labelling import Labelling, all_of
from router.learn.labels.ladder_client import CHAT, HELLO, Price, Row, ServedLadder, address_of, headers_of, reason_in

AUTO = "auto"
JOURNAL = "live.journal"
WARM_UP = 2  # requests of each way before the measured ones
Cell = tuple[Row, str]
"""a row, and the `model` that it is sent to"""


def interleaved(rows: Sequence[Row], ways: Sequence[str], seed: int) -> list[Cell]:
    """Every row with every way, in random order; the ways of one row follow each other, in random order too."""
    rng = random.Random(seed)
    found = []
    for row in rng.sample(list(rows), len(rows)):
        found += [(row, way) for way in rng.sample(list(ways), len(ways))]
    return found


@dataclass
class Stream:
    """What is known of an answer while its chunks arrive."""

    began: float
    text: str = ""
    finish: str = ""
    tier: str = ""
    first_s: float | None = None
    usage: Mapping[str, Any] | None = None
    error: str = ""

    def take(self, chunk: Any, at: float) -> None:
        """Read one chunk of OpenAI's form; what is not of that form is left out."""
        if not isinstance(chunk, dict):
            return
        if isinstance(chunk.get("error"), dict):
            self.error = str(chunk["error"].get("message"))[:200]
        self.tier = str(chunk.get("model") or self.tier)
        if isinstance(chunk.get("usage"), dict):
            self.usage = chunk["usage"]
        for choice in chunk.get("choices") or ():
            said = (choice.get("delta") or {}).get("content")
            self.finish = choice.get("finish_reason") or self.finish
            if isinstance(said, str) and said:
                self.first_s = at - self.began if self.first_s is None else self.first_s
                self.text += said

    def row(self, prices: Mapping[str, Price], at: float) -> Row:
        """The answer with its cost: of all its calls where the ladder tells, else its tokens at the price of its tier."""
        usage, more = self.usage or {}, (self.usage or {}).get("stepdown") or {}
        read, made = (int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens"))
        price = prices.get(self.tier, (0.0, 0.0))
        usd = more.get("cost_usd", (read * price[0] + made * price[1]) / 1e6)
        calls = [{name: call.get(name) for name in ("tier", "cost_usd")} for call in more.get("calls") or ()]
        return {
            "answer": whole(self.text),
            "tier": self.tier,
            "finish_reason": self.finish,
            "ttft_s": None if self.first_s is None else round(self.first_s, 4),
            "total_s": round(at - self.began, 4),
            "input_tokens": read,
            "output_tokens": made,
            "cost_usd": float(usd),
            "calls": calls or [{"tier": self.tier, "cost_usd": float(usd)}],
            "certificate": more.get("certificate") or "",
            **({"error": self.error} if self.error else {}),
        }


async def events(reply: httpx.Response) -> AsyncIterator[Any]:
    """The JSON of each server-sent event."""
    async for line in reply.aiter_lines():
        data = line.removeprefix("data:").strip()
        if line.startswith("data:") and data != "[DONE]":
            try:
                yield json.loads(data)
            except ValueError:
                continue


class Live:
    """One live run. Afterwards `found` holds the answers."""

    def __init__(
        self, ladder: ServedLadder, folder: Path, version: str, purse: Purse, progress: Callable[[int, int], None]
    ) -> None:
        """version: of the router; another one answers anew."""
        self.ladder, self.version, self.purse, self.progress = ladder, version, purse, progress
        self.journal = Journal(folder / JOURNAL)
        self.found: dict[tuple[str, str], Row] = {}
        """(row id, way) -> answer"""
        self.total = 0

    async def run(self, cells: Sequence[Cell], at_once: int) -> None:
        """Ask, in the order of the cells. What an earlier run was answered counts."""
        given: dict[str, Any] = {
            "base_url": address_of(self.ladder.url),
            "headers": headers_of(self.ladder.api_key),
            "timeout": self.ladder.timeout_s,
        }
        self.total = len(cells)
        with self.journal:
            for row, way in cells:
                if known := self.journal.get(self.key(row, way)):
                    self.found[row["id"], way] = known
            todo = [cell for cell in cells if (cell[0]["id"], cell[1]) not in self.found]
            async with httpx.AsyncClient(**given) as self.http:
                for way in dict.fromkeys(way for _, way in todo):
                    for _ in range(WARM_UP):
                        await self.asked({"id": "", "messages": HELLO}, way)
                await all_of(todo, self.ask, at_once)

    async def ask(self, cell: Cell) -> None:
        row, way = cell
        answer = await self.asked(row, way)
        self.found[row["id"], way] = answer
        if "error" not in answer:
            self.journal.add(self.key(row, way), answer, id=row["id"], way=way)
        self.progress(len(self.found), self.total)

    def key(self, row: Row, way: str) -> str:
        return key_of("live", self.ladder.known_as, self.version if way == AUTO else "", way, chat_of(row), self.ladder.settings)

    async def asked(self, row: Row, way: str) -> Row:
        """The answer, or an `error`."""
        messages = chat_of(row)
        tiers = self.ladder.tiers if way == AUTO else [way]
        most = sum(most_usd(messages, self.ladder.max_tokens, self.ladder.prices[tier]) for tier in tiers)
        if not await self.purse.hold(most):
            return {"error": SPENT}
        usd = 0.0
        try:
            answer = await self.streamed(messages, way)
            usd = float(answer.get("cost_usd") or 0.0)
            return answer
        finally:
            await self.purse.settle(most, usd, "live")

    async def streamed(self, messages: list[Row], way: str) -> Row:
        body = {"model": way, "messages": messages, "temperature": 0, "max_tokens": self.ladder.max_tokens}
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        new = {"x-session-id": uuid.uuid4().hex}  # else a prompt that came before keeps its tier, as a conversation does
        seen = Stream(time.perf_counter())
        try:
            async with self.http.stream("POST", CHAT, json=body, headers=new) as reply:
                if reply.status_code != 200:
                    await reply.aread()
                    return {"error": f"HTTP {reply.status_code}: {reason_in(reply)}"}
                async for chunk in events(reply):
                    seen.take(chunk, time.perf_counter())
        except httpx.HTTPError as error:
            return {"error": f"no answer ({error or type(error).__name__})"[:200]}
        if seen.usage is None and not seen.error:
            seen.error = "the stream ended without its usage"
        return seen.row(self.ladder.prices, time.perf_counter())


async def graded(
    rows: Sequence[Row],
    found: Mapping[tuple[str, str], Row],
    ways: Sequence[str],
    ladder: ServedLadder,
    grader: Grader | None,
    folder: Path,
    purse: Purse,
) -> list[Row]:
    """The rows with `ways`: every way's answer with its `score`. ways: the top tier last; without a grader it judges."""
    work = Labelling(rows, replace(ladder, tiers=list(ways)), grader, folder / "grades", lambda done, total: None)
    work.found = {cell: dict(answer) for cell, answer in found.items()}
    given: dict[str, Any] = {
        "base_url": address_of(ladder.url),
        "headers": headers_of(ladder.api_key),
        "timeout": ladder.timeout_s,
    }
    with work.journal:
        async with httpx.AsyncClient(**given) as http:
            work.client = PricedClient(http, ladder, purse, "judging")
            await work.score_all()
    return [{**row, "ways": {way: work.found[row["id"], way] for way in ways if (row["id"], way) in work.found}} for row in rows]
