"""Tiers that think, in every form in which servers tell it, through every flow: the thought is paid for and counted, in the
ledger, its sums, the metrics and the usage, and stands in no content, judgement or grade."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from delegation import CHAT, MAP, is_plan
from delegation import SETTINGS as PLANNING
from live import PRICES
from sqlalchemy import func, select
from starlette.testclient import TestClient

from deployments.endpoint.accounts import Accounts
from deployments.endpoint.ingress import Ingress
from deployments.keys.admission import Keys
from deployments.keys.key_store import create
from deployments.ledger import schema
from deployments.ledger.ledger import Ledger
from deployments.monitoring.metrics import Metrics
from deployments.tiers.echo_tier import EchoTier
from router.config import Config
from router.config import Ledger as Settings
from router.engine import Router
from router.limits.key_limits import Key
from router.types import Accept, Decision, GoUp, Reply

pytestmark = pytest.mark.slow

N = 5  # words of each thought
NAMES = ("small", "medium", "large")
QUESTION = {"messages": [{"role": "user", "content": "count the cats"}]}
FORMS = ("parsed", "reasoning_content", "raw", "opened")
IN_TEXT = {"raw": {"reasoning": {}}, "opened": {"reasoning": {"opened": True}}}
COUNTED_HERE = ("reasoning_content", "raw", "opened")
"""forms of which the tier does not report how much it thought"""


def words(text: str) -> int:
    return len(text.split())


class Judge:
    """Accepts what is sure of itself: by the log-probabilities of its answer, of which a thought's are far below."""

    seen: list[Reply] = []

    def next(self, answers: Mapping[str, Reply]) -> Accept | GoUp:
        self.seen += answers.values()
        sure = (reply.logprobs and min(reply.logprobs) > -1 and "doubt" not in reply.text for reply in answers.values())
        tier = next((tier for tier, good in zip(answers, sure, strict=True) if good), None)
        return Accept(tier) if tier else GoUp(("large",), "low confidence")


class Decided(Router):
    """A router whose decisions on `auto` are changed as a test tells."""

    changes: dict[str, Any] = {}

    def decide(self, *given: Any) -> Decision:
        decided = super().decide(*given)
        return decided if decided.target in self.names else replace(decided, **self.changes)


class Scripted(EchoTier):
    """An echo tier that says what a test tells instead of its prompt: a plan where it is asked for one."""

    script = "two cats"

    def words(self, path: Any, body: Mapping[str, Any]) -> list[str]:
        return super().words(path, {**body, "messages": [{"role": "user", "content": MAP if is_plan(body) else self.script}]})


@dataclass
class Case:
    """A flow. calls: (role, tier) of the rows that it leaves."""

    flow: str
    calls: list[tuple[str, str]]
    answer: str = "two cats"
    body: dict[str, Any] = field(default_factory=lambda: QUESTION)
    changes: dict[str, Any] = field(default_factory=dict)
    sections: dict[str, Any] = field(default_factory=dict)
    says: dict[str, str] = field(default_factory=dict)


LOOKED_AT = {"tier": "small", "first": ("small",), "judge": Judge()}
CASES = {
    "direct": Case("direct", [("final", "large")]),
    "a cascade that stays": Case(
        "cascade", [("attempt", "small")], changes=LOOKED_AT, sections={"escalation": {"mode": "buffer"}}
    ),
    "held back": Case(
        "cascade", [("attempt", "small")], changes=LOOKED_AT, sections={"escalation": {"mode": "holdback", "holdback_tokens": 1}}
    ),
    "a cascade that goes up": Case(
        "cascade",
        [("attempt", "small"), ("final", "large")],
        changes=LOOKED_AT,
        sections={"escalation": {"mode": "buffer"}},
        says={"small": "doubt"},
    ),
    "a race that nobody had to join": Case(
        "race",
        [("attempt", "small")],
        changes={"tier": "small"},
        sections={"escalation": {"mode": "hedge", "larger_after_s": 5.0}},
    ),
    "a plan": Case(
        "delegation",
        [("plan", "large"), *[("subtask", "medium")] * 8],
        "\n".join(f"{i}. two cats" for i in range(1, 9)),
        CHAT,
        sections={"delegation": PLANNING},
    ),
}


