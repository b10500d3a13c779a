"""Run prompts through every tier of a running ladder and grade the answers: what `stepdown label` does.

Each call's result is appended to a journal beside the output at once, so a killed run goes on where it stopped; the
output itself appears only when all is done.
"""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from classifiers.replies.signals import statistics
from router.errors import BadInput
from router.learn.grading import Grader
from router.learn.judge import judge
from router.learn.tables import read_jsonl
from router.request.wire import margin

Row = dict[str, Any]
Price = tuple[float, float]  # USD per million input and output tokens
FIRST = 64  # log-probabilities kept in full: holdback decides on a prefix of them


@dataclass(frozen=True)
class Ladder:
    """Where the tiers are and how to ask them. prices: tier -> USD per million input and output tokens."""

    url: str
    api_key: str
    tiers: list[str]
    prices: Mapping[str, Price]
    max_tokens: int = 256
    concurrency: int = 16
    per_second: float = 0.0  # 0: no limit
    timeout_s: float = 120.0


def read_prompts(path: Path) -> list[Row]:
    """Rows with `id` and `messages` (or `prompt`), each id once."""
    rows, seen = [], set()
    for line, row in read_jsonl(path):
        name = str(row.get("id", line))
        if name in seen:
            raise BadInput(f"{path}: line {line}: id {name!r} again; ids must differ")
        seen.add(name)
        if "messages" not in row and not isinstance(row.get("prompt"), str):
            raise BadInput(f"{path}: line {line}: no `messages` or `prompt`")
        rows.append({**row, "id": name})
    if not rows:
        raise BadInput(f"{path}: no prompts")
    return rows


def messages_of(row: Row) -> list[Row]:
    """The chat messages of a row; a plain prompt is one user message."""
    return list(row.get("messages") or [{"role": "user", "content": row["prompt"]}])


def logprob_stats(choice: Mapping[str, Any]) -> Row:
    """What the answer's tokens tell: mean, least, and 10, 25 and 50 % quantiles of their log-probabilities, the first
    token's lead over the next best, and the first FIRST values. Empty where the tier gave none.
    """
    content = (choice.get("logprobs") or {}).get("content") or []
    tokens = [token for token in content if token.get("logprob") is not None]
    if not tokens:
        return {}
    values = [float(token["logprob"]) for token in tokens]
    names = ("mean_logprob", "min_logprob", "p10_logprob", "p25_logprob", "p50_logprob")
    found = {**dict(zip(names, statistics(values), strict=True)), "logprob_tokens": len(values)}
    lead = margin(tokens[0])
    first = {} if lead is None else {"first_margin": lead}
    return {**found, **first, "first_logprobs": [round(value, 5) for value in values[:FIRST]]}


def outcome_of(reply: Mapping[str, Any], price: Price, latency_s: float) -> Row:
    """What is kept of one reply, before grading."""
    choice = reply["choices"][0]
    usage = reply.get("usage") or {}
    given, made = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
    return {
        "answer": choice["message"].get("content") or "",
        "finish_reason": choice.get("finish_reason"),
        "input_tokens": given,
        "output_tokens": made,
        "cost_usd": (given * price[0] + made * price[1]) / 1e6,
        "latency_s": round(latency_s, 4),
        **logprob_stats(choice),
    }


class Asker:
    """Sends chat requests, at most `concurrency` at once and `per_second` a second, retrying what is busy."""

    def __init__(self, client: Any, ladder: Ladder) -> None:
        self.client = client
        self.ladder = ladder
        self.slots = asyncio.Semaphore(ladder.concurrency)
        self.next_start = 0.0

    async def _wait_turn(self) -> None:
        if self.ladder.per_second:
            now = time.monotonic()
            start = max(now, self.next_start)
            self.next_start = start + 1 / self.ladder.per_second
            await asyncio.sleep(start - now)

    async def ask(self, tier: str, messages: list[Row], max_tokens: int) -> Row:
        """The reply of one tier, as JSON."""
        import httpx

        body = {
            "model": tier,
            "messages": messages,
            "temperature": 0,
            "max_tokens": max_tokens,
            "logprobs": True,
            "top_logprobs": 2,
        }
        async with self.slots:
            for attempt in range(6):
                await self._wait_turn()
                try:
                    reply = await self.client.post("/v1/chat/completions", json=body)
                except httpx.TransportError as error:
                    raise BadInput(f"{self.ladder.url}: no answer ({error or type(error).__name__}); is it served?") from None
                if reply.status_code not in (429, 500, 502, 503, 504):
                    break
                await asyncio.sleep(min(float(reply.headers.get("retry-after", 2**attempt / 4)), 10))
        if reply.status_code != 200:
            raise BadInput(f"tier {tier!r} answered HTTP {reply.status_code}: {reply.text[:200]}")
        return dict(reply.json())


