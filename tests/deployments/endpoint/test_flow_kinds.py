"""Whatever answered a request, everybody calls it by the same kind: ledger, counterfactual, reservation, metrics and replay."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from delegation import CHAT, MAP
from delegation import SETTINGS as PLANNING
from live import ladder
from scripted_tier import Said, ScriptedTier
from starlette.testclient import TestClient

from deployments.costs.decisions import every_request
from deployments.costs.interval import Interval
from deployments.endpoint.accounts import Accounts
from deployments.endpoint.ingress import Ingress
from deployments.keys.admission import Keys
from deployments.keys.key_store import create
from deployments.ledger.ledger import Ledger
from deployments.monitoring.metrics import Metrics
from router.config import Ledger as Settings
from router.engine import Router
from router.limits.key_limits import Key
from router.replay import IN_PARTS, Logged, Replay, router_for
from router.types import Accept, Decision, GoUp

pytestmark = pytest.mark.slow

NAMES = ("small", "medium", "large")
PRICES = {"small": 1e-6, "medium": 4e-6, "large": 20e-6}
QUESTION = {"role": "user", "content": "count the cats and the dogs"}
DELEGATE = {"type": "stepdown:delegate"}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALLING = {"mode": "tool", "max_cost_ratio": 50.0}


def called(name: str, arguments: str = "{}", id: str = "call_t") -> Said:
    made = {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
    return Said("", finish="tool_calls", tool_calls=[made])


def hands_down() -> Said:
    return called("stepdown_delegate", '{"plan": [{"prompt": "count the cats"}, {"prompt": "count the dogs"}]}')


class Judge:
    """Accepts what is not in doubt."""

    def next(self, answers: dict[str, Any]) -> Accept | GoUp:
        sure = next((tier for tier, reply in answers.items() if "doubt" not in reply.text), None)
        return Accept(sure) if sure else GoUp(("large",), "low confidence")


class Decided(Router):
    """A router whose decisions on `auto` are changed as a test tells."""

    changes: dict[str, Any] = {}

    def decide(self, *given: Any) -> Decision:
        decided = super().decide(*given)
        return decided if decided.target in self.names else replace(decided, **self.changes)


class Booked(Keys):
    """Remembers what was set aside."""

    booked: list[float] = []

    async def admit(self, key: Any, trace_id: str, size: Any, most_usd: float, began_s: float) -> Any:
        self.booked.append(most_usd)
        return await super().admit(key, trace_id, size, most_usd)


@dataclass
class Case:
    """scripts: what each tier says, in turn. flow: the kind that the request has in the end."""

    flow: str
    scripts: dict[str, list[Said]]
    body: dict[str, Any] = field(default_factory=lambda: {"messages": [QUESTION]})
    changes: dict[str, Any] = field(default_factory=dict)
    escalation: dict[str, Any] = field(default_factory=dict)
    delegation: dict[str, Any] = field(default_factory=dict)
    answered: str = "large"
    known: bool = True
    """what the largest tier alone would have cost is a fact"""
    delegations: int = 0
    replayed: bool = True


LOOKED_AT = {"tier": "small", "first": ("small",), "judge": Judge()}
CASES = {
    "a direct call": Case("direct", {"large": [Said("two cats")]}),
    "a direct call to a smaller tier": Case(
        "direct", {"small": [Said("two cats")]}, changes={"tier": "small"}, answered="small", known=False
    ),
    "a cascade that stays": Case(
        "cascade", {"small": [Said("two cats")]}, changes=LOOKED_AT, answered="small", known=False, escalation={"mode": "buffer"}
    ),
    "a cascade that goes up": Case(
        "cascade", {"small": [Said("doubt")], "large": [Said("two cats")]}, changes=LOOKED_AT, escalation={"mode": "buffer"}
    ),
    "a race that the larger tier wins": Case(
        "race",
        {"small": [Said("late", wait_s=5.0)], "medium": [Said("two cats")]},
        changes={"tier": "small"},
        escalation={"mode": "hedge", "larger_after_s": 0.02},
        answered="medium",
        known=False,
    ),
    "a race that the largest tier wins": Case(
        "race",
        {"medium": [Said("late", wait_s=5.0)], "large": [Said("two cats")]},
        changes={"tier": "medium"},
        escalation={"mode": "hedge", "larger_after_s": 0.02},
    ),
    "a race that nobody had to join": Case(
        "race",
        {"small": [Said("two cats")]},
        changes={"tier": "small"},
        escalation={"mode": "hedge", "larger_after_s": 5.0},
        answered="small",
        known=False,
    ),
    "a plan": Case(
        "delegation",
        {"large": [Said(MAP), Said("merged")], "small": [Said("did it")], "medium": [Said("did it")]},
        CHAT,
        delegation=PLANNING,
        known=False,
        delegations=1,
        replayed=False,
    ),
    "tool mode": Case(
        "tools",
        {"large": [hands_down(), Said("two and three")], "small": [Said("two")], "medium": [Said("two")]},
        {"messages": [QUESTION], "tools": [DELEGATE]},
        delegation=CALLING,
        known=False,
        delegations=1,
        replayed=False,
    ),
    "a cascade whose last step is tool mode": Case(
        "tools",
        {"large": [hands_down(), Said("two and three")], "small": [Said("doubt"), Said("two")], "medium": [Said("two")]},
        {"messages": [QUESTION], "tools": [DELEGATE]},
        changes=LOOKED_AT,
        escalation={"mode": "buffer"},
        delegation=CALLING,
        known=False,
        delegations=1,
        replayed=False,
    ),
}


class Place:
    """One endpoint with a ledger, metrics and a key that has a budget; without Ray."""

    def __init__(self, folder: Any, case: Case) -> None:
        config = ladder(escalation=case.escalation, delegation=case.delegation)
        self.router = Decided(config, None, dict.fromkeys(config.names, lambda text: len(text.split())))
        self.router.changes = case.changes
        self.config = config
        self.ledger = Ledger(Settings(journal_s=0, url=f"sqlite:///{folder / 'ledger.db'}", store="all"))
        self.metrics = Metrics(config.tiers, lambda name, measure: None)
        self.tiers = {name: ScriptedTier(name, in_turn(case.scripts.get(name, [Said("unasked")]))) for name in NAMES}
        self.keys = Booked(self.ledger.engine, clock=time.time)
        self.keys.booked = []
        accounts = Accounts(self.keys, self.ledger, self.metrics, tiers={tier.name: tier for tier in config.tiers})
        accounts.open = self.opened  # type: ignore[method-assign]  # no sampler, no provisioning
        self.app = Ingress(self.router, self.tiers, accounts, 1_000_000).app()

    async def opened(self, promises: Any, all_promises: Any = None) -> None:
        await self.ledger.open()
        self.secret = create(self.ledger.engine, Key("", "test", usd_per_day=100.0), time.time())[1]

    def post(self, client: TestClient, body: dict[str, Any]) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {self.secret}"}
        answer = client.post("/v1/chat/completions", json={"model": "auto", "max_tokens": 50, **body}, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()["choices"][0]["message"]

    def rows(self) -> list[dict[str, Any]]:
        return list(every_request(self.ledger.engine, Interval(0, until := int(time.time()) + 60, (0, until))))

    def added(self, metric: str) -> float:
        return sum(value for series, value in self.metrics.added.items() if metric in series)

    def replayed(self) -> dict[str, Any]:
        plain = ladder()
        return Replay(router_for(plain, None, plain, {})).run(map(Logged.from_row, self.rows())).report()


def in_turn(said: list[Said]) -> Callable[[Any], Said]:
    """These in turn, the last one again and again."""
    left = iter(said[:-1])
    return lambda body: next(left, said[-1])


@pytest.fixture(autouse=True)
def unflushed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was counted stays where the tests read it, however long they take."""
    monkeypatch.setattr("deployments.monitoring.metrics.FLUSH_S", 1e6)


