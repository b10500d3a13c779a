"""/readyz is 200 where requests should come, and else says what is missing; /livez lives; /startupz waits for all tiers."""

import asyncio
from itertools import count

import httpx
import pytest
from live import listening
from scripted_tier import Said, ScriptedTier, down
from starlette.testclient import TestClient

from deployments import OWN_PROBE
from deployments.endpoint.accounts import Accounts, without_books
from deployments.endpoint.doors import health
from deployments.endpoint.ingress import Ingress
from deployments.keys import admission
from deployments.keys.admission import Keys
from deployments.ledger.database import connect, migrate
from deployments.tiers.token_counters import counters
from router.config import Config, Ledger
from router.engine import Router
from router.errors import LedgerDown

pytestmark = pytest.mark.slow

PRICE = {"usd_per_1m_input": 1, "usd_per_1m_output": 1}
VLLM = {"engine": "vllm", "source": "org/model", "context": 4000, "price": PRICE}
CHAT = {"model": "small", "messages": [{"role": "user", "content": "one"}]}


class Counted(ScriptedTier):
    """running_now: replicas, or what counting them raises."""

    running_now: int | Exception = 0
    counted = 0

    async def replicas(self):
        self.counted += 1
        if isinstance(self.running_now, Exception):
            raise self.running_now
        return self.running_now


class Served:
    """Two seconds pass between any two looks at the clock."""

    def __init__(self, asleep=False, said=Said("yes"), accounts=None, **server):
        sleeps = {"replicas": 0, "max_replicas": 1} if asleep else {}
        tiers = [{"name": "small", **VLLM}, {"name": "large", **VLLM, **sleeps}]
        config = Config.model_validate({"tiers": tiers, "server": server})
        self.tiers = {name: Counted(name, lambda body: said) for name in config.names}
        router = Router(config, None, counters(config))
        self.ingress = Ingress(router, self.tiers, accounts or without_books(), 1_000_000)
        self.clock = count(0, 2)
        self.ingress.health.readiness.ticks = self.ingress.health.ticks = lambda: float(next(self.clock))
        self.client = TestClient(self.ingress.app())

    def run(self, **replicas):
        for name, found in replicas.items():
            self.tiers[name].running_now = found

    def ready(self):
        answer = self.client.get("/readyz")
        assert answer.headers["cache-control"] == "no-store"
        assert self.client.get("/livez").status_code == self.client.get("/healthz").status_code == 200
        assert (answer.status_code == 200) is (answer.json()["status"] == "ready")
        assert answer.headers.get("retry-after") == ("1" if answer.status_code == 503 else None)
        return answer.status_code, answer.json()["missing"], answer.json().get("lost", {})

    def started(self):
        answer = self.client.get("/startupz")
        assert answer.headers["cache-control"] == "no-store"
        return answer.status_code, answer.json()["missing"]


def test_it_is_ready_once_one_tier_is_up_and_started_once_all_were():
    served = Served()
    assert served.ready() == (503, {"small": "starting", "large": "starting"}, {})
    assert served.started() == (503, {"small": "starting", "large": "starting"})
    served.run(small=1)
    assert served.ready() == (200, {}, {"large": "starting"})
    assert served.started() == (503, {"large": "starting"})
    served.run(large=2)
    assert served.ready() == (200, {}, {}) and served.started() == (200, {})
    served.run(small=0, large=0)
    assert served.ready()[0] == 503 and served.started() == (200, {})


def test_as_many_tiers_as_are_asked_for_must_be_up():
    served = Served(ready_tiers=2)
    served.run(small=1)
    assert served.ready() == (503, {"large": "starting"}, {})
    served.run(large=1)
    assert served.ready() == (200, {}, {})
    served.run(large=0)
    assert served.ready() == (503, {"large": "none of its replicas runs any more"}, {})


def test_more_tiers_than_there_are_stop_the_start():
    with pytest.raises(ValueError, match="server.ready_tiers is 3, and there are 2 tiers"):
        Served(ready_tiers=3)


def test_a_tier_that_sleeps_is_up_since_a_request_wakes_it():
    served = Served(asleep=True, ready_tiers=2)
    assert served.ready() == (503, {"small": "starting"}, {}) and served.started() == (503, {"small": "starting"})
    served.run(small=1)
    assert served.ready() == (200, {}, {}) and served.started() == (200, {})


def test_a_tier_that_is_lost_later_is_told_while_another_is_up():
    served = Served()
    served.run(small=1, large=1)
    served.ready()
    served.run(large=0)
    assert served.ready() == (200, {}, {"large": "none of its replicas runs any more"})
    served.run(small=0)
    assert served.ready()[:1] == (503,) and set(served.ready()[1]) == {"small", "large"}


