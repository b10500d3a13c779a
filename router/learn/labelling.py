"""Sends prompts to every tier of a running ladder and grades the answers, for `stepdown label`.

Each result is appended to a journal beside the output at once, so a killed run continues where it stopped; the output
itself appears only when everything is done.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from classifiers.files import atomic_write
from classifiers.replies.signals import statistics
from router.errors import BadInput
from router.learn.grading import Grader
from router.learn.judge import judge
from router.learn.tables import read_jsonl
from router.request.wire import margin

Row = dict[str, Any]
Price = tuple[float, float]  # USD per million input and output tokens
FIRST = 64  # log-probabilities kept one by one: holdback decides on a prefix of them


@dataclass(frozen=True)
class ServedLadder:
    """A running ladder and how to ask it. prices: tier -> USD per million input and output tokens."""

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
    """Statistics of the tokens' log-probabilities: mean, minimum, 10, 25 and 50 % quantiles, the first token's lead over
    the next best, and the first FIRST values. Empty where the tier gave none.
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
    """The kept fields of one reply, before grading."""
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


class LadderClient:
    """Sends chat requests, at most `concurrency` at once and `per_second` a second, and retries while a tier is busy."""

    def __init__(self, client: Any, ladder: ServedLadder) -> None:
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
                    raise BadInput(f"{self.ladder.url}: no answer ({error or type(error).__name__}); is it running?") from None
                if reply.status_code not in (429, 500, 502, 503, 504):
                    break
                await asyncio.sleep(min(float(reply.headers.get("retry-after", 2**attempt / 4)), 10))
        if reply.status_code != 200:
            raise BadInput(f"tier {tier!r} answered HTTP {reply.status_code}: {reply.text[:200]}")
        return dict(reply.json())


class Journal:
    """Finished outcomes by (id, tier), on disk after each one. A last line cut short by a kill is dropped."""

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


Labelled = tuple[str, str, Row]  # id, tier, outcome


async def as_they_come(jobs: Iterable[Coroutine[Any, Any, Labelled]]) -> AsyncIterator[Labelled]:
    """Run all concurrently and yield each result when it is there; when one fails, the others are cancelled."""
    tasks = [asyncio.create_task(job) for job in jobs]
    try:
        for done in asyncio.as_completed(tasks):
            yield await done
    finally:
        for task in tasks:
            task.cancel()


async def _answer(client: LadderClient, row: Row, tier: str, grader: Grader | None) -> Labelled:
    ladder = client.ladder
    start = time.monotonic()
    reply = await client.ask(tier, messages_of(row), ladder.max_tokens)
    outcome = outcome_of(reply, ladder.prices[tier], time.monotonic() - start)
    if grader is not None:
        outcome["score"] = grader(outcome["answer"], row.get("answer"), row)
    return row["id"], tier, outcome


async def _judge(client: LadderClient, row: Row, tier: str, known: Mapping[tuple[str, str], Row]) -> Labelled:
    """The outcome with the score that the top tier gives, judging against its own answer."""
    outcome, top = known[row["id"], tier], client.ladder.tiers[-1]
    reference = known[row["id"], top]["answer"]
    score = 1.0 if tier == top else await judge(client, top, messages_of(row), outcome["answer"], reference)
    return row["id"], tier, {**outcome, "score": score}


async def label(
    rows: Sequence[Row],
    ladder: ServedLadder,
    grader: Grader | None,
    output: Path,
    progress: Callable[[int, int], None],
    transport: Any = None,
) -> int:
    """Label every row by every tier and write `output`. Without a grader the top tier judges.

    Returns how many answers came from the journal of an earlier run.
    """
    import httpx

    headers = {"authorization": f"Bearer {ladder.api_key}"}
    cells = [(row, tier) for row in rows for tier in ladder.tiers]
    with Journal(output.with_name(output.name + ".journal")) as journal:
        known = journal.known
        todo = [(row, tier) for row, tier in cells if (row["id"], tier) not in known]
        async with httpx.AsyncClient(base_url=ladder.url, headers=headers, timeout=ladder.timeout_s, transport=transport) as http:
            client = LadderClient(http, ladder)
            async for labelled in as_they_come(_answer(client, row, tier, grader) for row, tier in todo):
                journal.add(*labelled)
                progress(len(known), len(cells))
            unjudged = [(row, tier) for row, tier in cells if "score" not in known[row["id"], tier]]
            async for labelled in as_they_come(_judge(client, row, tier, known) for row, tier in unjudged):
                journal.add(*labelled)
    table = [{**row, "outcomes": {tier: known[row["id"], tier] for tier in ladder.tiers}} for row in rows]
    atomic_write(output, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table))
    journal.path.unlink()
    return len(cells) - len(todo)