class Place:
    """One endpoint over echo tiers that think, with a ledger and metrics; without Ray."""

    shown: Any = None
    """the key's setting `reasoning`"""

    def __init__(self, folder: Any, case: Case, form: str, server: Any = None, **more: Any) -> None:
        thinks = {"engine": "echo", "context": 100_000, "thought": N, "thought_form": form, **IN_TEXT.get(form, {}), **more}
        price = {n: {"usd_per_1m_input": PRICES[n], "usd_per_1m_output": PRICES[n]} for n in NAMES}
        tiers = [{"name": n, "price": price[n], **thinks} for n in NAMES]
        self.config = Config.model_validate({"tiers": tiers, "server": server or {}, **case.sections})
        router = Decided(self.config, None, dict.fromkeys(NAMES, words))
        router.changes = case.changes
        self.ledger = Ledger(Settings(journal_s=0, url=f"sqlite:///{folder / 'ledger.db'}", store="all"))
        self.metrics = Metrics(self.config.tiers, lambda name, measure: None)
        self.tiers = {tier.name: Scripted(tier) for tier in self.config.tiers}
        for name, said in case.says.items():
            self.tiers[name].script = said
        accounts = Accounts(Keys(self.ledger.engine), self.ledger, self.metrics, tiers={t.name: t for t in self.config.tiers})
        accounts.open = self.opened  # type: ignore[method-assign]  # no sampler, no provisioning
        self.app = Ingress(router, self.tiers, accounts, 1_000_000).app()

    async def opened(self, promises: Any, all_promises: Any = None) -> None:
        await self.ledger.open()
        self.secret = create(self.ledger.engine, Key("", "test", reasoning=self.shown), time.time())[1]

    def post(self, client: TestClient, body: Mapping[str, Any], stream: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        """The message, and the usage."""
        asked = {"model": "auto", **body, "stream": stream, **({"stream_options": {"include_usage": True}} if stream else {})}
        answer = client.post("/v1/chat/completions", json=asked, headers={"authorization": f"Bearer {self.secret}"})
        assert answer.status_code == 200, answer.text
        self.headers = answer.headers
        if not stream:
            return answer.json()["choices"][0]["message"], answer.json()["usage"]
        message: dict[str, Any] = {}
        for line in answer.text.splitlines():
            if line.startswith("data:") and "[DONE]" not in line:
                chunk = json.loads(line[5:])
                usage = chunk.get("usage") or {}
                for choice in chunk["choices"]:
                    for name, text in choice["delta"].items():
                        message[name] = message.get(name, "") + (text or "")
        return message, usage

    def rows(self) -> list[Any]:
        with self.ledger.engine.connect() as connection:
            return list(connection.execute(select(schema.calls).order_by(schema.calls.c.began_s)))

    def sums(self, table: Any) -> tuple[int, int]:
        """(thought, output) tokens over the whole table."""
        with self.ledger.engine.connect() as connection:
            found = connection.execute(select(func.sum(table.c.thought_tokens), func.sum(table.c.output_tokens))).one()
        return tuple(found)

    def trace(self) -> Any:
        with self.ledger.engine.connect() as connection:
            return connection.execute(select(schema.traces)).one()

    def added(self, metric: str) -> float:
        return sum(value for series, value in self.metrics.added.items() if metric in series)


@pytest.fixture(autouse=True)
def unflushed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was counted stays where the tests read it, however long they take."""
    monkeypatch.setattr("deployments.monitoring.metrics.FLUSH_S", 1e6)


def thinks(form: str, role: str) -> bool:
    """Without a parser a tier does not think where a form holds for its whole text: a plan's."""
    return form not in IN_TEXT or role != "plan"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CASES)
def test_the_thought_is_counted_everywhere_and_no_part_of_the_answer(name: str, form: str, stream: bool, tmp_path: Any) -> None:
    case, Judge.seen[:] = CASES[name], []
    place = Place(tmp_path, case, form)
    with TestClient(place.app) as client:
        message, usage = place.post(client, case.body, stream)
        metric = place.added("stepdown_thought_tokens")
    assert message["content"] == case.answer
    rows, trace = place.rows(), place.trace()
    assert trace.flow == case.flow and "thought" not in trace.answer
    assert all("thought" not in reply.text and "think" not in reply.text for reply in Judge.seen)
    assert sorted((row.role, row.tier) for row in rows) == sorted(case.calls)
    assert {row.role: row.thought_tokens for row in rows} == {role: N if thinks(form, role) else 0 for role, _ in case.calls}
    assert all(row.output_tokens > row.thought_tokens and not row.estimated for row in rows)
    whole = sum(row.thought_tokens for row in rows), sum(row.output_tokens for row in rows)
    assert place.sums(schema.hourly) == place.sums(schema.daily) == whole
    assert metric == whole[0]
    if "stepdown" in usage:
        told = usage["stepdown"]
        assert told["total"]["completion_tokens_details"]["reasoning_tokens"] == whole[0]
        assert sum(call.get("thought_tokens", 0) for call in told["calls"]) == whole[0]
    if case.flow in ("direct", "cascade", "race") and not (form in COUNTED_HERE and case.flow == "direct"):
        assert usage["completion_tokens_details"]["reasoning_tokens"] == N
    if stream and case.flow in ("direct", "cascade"):
        assert all(0 <= row.first_token_s <= row.first_answer_s <= row.took_s for row in rows)


