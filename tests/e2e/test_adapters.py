"""LoRA adapters on real vLLM: the same answers as merged weights, back after a replica is killed, and switched under load."""

import asyncio
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import yaml
from adapters_made import SMALL, changed, trained
from waiting import until

from benchmarks.chaos_faults import below
from deployments import APP
from deployments.pocket import tasks
from deployments.replicas.adapter_files import read
from deployments.replicas.adapters import board_of, on_board
from deployments.replicas.placement import deployment_of
from deployments.replicas.replica_count import running_replicas
from deployments.serve.background import served
from router.config import SHIPPED
from router.errors import BadInput, RequestFailed

pytestmark = [pytest.mark.ray, pytest.mark.ladder, pytest.mark.slow]
PROMPTS = [task.prompt for task in tasks.fresh("single", 150, 5)]
CROWD = 8


def ladder(folder: Path, **adapters: Path) -> str:
    """A file with the pocket ladder's `small`, a rung for each adapter, and `merged`, if it is there."""
    shipped = yaml.safe_load((SHIPPED / "pocket.yaml").read_text())["tiers"][0]
    tiers = [{**shipped, "source": str(SMALL)}, *({"name": n, "on": "small", "lora": str(f)} for n, f in adapters.items())]
    if (folder / "merged").exists():
        tiers.append({**shipped, "name": "merged", "source": str(folder / "merged")})
    rest = {"ledger": {"url": f"sqlite:///{folder}/ledger.db"}, "flywheel": {"weights": str(folder / "weights")}}
    file = folder / "ladder.yaml"
    file.write_text(yaml.safe_dump({"tiers": tiers, **rest}))
    return str(file)


def half_there(name: str, values):
    """Names of one layer that no module has, and zeros for the other: what is looked at before a start is right."""
    if "layers.1." in name:
        return name.replace("layers.1.", "layers.7."), values
    return name, values * ("lora_B" not in name)


# First, as one Ray serves one Stepdown: the other tests' ladder runs until the end of this file.
def test_an_adapter_that_does_not_take_stops_the_start(tmp_path):
    wrong = changed(trained(tmp_path / "right"), tmp_path / "wrong", half_there)
    with pytest.raises(BadInput) as stopped, served(ladder(tmp_path, mail=wrong), timeout_s=600):
        pass
    said = str(stopped.value)
    assert "the ladder did not start: tiers.mail.lora: 16 prompts get the same answers from small" in said
    assert str(wrong) in said and "modules named in adapter_model.safetensors" in said and "Traceback" not in said


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of the ladder, its two adapters, and a client of the server."""
    folder = tmp_path_factory.mktemp("adapters")
    mail = trained(folder / "mail", seed=0, merged=folder / "merged")
    sql = trained(folder / "sql", seed=1)
    with served(ladder(folder, mail=mail, sql=sql), timeout_s=900) as (url, key), client_of(url, key) as client:
        yield SimpleNamespace(folder=folder, mail=mail, sql=sql, client=client)


def client_of(url: str, key: str) -> httpx.Client:
    return httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=120)


def answer(client: httpx.Client, model: str, prompt: str) -> str:
    body = {"messages": [{"role": "user", "content": prompt}], "max_tokens": 32, "temperature": 0}
    reply = client.post("/chat/completions", json={"model": model, **body})
    assert reply.status_code == 200, reply.text
    document = reply.json()
    assert document["model"] == model
    return str(document["choices"][0]["message"]["content"])


def test_adapter_and_merged_weights_give_the_same_greedy_answers(made):
    def ask(model: str) -> list[str]:
        return [answer(made.client, model, prompt) for prompt in PROMPTS]

    with ThreadPoolExecutor(4) as pool:
        base, mail, sql, merged = pool.map(ask, ("small", "mail", "sql", "merged"))
    assert mail == merged
    assert sum(a != b for a, b in zip(mail, base, strict=True)) > 50 and sum(a != b for a, b in zip(mail, sql, strict=True)) > 50


def test_a_stream_has_the_rungs_name_in_every_event(made):
    body = {"model": "mail", "stream": True, "messages": [{"role": "user", "content": PROMPTS[0]}], "max_tokens": 16}
    reply = made.client.post("/chat/completions", json=body)
    assert reply.status_code == 200 and "mail@" not in reply.text and reply.text.count('"model":"mail"') > 2


def test_after_its_replica_was_killed_the_adapter_is_there_again(made):
    before = [answer(made.client, "mail", prompt) for prompt in PROMPTS[:20]]
    kill("small")
    assert until(lambda: ready(made.client, "mail"), 300)
    assert [answer(made.client, "mail", prompt) for prompt in PROMPTS[:20]] == before


def kill(tier: str) -> None:
    os.kill(below(os.getpid(), f"ServeReplica:{APP}:{deployment_of(tier)}")[-1], signal.SIGKILL)
    time.sleep(3)


def ready(client: httpx.Client, model: str) -> bool:
    body = {"model": model, "messages": [{"role": "user", "content": "1"}], "max_tokens": 1}
    return client.post("/chat/completions", json=body).status_code == 200


@pytest.fixture
def rung(made):
    """The ingress's own object for the rung `mail`, in this process, and what a swap needs."""
    import ray
    from ray import serve

    from deployments.tiers.rung_tier import RungTier
    from deployments.tiers.serve_tier import CallPolicy, ServeTier

    ray.init(address="auto", namespace="serve", log_to_driver=False, logging_level="ERROR")
    handle = serve.get_deployment_handle(deployment_of("small"), APP)
    running = running_replicas(APP, deployment_of("small"))
    host = ServeTier("small", handle, running, CallPolicy(120.0))
    one = read("mail", made.mail, SMALL)
    yield SimpleNamespace(
        host=host,
        tier=RungTier("mail", host, one.name),
        handle=handle,
        running=running,
        board=board_of(made.folder / "weights", "small"),
    )
    ray.shutdown()