class Journal:
    """What is finished, by (id, tier), on disk after each step. A last line cut short by a kill is dropped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[tuple[str, str], Row] = {}
        for line in path.read_bytes().splitlines() if path.exists() else ():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            self.known[entry["id"], entry["tier"]] = entry["outcome"]

    def __enter__(self) -> "Journal":
        self.file = self.path.open("a", encoding="utf-8")
        self.file.write("\n")  # ends a line that a kill cut short
        return self

    def __exit__(self, *raised: object) -> None:
        self.file.close()

    def add(self, name: str, tier: str, outcome: Row) -> None:
        self.known[name, tier] = outcome
        self.file.write(json.dumps({"id": name, "tier": tier, "outcome": outcome}) + "\n")
        self.file.flush()


Step = tuple[str, str, Row]  # id, tier, outcome


async def as_they_come(steps: Iterable[Coroutine[Any, Any, Step]]) -> AsyncIterator[Step]:
    """Run all side by side and yield each when it is done; when one fails the others are cancelled."""
    tasks = [asyncio.create_task(step) for step in steps]
    try:
        for done in asyncio.as_completed(tasks):
            yield await done
    finally:
        for task in tasks:
            task.cancel()


async def _answer(asker: Asker, row: Row, tier: str, grader: Grader | None) -> Step:
    ladder = asker.ladder
    start = time.monotonic()
    reply = await asker.ask(tier, messages_of(row), ladder.max_tokens)
    outcome = outcome_of(reply, ladder.prices[tier], time.monotonic() - start)
    if grader is not None:
        outcome["score"] = grader(outcome["answer"], row.get("answer"), row)
    return row["id"], tier, outcome


async def _judge(asker: Asker, row: Row, tier: str, known: Mapping[tuple[str, str], Row]) -> Step:
    """The outcome with the score that the top tier gives; its own answer is the measure."""
    outcome, top = known[row["id"], tier], asker.ladder.tiers[-1]
    reference = known[row["id"], top]["answer"]
    score = 1.0 if tier == top else await judge(asker, top, messages_of(row), outcome["answer"], reference)
    return row["id"], tier, {**outcome, "score": score}


async def label(
    rows: Sequence[Row],
    ladder: Ladder,
    grader: Grader | None,
    output: Path,
    progress: Callable[[int, int], None],
    transport: Any = None,
) -> int:
    """Label every row by every tier and write `output`; without a grader the top tier judges.

    Returns how many answers came from an earlier run's journal.
    """
    import httpx

    headers = {"authorization": f"Bearer {ladder.api_key}"}
    cells = [(row, tier) for row in rows for tier in ladder.tiers]
    with Journal(output.with_name(output.name + ".journal")) as journal:
        known = journal.known
        todo = [(row, tier) for row, tier in cells if (row["id"], tier) not in known]
        async with httpx.AsyncClient(
            base_url=ladder.url, headers=headers, timeout=ladder.timeout_s, transport=transport
        ) as client:
            asker = Asker(client, ladder)
            async for step in as_they_come(_answer(asker, row, tier, grader) for row, tier in todo):
                journal.add(*step)
                progress(len(known), len(cells))
            unjudged = [(row, tier) for row, tier in cells if "score" not in known[row["id"], tier]]
            async for step in as_they_come(_judge(asker, row, tier, known) for row, tier in unjudged):
                journal.add(*step)
    write_outcomes(output, rows, ladder.tiers, known)
    journal.path.unlink()
    return len(cells) - len(todo)


def write_outcomes(output: Path, rows: Sequence[Row], tiers: Sequence[str], known: Mapping[tuple[str, str], Row]) -> None:
    """The finished table, in the prompts' order, complete or not at all."""
    fresh = output.with_name(output.name + ".new")
    with fresh.open("w", encoding="utf-8") as file:
        for row in rows:
            outcomes = {tier: known[row["id"], tier] for tier in tiers}
            file.write(json.dumps({**row, "outcomes": outcomes}, ensure_ascii=False) + "\n")
    os.replace(fresh, output)
