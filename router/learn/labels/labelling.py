"""Sends prompts to every tier of a running ladder and grades the answers, for `stepdown label`.

Each answer is appended to a journal beside the output at once, so a run that was stopped continues where it stopped; the output
itself appears only when everything is done. A row that cannot be asked or graded has a missing score and its reason.
"""

import asyncio
import json
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from classifiers.files import atomic_write
from classifiers.replies.signals import statistics
from router.errors import BadInput
from router.learn.chats import chat_of, is_whole, whole
from router.learn.labels import judge as judging
from router.learn.labels.grading import GRADERS, Grader, graded, reference_fault
from router.learn.labels.journal import Journal, key_of, source_of
from router.learn.labels.ladder_client import LadderClient, Price, Refused, Row, ServedLadder, address_of, headers_of
from router.learn.tables import each_row
from router.request.answer_tokens import of_choice
from router.request.thoughts import spoken
from router.request.wire import margin

FIRST = 64  # log-probabilities kept one by one: holdback decides on a prefix of them
LEAVE_S = 120.0  # after a run is stopped, for answers that are under way and paid for
HALF = "the answer holds half of a character (a lone surrogate)"
T = TypeVar("T")
Cell = tuple[Row, str]
"""a row, and a tier to answer it"""


def read_prompts(path: Path) -> list[Row]:
    """Rows with `id`, each once, and something to ask; `row_faults` says which cannot be asked. Raises BadInput."""
    rows, seen, faults = [], set(), []
    for line, row in each_row(path):
        name = str(line if row.get("id") is None else row["id"])
        if name in seen:
            raise BadInput(f"{path}: line {line}: id {name!r} again; ids must differ")
        seen.add(name)
        rows.append({**row, "id": name})
        if fault := chat_fault(row):
            faults.append(f"{path}: line {line}: {fault}")
    if not rows:
        raise BadInput(f"{path}: no rows, so no prompts")
    if len(faults) == len(rows):
        raise BadInput(faults[0] + (f"; so are all {len(rows)} rows" if len(rows) > 1 else ""))
    return rows


def chat_fault(row: Row) -> str:
    """Why the row asks nothing that can be sent; empty: it does."""
    try:
        messages = chat_of(row)
    except BadInput as error:
        return str(error)
    return "" if is_whole(messages) else "the prompt holds half of a character (a lone surrogate)"


def row_faults(rows: Sequence[Row], grader: Grader | None) -> dict[str, str]:
    """id -> why the row cannot be asked or graded, found before anything is paid for. Raises BadInput where no row can."""
    found = {row["id"]: chat_fault(row) or reference_fault(grader, row) for row in rows}
    faults = {name: fault for name, fault in found.items() if fault}
    if len(faults) == len(rows):
        name, fault = next(iter(faults.items()))
        columns = ", ".join(dict.fromkeys(key for row in rows for key in row))
        raise BadInput(f"no row can be labelled; the first, id {name!r}: {fault}; the rows have {columns:.200}; see --grader")
    return faults


def logprob_stats(choice: Mapping[str, Any]) -> Row:
    """Statistics of the answer's log-probabilities, without those of a thought: mean, minimum, 10, 25 and 50 % quantiles, the
    first token's lead over the next best, and the first FIRST values. Empty where the tier gave none, or none that can be read.
    """
    try:
        content = of_choice(choice)
        tokens = [token for token in content if token.get("logprob") is not None and math.isfinite(token["logprob"])]
        lead = margin(tokens[0]) if tokens else None
    except (AttributeError, TypeError, ValueError, LookupError):
        return {}
    if not tokens:
        return {}
    values = [float(token["logprob"]) for token in tokens]
    names = ("mean_logprob", "min_logprob", "p10_logprob", "p25_logprob", "p50_logprob")
    found = {**dict(zip(names, statistics(values), strict=True)), "logprob_tokens": len(values)}
    first = {} if lead is None else {"first_margin": lead}
    return {**found, **first, "first_logprobs": [round(value, 5) for value in values[:FIRST]]}


