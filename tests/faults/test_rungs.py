"""Rungs at the endpoint: tiers to clients, keys, prices and the ledger; one thing with their host when something breaks."""

import pytest
from endpoint import endpoint, in_turn, words
from scripted_tier import Said

from deployments.keys import key_store
from deployments.keys.admission import Keys
from deployments.ledger.ledger import Ledger
from router.config import Config
from router.config import Ledger as Settings
from router.errors import NoReplica
from router.limits.key_limits import Key

pytestmark = pytest.mark.slow
DOWN = Said(error=NoReplica("small", "no replica is running"))


def priced(usd: float) -> dict[str, float]:
    return {"usd_per_1m_input": usd, "usd_per_1m_output": usd, "usd_per_accelerator_hour": 2.0}


def ladder(**sections) -> Config:
    same = {"engine": "vllm", "source": "none", "context": 100_000}
    mail = {"name": "mail", "on": "small", "lora": "none", "price": priced(3.0)}
    tiers = [{**same, "name": "small", "price": priced(1.0)}, mail, {**same, "name": "large", "price": priced(20.0)}]
    return Config.model_validate({"tiers": tiers, **sections})


@pytest.fixture
def ledger(tmp_path):
    return Ledger(Settings(url=f"sqlite:///{tmp_path / 'ledger.db'}"))


def test_a_rung_is_a_tier_to_clients_prices_and_the_ledger(ledger):
    with endpoint(ladder(), ledger) as it:
        answer = it.ask(model="mail")
        assert answer.status_code == 200 and answer.headers["x-stepdown-tier"] == "mail"
        (call,) = it.calls()
        assert call["tier"] == "mail" and call["cost_usd"] == pytest.approx(3e-6 * (call["input_tokens"] + call["output_tokens"]))
        assert it.rows()[0]["cost_usd"] == call["cost_usd"]
        cards = {card["id"]: card for card in it.client.get(f"{it.url}/models").json()["data"]}
        assert cards["mail"]["on"] == "small" and "on" not in cards["small"]
        assert it.client.get(f"{it.url}/models/mail").json() == cards["mail"]


def test_a_key_for_the_rung_alone_may_ask_nothing_else(ledger):
    with endpoint(ladder(), ledger, Keys(ledger.engine, insecure=False)) as it:
        _, text = key_store.create(ledger.engine, Key("", "team", tiers=frozenset({"mail"})), 0.0)
        it.client.headers["authorization"] = f"Bearer {text}"
        assert it.ask(model="mail").status_code == 200 and it.ask(model="small").status_code == 403


def test_when_the_host_is_down_its_rung_is_not_tried_either(ledger):
    with endpoint(ladder(), ledger, small=in_turn(DOWN), mail=words) as it:
        for _ in range(3):
            assert it.ask(model="small").status_code == 503
        answer = it.ask(model="mail")
        assert answer.status_code == 503 and "tier mail" in answer.text and not it.tiers["mail"].bodies
        assert it.ask(model="auto").headers["x-stepdown-tier"] == "large"