@pytest.mark.parametrize("name", CASES)
def test_everybody_calls_it_by_the_same_kind(name: str, tmp_path: Any) -> None:
    case = CASES[name]
    place = Place(tmp_path, case)
    with TestClient(place.app) as client:
        place.post(client, case.body)
        added = {metric: place.added(metric) for metric in ("stepdown_delegations", "stepdown_routed")}
    (row,) = place.rows()
    assert (row["flow"], row["tier"], row["status"]) == (case.flow, case.answered, 200)
    assert row["counterfactual_estimated"] is not case.known
    if case.known:
        (own,) = [call for call in row["calls"] if call["tier"] == "large"]
        assert row["counterfactual_usd"] == pytest.approx(own["cost_usd"])
    assert row["cost_usd"] <= place.keys.booked[0]
    assert added == {"stepdown_delegations": case.delegations, "stepdown_routed": 1}
    told = place.replayed()
    assert told["replayed"] == case.replayed and (IN_PARTS in told["skipped"]) is not case.replayed


@pytest.mark.parametrize("largest_answers", [True, False])
def test_a_follow_up_turn_with_hidden_messages_that_is_one_plain_call(largest_answers: bool, tmp_path: Any) -> None:
    """The second turn brings the first one's answer back, whose exchange with our tool is put in front of it; it asks no more."""
    turns = [hands_down(), called("weather"), Said("it rains")]
    case = Case("direct", {"large": turns, "small": [Said("it rains")], "medium": [Said("two")]}, delegation=CALLING)
    place = Place(tmp_path, case)
    with TestClient(place.app) as client:
        first = place.post(client, {"messages": [QUESTION], "tools": [DELEGATE, WEATHER]})
        place.router.changes = {} if largest_answers else {"tier": "small"}
        result = {"role": "tool", "tool_call_id": first["tool_calls"][0]["id"], "content": "rain"}
        second = place.post(client, {"messages": [QUESTION, first, result], "tools": [WEATHER]})
        assert second["content"] == "it rains"
        delegations = place.added("stepdown_delegations")
    row = place.rows()[1]
    hidden = [body for body in place.tiers[row["tier"]].bodies if len(body["messages"]) == 5]
    assert hidden, "the exchange with our tool stands before the answer that it led to"
    assert (row["flow"], len(row["calls"]), delegations) == ("direct", 1, 1)
    assert row["counterfactual_estimated"] is not largest_answers
    assert row["cost_usd"] <= place.keys.booked[1] < 2 * single_call_usd(row["tier"], place, 1)
    assert place.replayed()["replayed"] == 1


def single_call_usd(tier: str, place: Place, n: int) -> float:
    """The bound of one call: its prompt with all that a template adds, and the longest answer."""
    body = next(body for body in place.tiers[tier].bodies if len(body["messages"]) == 5)
    rung = next(rung for rung in place.router.flows.rungs if rung.name == tier)
    return rung.cost(rung.prompt_tokens(body), 50)