def test_a_controller_that_is_away_does_not_take_a_server_out_of_use():
    served = Served()
    served.run(small=RuntimeError("no controller"), large=RuntimeError("no controller"))
    assert served.ready()[0] == 503  # nothing is known yet
    served.run(small=1, large=1)
    served.ready()
    served.run(small=RuntimeError("no controller"), large=RuntimeError("no controller"))
    assert served.ready() == (200, {}, {})


def test_open_circuits_of_all_tiers_make_it_not_ready():
    served = Served(said=down("small"))
    served.run(small=1, large=1)
    for model in ("small", "large"):
        for _ in range(3):
            served.client.post("/v1/chat/completions", json={**CHAT, "model": model})
    status, missing, _ = served.ready()
    assert status == 503 and all("tried again in" in why for why in missing.values())
    assert served.started()[0] == 200


def test_a_ledger_that_refuses_makes_it_not_ready(monkeypatch):
    served = Served()
    served.run(small=1, large=1)

    def full():
        raise LedgerDown("the spool is full")

    monkeypatch.setattr(served.ingress.accounts, "check", full)
    status, missing, _ = served.ready()
    assert status == 503 and "the spool is full" in missing["ledger"]


def test_keys_that_could_not_be_read_yet_make_it_not_ready(tmp_path, monkeypatch):
    engine = connect(Ledger(url=f"sqlite:///{tmp_path}/ledger.db"))
    migrate(engine)
    whole = admission.read_keys

    def down(_):
        raise ValueError("no route")

    monkeypatch.setattr(admission, "read_keys", down)
    served = Served(accounts=Accounts(Keys(engine)))
    served.run(small=1, large=1)
    assert served.ready() == (503, {"keys": "they could not be read from the database yet"}, {})
    monkeypatch.setattr(admission, "read_keys", whole)
    assert served.ready() == (200, {}, {})
    monkeypatch.setattr(admission, "read_keys", down)  # the known ones go on
    assert served.ready() == (200, {}, {})
    engine.dispose()


def test_a_flood_of_questions_counts_replicas_once_a_second():
    served = Served()
    served.run(small=1, large=1)
    now, readiness = [100.0], served.ingress.health.readiness
    readiness.ticks = lambda: now[0]

    async def flood():
        await asyncio.gather(*(readiness.shown() for _ in range(200)), *(readiness.never_up() for _ in range(50)))
        before = served.tiers["small"].counted
        now[0] += 0.9
        await asyncio.gather(*(readiness.shown() for _ in range(200)))
        assert served.tiers["small"].counted == before == 1
        now[0] += 0.2
        await asyncio.gather(*(readiness.shown() for _ in range(200)))
        assert served.tiers["small"].counted == 2

    asyncio.run(flood())


def test_one_who_leaves_while_replicas_are_counted_takes_nothing_from_the_others():
    served, go_on = Served(), asyncio.Event()

    async def slow():
        await go_on.wait()
        return 1

    async def ask():
        served.tiers["small"].replicas = served.tiers["large"].replicas = slow
        first, second = (asyncio.ensure_future(served.ingress.health.readiness.shown()) for _ in range(2))
        await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.sleep(0.01)
        go_on.set()
        assert await second == ({}, {})

    asyncio.run(ask())


@pytest.mark.parametrize("path", health.PATHS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_load_balancers_ask_without_a_key_and_by_any_name(method, path):
    served = Served()
    served.run(small=1, large=1)
    with listening(served.ingress.app()) as port:
        headers = {"host": "10.0.0.7", "authorization": "Bearer x"}
        answer = httpx.request(method, f"http://127.0.0.1:{port}{path}", headers=headers)
    assert answer.status_code == 200 and answer.headers["cache-control"] == "no-store"
    assert bool(answer.content) is (method == "GET")


def test_the_root_says_what_is_here():
    client = Served().client
    assert client.get("/").json()["name"] == "stepdown" and client.get("/").json()["api"] == "/v1"
    assert client.head("/", headers={"host": "10.0.0.7"}).status_code == 200


@pytest.mark.parametrize("path, counts", [*((path, True) for path in health.READY), *((path, False) for path in health.LIVE)])
def test_it_is_known_when_somebody_asked_last(path, counts):
    served = Served()
    now = [100.0]
    served.ingress.health.ticks = lambda: now[0]
    assert served.ingress.health.asked_s == float("inf")
    served.client.get(path, headers={"user-agent": OWN_PROBE})
    assert served.ingress.health.asked_s == float("inf")
    served.client.get(path)
    now[0] += 7
    assert served.ingress.health.asked_s == (7.0 if counts else float("inf"))