def outcome_of(reply: Mapping[str, Any], latency_s: float) -> Row:
    """The kept fields of one reply, before grading. Tokens are missing where the tier does not count them."""
    choice, usage = reply["choices"][0], reply.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    tokens = {"input_tokens": counts.get("prompt_tokens"), "output_tokens": counts.get("completion_tokens")}
    answer = spoken(choice["message"]).text
    return {
        "answer": whole(answer),
        "finish_reason": choice.get("finish_reason"),
        **{name: n for name, n in tokens.items() if isinstance(n, int) and n >= 0},
        "latency_s": round(latency_s, 4),
        **logprob_stats(choice),
        **({} if is_whole(answer) else {"error": HALF}),
    }


def with_cost(outcome: Row, price: Price) -> Row:
    """The outcome with `cost_usd`, missing where its tokens are."""
    if "input_tokens" not in outcome or "output_tokens" not in outcome:
        return outcome
    return outcome | {"cost_usd": (outcome["input_tokens"] * price[0] + outcome["output_tokens"] * price[1]) / 1e6}


async def all_of(items: Sequence[T], work: Callable[[T], Awaitable[None]], at_once: int) -> None:
    """Work on all items, `at_once` at a time. When one fails, or the run is cancelled, no more are begun, and those under way
    are waited for: they are paid for.
    """
    todo = iter(items)
    stopping = False

    async def worker() -> None:
        for item in todo:
            if stopping:
                return
            await work(item)

    workers = [asyncio.create_task(worker()) for _ in range(max(1, min(at_once, len(items))))]
    try:
        await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        stopping = True
        _, late = await asyncio.wait(workers, timeout=LEAVE_S)
        for one in late:
            one.cancel()
    for one in workers:
        one.result()


