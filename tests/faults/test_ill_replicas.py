"""A replica that is ill and not dead: left out by the choice of a replica, and in the end replaced by Serve."""

import asyncio
import json
import os

import pytest
from scripted_tier import Said, ScriptedTier

from deployments.replicas.replica_health import FAILURES_IN_A_ROW, FailureStreak, ReplicaHealth
from deployments.traffic.watched_tier import Watched
from router.errors import NoReplica
from router.trace import Reading
from router.traffic.breaker import FAILURES, Breaker
from router.traffic.retries import Retries

NAMES = ["a", "b"]


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def made() -> tuple[ReplicaHealth, Clock]:
    clock = Clock()
    return ReplicaHealth(Breaker(clock, lambda: 0.0)), clock


def fail(health: ReplicaHealth, call: str, replica: str) -> None:
    health.routed(call, replica)
    health.failed(call)


def test_a_replica_that_failed_several_times_in_a_row_is_left_out_for_a_while():
    health, clock = made()
    for n in range(FAILURES):
        assert health.choice(NAMES, f"new {n}") == NAMES
        fail(health, f"{n}", "a")
    assert health.choice(NAMES, "new") == ["b"] and health.some_well()
    clock.now_s = 3.0
    assert health.choice(NAMES, "new") == NAMES
    health.routed("trial", "a")
    assert health.choice(NAMES, "new") == ["b"]  # one at a time tries it
    health.worked("trial")
    assert health.choice(NAMES, "new") == NAMES


def test_a_success_between_failures_keeps_it():
    health, _ = made()
    for n in range(10):
        fail(health, f"{n}", "a")
        health.routed(f"good {n}", "a")
        health.worked(f"good {n}")
    assert health.choice(NAMES, "new") == NAMES


def test_a_second_try_and_a_hedge_go_to_another_replica():
    health, _ = made()
    health.choice(NAMES)
    health.routed("t/final", "a")
    assert health.choice(NAMES, "t/final") == health.choice(NAMES, "t/final-hedge") == ["b"]
    assert health.choice(["a"], "t/final") == ["a"]


def test_where_all_are_ill_all_are_asked_and_the_tier_is_to_blame():
    health, _ = made()
    health.choice(NAMES)
    for n in range(2 * FAILURES):
        fail(health, f"{n}", NAMES[n % 2])
    assert health.choice(NAMES, "new") == NAMES and not health.some_well()


def test_the_tiers_circuit_stays_closed_while_a_replica_of_it_is_well():
    breaker, health = Breaker(lambda: 0.0, lambda: 0.0), made()[0]
    tier = ScriptedTier("large", lambda body: Said(error=NoReplica("large", "died", lost=True)))
    tier.health = health
    watched = Watched(tier, breaker, Retries(lambda: 0.0, share=0.0, most=0.0, left=0.0), replicas=2)

    def ask() -> None:
        with pytest.raises(NoReplica):
            asyncio.run(watched.complete("chat/completions", {"messages": []}, Reading(), "t/final"))

    health.choice(NAMES)
    for _ in range(5):
        ask()
    assert not breaker.left_s("large")
    for n in range(2 * FAILURES):
        fail(health, f"{n}", NAMES[n % 2])
    for _ in range(3):
        ask()
    assert breaker.left_s("large")


def test_a_replica_says_that_it_is_ill_after_failures_in_a_row():
    streak = FailureStreak()
    for status in (500,) * (FAILURES_IN_A_ROW - 1) + (200,) + (500,) * (FAILURES_IN_A_ROW - 1) + (400,):
        streak.note(status)
        streak.check()
    for _ in range(FAILURES_IN_A_ROW):
        streak.note(500)
    with pytest.raises(RuntimeError, match="5 times in a row"):
        streak.check()


@pytest.mark.ray
def test_of_two_replicas_one_that_fails_is_avoided_and_then_replaced_and_a_slow_one_is_hedged(tmp_path):
    """In Serve: the first replica to start is ill; what each was asked is in a file by its process."""
    import ray
    from ray import serve

    from deployments.replicas.placement import choice_of
    from deployments.tiers.serve_tier import CallPolicy, ServeTier
    from router.tier_settings import VllmTier

    class Replica:
        def __init__(self, folder: str) -> None:
            import uuid

            self.folder, self.name, self.streak = folder, uuid.uuid4().hex, FailureStreak()
            try:
                os.close(os.open(f"{folder}/ill", os.O_CREAT | os.O_EXCL))
                self.ill = True
            except FileExistsError:
                self.ill = False

        async def check_health(self) -> None:
            self.streak.check()

        async def openai(self, path, raw, call_id="", missed=(), hint=""):
            with open(f"{self.folder}/{'ill' if self.ill else 'well'}-{self.name}", "a") as file:
                file.write("x")
            body = json.loads(raw)
            if self.ill and body["how"] == "slow":
                await asyncio.sleep(60)
            status = 500 if self.ill else 200
            self.streak.note(status)
            answer = {"index": 0, "message": {"role": "assistant", "content": self.name}, "finish_reason": "stop"}
            yield status, json.dumps({"choices": [answer]}), ""

    def asked(kind: str) -> int:
        return sum(file.stat().st_size for file in tmp_path.glob(f"{kind}-*"))

    price = {"usd_per_1m_input": 1, "usd_per_1m_output": 1}
    tier = VllmTier.model_validate({"name": "it", "engine": "vllm", "source": "x", "context": 9, "replicas": 2, "price": price})
    options = {"num_replicas": 2, "health_check_period_s": 1, "ray_actor_options": {"num_cpus": 0}, **choice_of(tier)}

    async def running() -> int:
        return 2

    async def use(handle) -> None:
        at = ServeTier("it", handle, running, CallPolicy(30.0))
        watched = Watched(at, Breaker(lambda: 0.0, lambda: 0.0), Retries(lambda: 0.5), 2, slow=0.5)
        at.health.breaker.rest_s = at.health.breaker.most_rest_s = 1_000.0

        async def ask(n: int, how: str) -> Reading:
            reading = Reading()
            answer = await watched.complete("chat/completions", {"how": how, "messages": []}, reading, f"{how}{n}/final")
            assert b"content" in answer
            return reading

        for n in range(12):  # both are equally idle: by chance the slow one is asked
            if (await ask(n, "slow")).twin:
                break
        assert (await ask(0, "slow")) and asked("ill") >= 1
        for n in range(40):
            await ask(n, "quick")
        assert asked("ill") <= 2 * FAILURES and asked("well") >= 40
        at.health.breaker.circuits.clear()
        for _ in range(FAILURES_IN_A_ROW):  # as ingresses do that have not learnt of it yet
            await at.handle.options(stream=True).remote("chat/completions", '{"how": "quick"}').__anext__()
        for _ in range(200):
            await asyncio.sleep(0.5)
            await ask(99, "quick")
            if len(list(tmp_path.glob("well-*"))) == 2:
                return
        raise AssertionError("Serve has not replaced it")

    ray.init(include_dashboard=False, num_cpus=2, log_to_driver=False)
    try:
        deployment = serve.deployment(Replica, **options)
        serve.start(http_options={"location": "NoServer"})
        asyncio.run(use(serve.run(deployment.bind(str(tmp_path)), name="it", route_prefix=None)))
    finally:
        serve.shutdown()
        ray.shutdown()
