"""/readyz is 200 where requests are answered, and else says what is missing; /healthz lives meanwhile."""

import httpx
import pytest
from live import listening
from scripted_tier import Said, ScriptedTier, down
from starlette.testclient import TestClient

from deployments.endpoint.accounts import without_books
from deployments.endpoint.ingress import Ingress
from deployments.tiers.token_counters import counters
from router.config import Config
from router.engine import Router
from router.errors import LedgerDown

pytestmark = pytest.mark.slow

PRICE = {"usd_per_1m_input": 1, "usd_per_1m_output": 1}
VLLM = {"engine": "vllm", "source": "org/model", "context": 4000, "price": PRICE}
CHAT = {"model": "small", "messages": [{"role": "user", "content": "one"}]}


class Counted(ScriptedTier):
    """running: replicas, or what counting them raises."""

    running_now: int | Exception = 0

    async def replicas(self):
        if isinstance(self.running_now, Exception):
            raise self.running_now
        return self.running_now


class Served:
    def __init__(self, when_down="any", asleep=False, said=Said("yes")):
        sleeps = {"replicas": 0, "max_replicas": 1} if asleep else {}
        tiers = [{"name": "small", **VLLM}, {"name": "large", **VLLM, **sleeps}]
        config = Config.model_validate({"tiers": tiers, "routing": {"when_down": when_down}})
        self.tiers = {name: Counted(name, lambda body: said) for name in config.names}
        self.ingress = Ingress(Router(config, None, counters(config)), self.tiers, without_books(), 1_000_000)
        self.client = TestClient(self.ingress.app())

    def run(self, **replicas):
        for name, found in replicas.items():
            self.tiers[name].running_now = found

    def ready(self):
        answer = self.client.get("/readyz")
        assert answer.headers["cache-control"] == "no-store" and self.client.get("/healthz").status_code == 200
        assert (answer.status_code == 200) is (answer.json()["status"] == "ready")
        return answer.status_code, answer.json()["missing"], answer.json().get("lost", {})


def test_it_is_ready_once_every_tier_is_up():
    served = Served()
    assert served.ready() == (503, {"small": "starting", "large": "starting"}, {})
    served.run(small=1)
    assert served.ready() == (503, {"large": "starting"}, {})
    served.run(large=2)
    assert served.ready() == (200, {}, {})


def test_a_tier_that_sleeps_is_ready_since_a_request_wakes_it():
    served = Served(asleep=True)
    served.run(small=1)
    assert served.ready() == (200, {}, {})


def test_a_tier_that_is_lost_later_is_told_while_another_answers_for_it():
    served = Served()
    served.run(small=1, large=1)
    served.ready()
    served.run(large=0)
    assert served.ready() == (200, {}, {"large": "none of its replicas runs any more"})
    served.run(small=0)
    assert served.ready()[:1] == (503,) and set(served.ready()[1]) == {"small", "large"}


def test_where_no_tier_answers_for_another_each_must_be_up():
    served = Served(when_down="none")
    served.run(small=1, large=1)
    assert served.ready()[0] == 200
    served.run(large=0)
    assert served.ready()[:2] == (503, {"large": "none of its replicas runs any more"})


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


def test_a_ledger_that_refuses_makes_it_not_ready(monkeypatch):
    served = Served()
    served.run(small=1, large=1)

    def full():
        raise LedgerDown("the spool is full")

    monkeypatch.setattr(served.ingress.accounts, "check", full)
    status, missing, _ = served.ready()
    assert status == 503 and "the spool is full" in missing["ledger"]


def test_a_server_that_stops_is_not_ready_but_answers():
    served = Served()
    served.run(small=1, large=1)
    served.ingress.readiness.draining = True
    assert served.ready()[:2] == (503, {"server": "it is stopping, and takes no further requests"})
    assert served.client.get("/readyz").headers["retry-after"] == "1"
    assert served.client.post("/v1/chat/completions", json=CHAT).status_code == 200


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_load_balancers_ask_without_a_key_and_by_any_name(method):
    served = Served()
    served.run(small=1, large=1)
    with listening(served.ingress.app()) as port:
        answer = httpx.request(method, f"http://127.0.0.1:{port}/readyz", headers={"host": "10.0.0.7"})
    assert answer.status_code == 200 and served.ingress.readiness.draining  # closed since
