"""Four rungs on one real vLLM replica: not thinking, thinking shortly, thinking longer, and with an adapter."""

import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import yaml
from adapters_made import written
from think_model import think
from waiting import until

from benchmarks.chaos_faults import below
from deployments import APP
from deployments.replicas.placement import deployment_of
from deployments.serve.background import served
from router.config import SHIPPED

pytestmark = [pytest.mark.ray, pytest.mark.ladder, pytest.mark.slow]
NAMES = ["off", "mail", "short", "long"]
BUDGETS = {"short": 8, "long": 64}
PROMPT = "What is 238 plus 467?"
LIMIT = 160  # tokens of thought and answer
TALK = " ".join(str(number) for number in range(100, 160))
"""longer than a block of the prefix cache"""


def ladder(folder: Path) -> str:
    shipped = yaml.safe_load((SHIPPED / "pocket.yaml").read_text())["tiers"][0]
    kwargs = {"enable_thinking": False}
    off = {"reasoning": "qwen3", "effort": "none", "body": {"chat_template_kwargs": kwargs, "min_tokens": 90}}
    tiers = [
        {**shipped, "name": "off", "source": str(think(folder / "think")), **off},
        {"name": "mail", "on": "off", "lora": str(written(folder / "mail"))},
    ]
    for (name, budget), effort in zip(BUDGETS.items(), ("low", "high"), strict=True):
        body = {"chat_template_kwargs": {"enable_thinking": True}}
        tiers.append({"name": name, "on": "off", "effort": effort, "thought": budget, "body": body})
    file = folder / "ladder.yaml"
    rest = {"ledger": {"url": f"sqlite:///{folder}/ledger.db"}, "flywheel": {"weights": str(folder / "weights")}}
    file.write_text(yaml.safe_dump({"tiers": tiers, **rest}))
    return str(file)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rungs")
    with served(ladder(folder), timeout_s=900) as (url, key):
        headers = {"authorization": f"Bearer {key}"}
        with httpx.Client(base_url=url, headers=headers, timeout=120) as client:
            yield SimpleNamespace(folder=folder, client=client)


def asked(made, model: str, prompt: str = PROMPT, **more):
    body = {"model": model, "messages": [{"role": "user", "content": prompt}], "max_tokens": LIMIT, "temperature": 0, **more}
    return made.client.post("/chat/completions", json=body)


def answer(made, model: str, prompt: str = PROMPT, **more):
    """(message, usage)."""
    reply = asked(made, model, prompt, **more)
    assert reply.status_code == 200, reply.text
    document = reply.json()
    assert document["model"] == model
    return document["choices"][0]["message"], document["usage"]


def test_each_thinks_as_it_says_and_no_mark_is_in_an_answer(made):
    thoughts = {}
    for name in NAMES:
        message, usage = answer(made, name)
        thought = message.get("reasoning") or ""
        thoughts[name] = (bool(thought), (usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0)
        assert message["content"] and "think>" not in message["content"] and "think>" not in thought
    print(thoughts)
    assert {name: thinks for name, (thinks, _) in thoughts.items()} == {"off": False, "mail": False, "short": True, "long": True}
    assert 0 < thoughts["short"][1] <= BUDGETS["short"] < thoughts["long"][1] <= BUDGETS["long"]


@pytest.mark.parametrize("wish", [{"reasoning_effort": "high"}, {"chat_template_kwargs": {"enable_thinking": True}}])
def test_a_client_makes_none_think_that_does_not(made, wish):
    assert answer(made, "off", **wish)[0] == answer(made, "off")[0]
    assert answer(made, "short", reasoning_effort="none")[0] == answer(made, "short")[0]


def test_a_stream_has_the_rungs_name_and_both_fields(made):
    text = asked(made, "short", stream=True).text
    assert text.count('"model":"short"') > 10 and '"model":"off"' not in text
    assert '"reasoning":"' in text and '"content":"' in text and "think>" not in text


@pytest.mark.parametrize("effort, tier", [(None, "long"), ("high", "long"), ("medium", "short"), ("none", "mail")])
def test_an_effort_is_a_ceiling(made, effort, tier):
    reply = asked(made, "auto", **({"reasoning_effort": effort} if effort else {}))
    assert reply.status_code == 200 and reply.headers["x-stepdown-tier"] == tier
    assert reply.headers["x-stepdown-effort"] == {"long": "high", "short": "low", "mail": "none"}[tier]


def test_what_one_effort_has_read_another_finds_in_the_cache_and_an_adapter_does_not(made):
    prompt = f"{TALK} {time.monotonic_ns()}"
    first, *rest = [
        answer(made, name, prompt, max_tokens=100)[1]["prompt_tokens_details"] for name in ("short", "off", "long", "mail")
    ]
    found = [(each or {}).get("cached_tokens") or 0 for each in (first, *rest)]
    print(found)
    assert found[0] == 0 and found[1] > 0 and found[2] > 0 and found[3] == 0


def test_cards_say_what_each_is(made):
    cards = {card["id"]: card for card in made.client.get("/models").json()["data"]}
    shown = [(cards[name].get("on"), cards[name]["effort"], cards[name]["thinks"]) for name in NAMES]
    assert shown == [(None, "none", False), ("off", "none", False), ("off", "low", True), ("off", "high", True)]


def test_one_replica_answers_for_all_and_all_come_back_with_it(made):
    before = [answer(made, name)[0] for name in NAMES]
    (own,) = below(os.getpid(), f"ServeReplica:{APP}:tier-")
    assert own in below(os.getpid(), f"ServeReplica:{APP}:{deployment_of('off')}")
    os.kill(own, signal.SIGKILL)
    time.sleep(3)
    # Nothing is asked in a sibling's place: there is no other replica.
    assert asked(made, "auto", max_tokens=1).status_code in (200, 503)
    assert until(lambda: all(asked(made, name, max_tokens=1).status_code == 200 for name in NAMES), 400)
    assert [answer(made, name)[0] for name in NAMES] == before


def test_held_time_is_the_hosts_and_every_rung_used_some(made):
    from sqlalchemy import func, select

    from deployments.ledger.database import connect
    from deployments.ledger.schema import calls, windows
    from router.config import Ledger

    engine = connect(Ledger(url=f"sqlite:///{made.folder}/ledger.db"))
    with engine.connect() as connection:
        held = connection.execute(select(windows)).all()
        used = dict(connection.execute(select(calls.c.tier, func.sum(calls.c.busy_s)).group_by(calls.c.tier)).all())
        replicas = {row.replica for row in connection.execute(select(calls.c.replica)) if row.replica}
    assert {row.tier for row in held} == {"off"} and set(used) == set(NAMES) and all(used.values())
    assert len(replicas) == 2, "one, and the one that came after it"
    print({name: round(seconds, 2) for name, seconds in used.items()}, sum(row.seconds * row.replicas for row in held))
    assert sum(used.values()) <= sum(row.seconds * row.replicas for row in held) + 20  # the last window is still open