# -- cut thoughts ------------------------------------------------------------------------------------------------------------

SWITCHED = {"parser": "its own", "switch": "effort"}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_tier_that_was_cut_in_its_thought_is_asked_without_and_then_the_next(stream: bool, tmp_path: Any) -> None:
    case = replace(CASES["a cascade that stays"], calls=[])
    place = Place(tmp_path, case, "cut", reasoning=SWITCHED)
    with TestClient(place.app) as client:
        message, _ = place.post(client, case.body, stream)
    assert message["content"] == "two cats"
    assert [(row.id.partition("/")[2], row.outcome, row.thought_tokens) for row in place.rows()] == [
        ("attempt-small", "thought too long", N),
        ("attempt-small-unthinking", "accepted", 0),
    ]
    assert place.trace().certificate in ("", "uncovered")


def test_a_tier_that_cannot_be_kept_from_thinking_goes_up(tmp_path: Any) -> None:
    case = replace(CASES["a cascade that stays"], calls=[])
    place = Place(tmp_path, case, "cut")
    with TestClient(place.app) as client:
        message, _ = place.post(client, case.body, False)
    assert message["content"] is None  # nobody could do better
    outcomes = [("small", "thought too long"), ("medium", "thought too long"), ("large", "accepted")]
    assert [(row.tier, row.outcome) for row in place.rows()] == outcomes


def test_parts_that_were_cut_in_their_thought_are_asked_without(tmp_path: Any) -> None:
    """Workers that can be kept from thinking are, unless the plan says that their part is hard: then they get room for it."""
    case = replace(CASES["a plan"], calls=[])
    place = Place(tmp_path, case, "parsed", reasoning=SWITCHED)
    with TestClient(place.app) as client:
        message, _ = place.post(client, case.body, False)
    assert message["content"] == case.answer
    assert {row.role: row.thought_tokens for row in place.rows()} == {"plan": N, "subtask": 0}


# -- what clients get of it --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "server, key, told, fields",
    [
        ("both", None, "reasoning reasoning_content", ("reasoning", "reasoning_content")),
        ("hide", None, "hidden", ()),
        ("pass", "hide", "hidden", ()),
        ("hide", "both", "reasoning reasoning_content", ("reasoning", "reasoning_content")),
        ("hide", "pass", None, None),
    ],
)
def test_what_clients_get_is_told(
    server: str, key: Any, told: str | None, fields: Any, form: str, stream: bool, tmp_path: Any
) -> None:
    place = Place(tmp_path, CASES["direct"], form, server={"reasoning": server})
    place.shown = key
    with TestClient(place.app) as client:
        message, _ = place.post(client, QUESTION, stream)
    assert message["content"] == "two cats" and place.headers.get("x-stepdown-reasoning") == told
    got = tuple(name for name in ("reasoning", "reasoning_content") if message.get(name))
    assert got == fields if fields is not None else len(got) == 1
    assert all("thought1" in message[name] for name in got)


def test_the_request_that_breaks_vllm_is_rewritten_before_it_reaches_a_tier(tmp_path: Any) -> None:
    place = Place(tmp_path, CASES["direct"], "parsed")
    seen: list[Mapping[str, Any]] = []
    tier = place.tiers["large"]
    said = tier.thought_through
    tier.thought_through = lambda path, body: (seen.append(body), said(path, body))[1]  # type: ignore[method-assign]
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
    with TestClient(place.app) as client:
        message, _ = place.post(
            client,
            {**QUESTION, "include_reasoning": False, "response_format": form, "thinking_token_budget": 3, "max_tokens": 40},
            False,
        )
    assert "reasoning" not in message and place.headers["x-stepdown-reasoning"] == "hidden"
    assert "include_reasoning" not in seen[0] and seen[0]["thinking_token_budget"] == 3