async def streamed(tier, prompt: str) -> str:
    import json

    text = ""
    body = {"messages": [{"role": "user", "content": prompt}], "max_tokens": 32, "temperature": 0, "stream": True}
    async for item in tier.stream("chat/completions", {"model": tier.name, **body}):
        for event in item.decode().split("\n\n"):
            if event.startswith("data: {"):
                document = json.loads(event[6:])
                assert document["model"] == tier.name, document
                text += "".join(choice["delta"].get("content") or "" for choice in document["choices"])
    return text


def test_switched_under_load_no_answer_is_the_old_adapters_and_none_fails(made, rung):
    """The second adapter's true answers are those of rung sql, which has the same files under another name.

    Meanwhile the base is asked too: where all places for adapters are taken, vLLM on CPUs answers it by an adapter.
    """
    from deployments.tiers.adapter_swap import load_on_all, unload_from_all

    prompts = PROMPTS[:30]
    old, new, base = ([answer(made.client, model, prompt) for prompt in prompts] for model in ("mail", "sql", "small"))
    second, tier, told, of_base = read("mail", made.sql, SMALL), rung.tier, [], []

    async def client(n: int, until_s: float) -> None:
        at = n
        while time.monotonic() < until_s:
            began = tier.served
            told.append((began, at % 30, await streamed(tier, prompts[at % 30])))
            at += 1

    async def of_host(until_s: float) -> None:
        while time.monotonic() < until_s:
            at = len(of_base) % 30
            of_base.append((at, await streamed(rung.host, prompts[at])))

    async def go() -> None:
        end_s = time.monotonic() + 20
        crowd = [asyncio.create_task(client(n * 4, end_s)) for n in range(CROWD)]
        crowd.append(asyncio.create_task(of_host(end_s)))
        await asyncio.sleep(8)
        await load_on_all(rung.handle, rung.running, rung.board, second)
        tier.served = second.name
        await asyncio.gather(*crowd)  # raises what failed

    asyncio.run(go())
    before = [(at, text) for began, at, text in told if began != second.name]
    after = [(at, text) for began, at, text in told if began == second.name]
    print(f"{len(before)} answers before and {len(after)} after the switch, {len(of_base)} of the base")
    assert len(of_base) > 20 and all(text == base[at] for at, text in of_base)
    assert len(before) > 60 and len(after) > 60
    assert not [at for at, text in after if text == old[at] != new[at]]
    assert all(text == new[at] for at, text in after) and all(text == old[at] for at, text in before)

    kill("small")  # what was loaded while it ran is there again too
    assert until(lambda: ready(made.client, "mail"), 300)
    assert asyncio.run(all_of(tier, prompts)) == new
    asyncio.run(unload_from_all(rung.handle, rung.running, rung.board, second.name))
    assert on_board(rung.board) == {}
    with pytest.raises(RequestFailed, match="tier mail"):
        asyncio.run(streamed(tier, prompts[0]))


async def all_of(tier, prompts: list[str]) -> list[str]:
    return [await streamed(tier, prompt) for prompt in prompts]


def test_held_time_is_the_hosts_alone_and_adds_up(made):
    from sqlalchemy import select

    from deployments.ledger import machine_time_sums
    from deployments.ledger.database import connect
    from deployments.ledger.schema import hourly_held, windows
    from router.config import Ledger

    engine = connect(Ledger(url=f"sqlite:///{made.folder}/ledger.db"))
    with engine.connect() as connection:
        held = connection.execute(select(windows)).all()
        assert {row.tier for row in held} == {"small", "merged"} and machine_time_sums.hosts(connection) == {
            "mail": "small",
            "sql": "small",
        }
        hours = connection.execute(select(hourly_held)).all()
        lines = machine_time_sums.lines(connection, min(h.hour for h in hours), max(h.hour for h in hours) + 3600)
    assert {line.tier for line in lines} == {"small", "merged"}
    assert sum(line.seconds for line in lines) == pytest.approx(sum(hour.accelerator_s for hour in hours))
    assert sum(line.usd for line in lines) == pytest.approx(sum(hour.usd for hour in hours))
