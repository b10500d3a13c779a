"""What an item of a stream costs on its way from a replica to the ingress, by lane and by Ray Serve's handle.
`python -m benchmarks.lanes`

A Ray cluster with replicas that say short items at an even pace, and one process that reads them as the ingress does
(`ServeTier`). Both ways run in turn. Prints one JSON line a run: processor time of the reader and of the replicas, in
microseconds an item, starts of streams included. Nothing else is in it: no HTTP, no tokens.
"""

import asyncio
import itertools
import json
import os
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import click

FAST = {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}
EVENT = 'data: {"id":"x","object":"chat.completion.chunk","model":"it","choices":[{"index":0,"delta":{"content":" word"}}]}\n\n'
TOLD = {"busy_s": 0.1, "cached_tokens": 0, "late": {}}
WAYS = {"lane": "machine", "handle": "none"}
PATIENCE_S = 60.0


def settings(way: str, replicas: int) -> Any:
    """Of the tier whose replicas are read."""
    from router.config import VllmTier

    given = {"name": "it", "engine": "vllm", "source": "nowhere", "context": 1000, "price": {"usd_per_accelerator_hour": 1}}
    return VllmTier.model_validate({**given, "replicas": replicas, "max_ongoing": 1000, "lanes": {"to": WAYS[way]}})


class Speaker:
    """A replica that says items, as many and as fast as it is asked to."""

    def __init__(self, tier: Any) -> None:
        self.tier, self.end = tier, None

    async def record_replica_metadata(self) -> dict[str, Any]:
        """As `deployments.replicas.vllm_tier.PlainServer`."""
        from ray import serve

        from deployments.replicas.lanes.both_ends import lane_server
        from deployments.replicas.lanes.serve_replicas import LANE

        end = lane_server(self.openai, serve.get_replica_context().replica_id.unique_id, self.tier)
        await end.start()
        return {LANE: end.address.told()}

    async def openai(self, path: str, raw: str, *_: Any) -> AsyncIterator[tuple[int, str, str]]:
        asked = json.loads(raw)
        due = time.monotonic()
        for _ in range(asked["items"]):
            due += asked["every_s"]
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            yield 200, EVENT, ""
        yield 200, "data: [DONE]\n\n", json.dumps({"replica": str(os.getpid()), **TOLD})


class Reader:
    """Reads streams as the ingress does. way -> the handle of its replicas."""

    def __init__(self, handles: dict[str, Any], replicas: int) -> None:
        from deployments.tiers.serve_tier import make

        self.tiers = {way: make(settings(way, replicas), handle, PATIENCE_S, None) for way, handle in handles.items()}

    async def read(self, way: str, streams: int, items: int, per_s: float) -> tuple[int, float, list[str], int]:
        """(items that came, processor seconds of this process, the replicas that said them, calls by lane)."""
        tier: Any = self.tiers[way]
        await asyncio.gather(*(self.one(tier, 1, 0.01, f"warm-{n}") for n in range(8)))
        await asyncio.sleep(1.0)
        before, calls = time.process_time(), tier.lane_calls()
        every = await asyncio.gather(*(self.one(tier, items, 1 / per_s, f"{way}-{n}") for n in range(streams)))
        return sum(every), time.process_time() - before, list(tier.heard), tier.lane_calls() - calls

    async def one(self, tier: Any, items: int, every_s: float, call_id: str) -> int:
        body = {"items": items, "every_s": every_s, "messages": [{"role": "user", "content": call_id}]}
        return len([item async for item in tier.stream("chat/completions", body, None, call_id)])


def processor_s(pids: Sequence[int]) -> float:
    """Processor seconds of these processes since they began."""
    import psutil

    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)


def application(replicas: int) -> Any:
    from ray import serve

    from deployments.replicas.placement import choice_of

    def speakers(way: str) -> Any:
        tier = settings(way, replicas)
        options = {"num_replicas": replicas, "max_ongoing_requests": tier.max_ongoing, "ray_actor_options": {"num_cpus": 0}}
        return serve.deployment(Speaker, name=f"by-{way}", **options, **choice_of(tier)).bind(tier)

    reader = serve.deployment(Reader, name="reader", max_ongoing_requests=100, ray_actor_options={"num_cpus": 0})
    return reader.bind({way: speakers(way) for way in WAYS}, replicas)


def measured(reader: Any, way: str, streams: int, items: int, per_s: float) -> dict[str, Any]:
    """One run. The replicas are idle but for it."""
    pids = [int(pid) for pid in reader.read.remote(way, 8, 2, 50.0).result(timeout_s=PATIENCE_S)[2]]
    before = processor_s(pids)
    came, reader_s, heard, by_lane = reader.read.remote(way, streams, items, per_s).result(timeout_s=600)
    replicas_s = processor_s(pids) - before
    read_us, said_us = reader_s / came * 1e6, replicas_s / came * 1e6
    return {
        "way": way,
        "streams": streams,
        "items": came,
        "replicas": len(heard),
        "calls_by_lane": by_lane,
        "reader_us": round(read_us, 1),
        "replicas_us": round(said_us, 1),
        "both_us": round(read_us + said_us, 1),
    }


@click.command()
@click.option("--replicas", default=2, show_default=True)
@click.option("--streams", default=64, show_default=True)
@click.option("--items", default=400, show_default=True, help="Of each stream.")
@click.option("--per-s", default=50.0, show_default=True, help="Items of a stream in a second.")
@click.option("--rounds", default=3, show_default=True)
def main(replicas: int, streams: int, items: int, per_s: float, rounds: int) -> None:
    """Measure both ways in turn, and print the medians last."""
    os.environ.update(FAST)
    import ray
    from ray import serve

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    try:
        reader = serve.run(application(replicas), name="lanes", route_prefix=None)
        for _, way in itertools.product(range(rounds), WAYS):
            run = measured(reader, way, streams, items, per_s)
            found[way].append(run["both_us"])
            print(json.dumps(run), flush=True)
    finally:
        serve.shutdown()
        ray.shutdown()
    medians = {f"{way}_us": statistics.median(runs) for way, runs in found.items()}
    print(json.dumps({"wanted_lane_us": 60, **medians}), flush=True)


if __name__ == "__main__":
    main()