class Labelling:
    """One run of `stepdown label`. grader: without one the top tier judges. progress: called with (done, all).

    Raises BadInput where no row can be labelled. Afterwards `reused` says how many answers came from the journal of an earlier
    run, `missing` how many scores are missing by reason.
    """

    def __init__(
        self, rows: Sequence[Row], ladder: ServedLadder, grader: Grader | None, output: Path, progress: Callable[[int, int], None]
    ) -> None:
        self.rows, self.ladder, self.grader, self.output, self.progress = rows, ladder, grader, output, progress
        self.address, self.headers = address_of(ladder.url), headers_of(ladder.api_key)
        self.filed_under = ladder.known_as or self.address
        self.faults = row_faults(rows, grader)
        self.journal = Journal(output.with_name(output.name + ".journal"))
        self.found: dict[tuple[str, str], Row] = {}
        """(row id, tier) -> outcome"""
        self.reused = 0
        self.missing: Counter[str] = Counter()
        self.client_of: Callable[[Any, ServedLadder], LadderClient] = LadderClient

    async def run(self, transport: Any = None, check: bool = False) -> None:
        """Label every row by every tier and write the output. check: ask first whether the ladder has the tiers."""
        import httpx

        limits = httpx.Limits(max_connections=self.ladder.concurrency)
        given = {"base_url": self.address, "headers": self.headers, "timeout": self.ladder.timeout_s, "transport": transport}
        with self.journal:
            async with httpx.AsyncClient(limits=limits, **given) as http:
                self.client = self.client_of(http, self.ladder)
                if check:
                    await self.client.check()
                await self.answer_all()
                await self.score_all()
            self.write()

    async def answer_all(self) -> None:
        cells = [(row, tier) for row in self.rows if row["id"] not in self.faults for tier in self.ladder.tiers]
        for row, tier in cells:
            if known := self.journal.get(self.answer_key(row, tier)):
                self.found[row["id"], tier] = known
        todo = [(row, tier) for row, tier in cells if (row["id"], tier) not in self.found]
        self.reused = len(cells) - len(todo)

        async def answer(cell: Cell) -> None:
            self.found[cell[0]["id"], cell[1]] = await self.answered(*cell)
            self.progress(len(self.found), len(cells))

        await all_of(todo, answer, self.ladder.concurrency)

    async def answered(self, row: Row, tier: str) -> Row:
        began = time.monotonic()
        try:
            reply = await self.client.ask(tier, chat_of(row), self.ladder.max_tokens)
        except Refused as refused:
            return {"error": str(refused)}
        outcome = outcome_of(reply, time.monotonic() - began)
        self.journal.add(self.answer_key(row, tier), outcome, id=row["id"], tier=tier)
        return outcome

    def answer_key(self, row: Row, tier: str) -> str:
        return key_of("answer", self.filed_under, tier, chat_of(row), self.ladder.settings)

    async def score_all(self) -> None:
        """Give every outcome its `score`. Only once all answers are there: a grader may take long, and holds up everything."""

        async def score(cell: Cell) -> None:
            outcome = self.found[cell[0]["id"], cell[1]]
            found, why = (None, outcome["error"]) if "error" in outcome else await self.scored(*cell, outcome["answer"])
            self.found[cell[0]["id"], cell[1]] = {**outcome, "score": found, **({"error": why} if why else {})}

        cells = [(row, tier) for row in self.rows for tier in self.ladder.tiers if (row["id"], tier) in self.found]
        await all_of(cells, score, self.ladder.concurrency)

    async def scored(self, row: Row, tier: str, answer: str) -> tuple[float | None, str]:
        """A score, or why there is none. What was paid for is kept."""
        if self.grader in GRADERS.values() and self.grader is not None:
            return graded(self.grader, answer, row)
        key = self.score_key(row, tier, answer)
        if known := self.journal.get(key):
            return known["score"], ""
        found, why = await self.judged(row, tier, answer) if self.grader is None else graded(self.grader, answer, row)
        if found is not None:
            self.journal.add(key, {"score": found}, id=row["id"], tier=tier)
        return found, why

    def score_key(self, row: Row, tier: str, answer: str) -> str:
        if self.grader is not None:
            return key_of("score", source_of(self.grader), answer, row)
        top = self.ladder.tiers[-1]
        reference = self.found[row["id"], top].get("answer")
        return key_of("score", judging.PROMPT, self.filed_under, top, chat_of(row), answer, reference)

    async def judged(self, row: Row, tier: str, answer: str) -> tuple[float | None, str]:
        """The score that the top tier gives, judging against its own answer."""
        top = self.ladder.tiers[-1]
        reference = self.found[row["id"], top]
        if "error" in reference:
            return None, f"the judge, {top}, gave no answer of its own: {reference['error']}"
        if tier == top:
            return 1.0, ""
        try:
            return await judging.judge(self.client, top, chat_of(row), answer, reference["answer"]), ""
        except Refused as refused:
            return None, f"the judge did not answer: {refused}"

    def write(self) -> None:
        """Write the output; the journal goes only if nothing is left to do, so that a rerun pays for what is missing alone.

        Raises BadInput where no score was given at all.
        """
        table = [{**row, "outcomes": {tier: self.outcome(row, tier) for tier in self.ladder.tiers}} for row in self.rows]
        self.missing.update(o["error"] for row in table for o in row["outcomes"].values() if o["score"] is None)
        if self.missing.total() == len(self.rows) * len(self.ladder.tiers):
            raise BadInput(f"no answer has a score: {self.missing.most_common(1)[0][0]}; answers are kept in {self.journal.path}")
        atomic_write(self.output, "".join(line_of(row) + "\n" for row in table))
        if not self.missing:
            self.journal.remove()

    def outcome(self, row: Row, tier: str) -> Row:
        if row["id"] in self.faults:
            return {"score": None, "error": self.faults[row["id"]]}
        return with_cost(self.found[row["id"], tier], self.ladder.prices[tier])


def line_of(row: Row) -> str:
    """One line of JSON that any reader takes: no NaN, and escapes where a text cannot be written in UTF-8."""
    finite = {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()}
    return json.dumps(finite, ensure_ascii=not is_whole(finite), default=str)


async def label(
    rows: Sequence[Row],
    ladder: ServedLadder,
    grader: Grader | None,
    output: Path,
    progress: Callable[[int, int], None],
    transport: Any = None,
) -> int:
    """Label every row by every tier and write `output`. Returns how many answers came from the journal of an earlier run."""
    work = Labelling(rows, ladder, grader, output, progress)
    await work.run(transport)
    return work.reused
