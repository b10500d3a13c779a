"""The endpoint with a ledger has the paths of kept completions beside its own, and asks the same keys."""

import openai
import pytest
from kept_answers import TRACE, database, keep, kept
from starlette.testclient import TestClient

from deployments.app import TIERS
from deployments.endpoint.accounts import Accounts
from deployments.endpoint.ingress import Ingress
from deployments.keys.admission import Keys
from deployments.keys.key_store import hashed
from deployments.ledger.ledger import Ledger
from deployments.tiers.token_counters import counters
from router.config import Config
from router.engine import Router

pytestmark = pytest.mark.slow
PRICE = {"usd_per_1m_input": 1, "usd_per_1m_output": 1}
ASKED = [{"role": "user", "content": "one two three"}]


@pytest.fixture
def client(tmp_path):
    engine = database(tmp_path)
    keep(engine, kept(0, "given"), kept(1, "another"))
    engine.dispose()
    tiers = [{"name": name, "engine": "echo", "context": 400, "price": PRICE} for name in ("small", "large")]
    config = Config.model_validate({"tiers": tiers, "ledger": {"url": f"sqlite:///{tmp_path}/ledger.db"}})
    ledger = Ledger(config.ledger)
    accounts = Accounts(Keys(ledger.engine, hashed("right")), ledger)
    made = {tier.name: TIERS[tier.engine].make(tier, None, 5.0, None) for tier in config.tiers}
    ingress = Ingress(Router(config, None, counters(config)), made, accounts, config.server.max_body_bytes)
    with TestClient(ingress.app(), raise_server_exceptions=False) as http:
        yield openai.OpenAI(base_url="http://testserver/v1", api_key="right", max_retries=0, http_client=http)


def test_old_rows_are_answered_though_nothing_is_collected(client):
    stored = client.chat.completions
    assert stored.create(model="small", messages=ASKED).choices[0].message.content == "one two three"
    assert [one.id for one in stored.list()] == [f"chatcmpl-{TRACE.format(n)}" for n in (0, 1)]  # this key has every right
    assert [one.id for one in stored.list(extra_query={"key": "given"})] == [f"chatcmpl-{TRACE.format(0)}"]
    assert stored.delete(f"chatcmpl-{TRACE.format(1)}").deleted and len(list(stored.list())) == 1


def test_what_the_path_allows_is_said_whole(client):
    told = client._client.put("http://testserver/v1/chat/completions", json={})
    assert told.status_code == 405 and told.headers["allow"] == "GET, HEAD, POST"


def test_a_compressed_or_a_large_body_is_treated_as_everywhere(client):
    http, headers = client._client, {"authorization": "Bearer right"}
    refused = http.post("http://testserver/v1/feedback", content=b"x" * 2_000_000, headers=headers)
    assert refused.status_code == 413 and refused.json()["error"]["trace_id"]
    odd = http.post("http://testserver/v1/feedback", content=b"x", headers=headers | {"content-encoding": "odd"})
    assert odd.status_code == 415
