"""A tier that learns from the one above it, live: python -m benchmarks.distil_live [--prompts 4000] [--graded 500]

Serves the pocket ladder with its shipped router and keeps what it serves; every request is filled in. Then `stepdown flywheel
run --student small --promote` makes a new `small` with a router and a certificate that fit it, and takes them through shadow and
canary, while a client goes on asking. When everybody gets the new ones, and when they are taken back, 32 clients ask.
Before and after, the same further prompts go to `small`, to `auto` by several targets, and to `large`, graded by exact match;
they say `store: false`.

Prints one JSON line: scores, costs as shares of `large`'s, the ladder's cost at 99 % of `large`'s quality before and after and by
how much it fell, with 95 % intervals (bootstrap over prompts), seconds of the run, failed requests. Exit code 1: nothing was
promoted.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import yaml

from benchmarks.day_one import LOOK_S, Client
from deployments.pocket.tasks import Task, fresh
from deployments.serve.background import served
from router.config import Config, load_config
from router.learn.evaluation import Frontier

SEED = 20261207
CLIENTS = 32
PACE_S = 0.25  # between two requests of the client that goes on asking
SECTIONS: dict[str, Any] = {
    "learning": {"collect": "consented", "own_key": "all", "fill_share": 1.0, "fill_usd_day": 100.0},
    "flywheel": {"margin": 0.02, "canary_s": 0.0, "canary_requests": 100, "canary_share": 0.5, "keep_old_s": 86_400.0},
    "escalation": {"mode": "buffer"},
    "delegation": {"mode": "off"},
}
POINTS = ("auto", "auto:cheap", "auto:balanced", "auto:quality", "auto:0.9", "auto:0.97")
"""ways of asking the ladder, from whose costs and qualities its cost at one quality is told"""
SHARE = 0.99
"""of the largest tier's quality, at which the cost of the ladder before and after is compared"""
Asked = tuple[bool, float, str]
"""whether the answer is right, USD, what is promised of it"""


def configured(folder: Path, target: str) -> Path:
    """The pocket ladder's file, with learning on and a ledger of its own."""
    loaded = load_config("pocket")
    settings = loaded.model_dump(mode="json", exclude_defaults=True) | SECTIONS
    settings["routing"] = {"artefact": loaded.routing.artefact, "target": target}
    settings["ledger"] = {"url": f"sqlite:///{folder / 'ledger.db'}"}
    settings["flywheel"] = {**settings["flywheel"], "weights": str(folder / "weights")}
    file = folder / "distil_live.yaml"
    file.write_text(yaml.safe_dump(Config.model_validate(settings).model_dump(mode="json", exclude_defaults=True)))
    return file


class Live:
    """One served ladder, and the clients that ask it."""

    def __init__(self, client: Client, file: Path, options: argparse.Namespace) -> None:
        self.client, self.file, self.options = client, file, options
        tasks = fresh("single", options.prompts + options.graded + options.more, options.seed)
        self.logged, self.held = tasks[: options.prompts], tasks[options.prompts : options.prompts + options.graded]
        self.others = tasks[options.prompts + options.graded :]
        self.asked = 0
        self.failures: list[str] = []

    async def log(self) -> None:
        """Send what is logged, unless it is, and wait until all of it is filled in."""
        for start in range(0, 0 if self.options.logged else len(self.logged), 200):
            await self.client.all(self.logged[start : start + 200], "auto")
        while (waiting := await self.waiting()) > 20:
            print(f"{waiting} wait to be filled in", file=sys.stderr)
            await asyncio.sleep(5 * LOOK_S)

    async def waiting(self) -> int:
        learning = (await self.client.status()).get("learning") or {}
        return int((learning.get("filling") or {}).get("waiting") or 0)

    async def measured(self) -> dict[str, list[Asked]]:
        return {way: await self.client.all(self.held, way, store=False) for way in ("small", *POINTS, "large")}

    def next(self) -> Task:
        self.asked += 1
        return self.others[self.asked % len(self.others)]

    async def go_on(self, store: bool = True, pace_s: float = PACE_S) -> None:
        """Ask until cancelled; note every failure."""
        while True:
            before = self.client.failed
            await self.client.ask(self.next(), "auto", store=store)
            if self.client.failed > before:
                self.failures.append(f"{time.time():.1f}")
            await asyncio.sleep(pace_s)

    async def command(self, *arguments: str) -> tuple[int, str]:
        """A `stepdown` command: its exit code, and the last of what it said."""
        command = [sys.executable, "-m", "deployments", *arguments]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=sys.stderr)
        said, _ = await process.communicate()
        return int(process.returncode or 0), said.decode()[-2000:]

    async def crowd(self, until_s: float) -> None:
        """CLIENTS clients for so many seconds."""
        many = [asyncio.create_task(self.go_on(False, 0.05)) for _ in range(CLIENTS)]
        await asyncio.sleep(until_s)
        await stop(many)

    async def promoted(self) -> None:
        """Wait for the promotion, with the crowd from the canary on."""
        while (stage := await self.stage()) not in ("canary", "promoted", "done"):
            await asyncio.sleep(LOOK_S)
        print(f"stage {stage}", file=sys.stderr)
        while await self.stage() == "canary":
            await self.crowd(3)
        await self.crowd(10)

    async def stage(self) -> str:
        learning = (await self.client.status()).get("learning") or {}
        return str((learning.get("run") or {}).get("stage") or "")


async def stop(tasks: Sequence["asyncio.Task[None]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def all_of_it(url: str, key: str, file: Path, options: argparse.Namespace) -> dict[str, Any]:
    async with httpx.AsyncClient(timeout=300, headers={"authorization": f"Bearer {key}"}) as http:
        live = Live(Client(http, url, load_config(file)), file, options)
        began = time.monotonic()
        await live.log()
        logged_s = time.monotonic() - began
        before = await live.measured()
        began = time.monotonic()
        running = asyncio.create_task(live.command("flywheel", "run", "--config", str(file), "--student", "small", "--promote"))
        asking = asyncio.create_task(live.go_on())
        waiting = asyncio.create_task(live.promoted())
        await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
        ran_s = time.monotonic() - began
        found: dict[str, Any] = {"benchmark": "distil_live", "prompts": options.prompts, "graded": options.graded}
        found |= {"logged_s": round(logged_s, 1), "run_s": round(ran_s, 1), "failed_in_swap": len(live.failures)}
        if waiting.done():
            await stop([asking])
            after = await live.measured()
            found |= {"promoted": True, **compared(before, after)}
            back = asyncio.create_task(live.crowd(12))
            await asyncio.sleep(2)
            code, said = await live.command("flywheel", "rollback", "--config", str(file))
            await back
            found |= {"rollback": [code, said.strip()[-200:]], "failed_in_all": len(live.failures)}
            running.cancel()
        else:
            waiting.cancel()
            await stop([asking])
            found |= {"promoted": False, "run": running.result()}
        return found


# -- figures ---------------------------------------------------------------------------------------------------------------


def compared(before: dict[str, list[Asked]], after: dict[str, list[Asked]]) -> dict[str, Any]:
    scores = {when: {way: share(found[way]) for way in found} for when, found in (("before", before), ("after", after))}
    usd = {
        when: {way: np.array([row[1] for row in found[way]]) for way in found}
        for when, found in (("before", before), ("after", after))
    }
    n = len(before["auto"])
    drawn = np.random.default_rng(0).integers(0, n, (2000, n))
    drawn = np.concatenate([np.arange(n)[None], drawn])
    at = {when: costs_at(found, drawn) for when, found in (("before", before), ("after", after))}
    fell = 1 - at["after"] / at["before"]
    served = 1 - usd["after"]["auto"][drawn].sum(axis=1) / usd["before"]["auto"][drawn].sum(axis=1)
    states = [row[2] for row in after["auto"]]
    lost = sum(b[0] and not a[0] for b, a in zip(before["small"], after["small"], strict=True))
    return {
        "scores": scores,
        "of_large": {when: round(found["auto"] / found["large"], 4) for when, found in scores.items()},
        "cost_ratio": {when: round(float(found["auto"].sum() / found["large"].sum()), 4) for when, found in usd.items()},
        "cost_at_0.99": {when: interval(found) for when, found in at.items()},
        "cost_fell_at_0.99": interval(fell),
        "cost_fell_as_served": interval(served),
        "small_lost": round(lost / max(1, sum(row[0] for row in before["small"])), 4),
        "certificate": {state: states.count(state) for state in dict.fromkeys(states)},
    }


def costs_at(found: dict[str, list[Asked]], drawn: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """(draws,) the ladder's least cost at SHARE of the largest tier's quality, which costs 1. drawn: (draws, n) prompts."""
    right, usd = (np.array([[row[part] for row in found[way]] for way in (*POINTS, "large")], float) for part in (0, 1))
    quality, cost = (np.stack([values[drawn].mean(axis=1) for values in side], axis=1) for side in (right, usd))
    return Frontier(cost / cost[:, -1:], quality).cost_at(SHARE * quality[:, -1])


def interval(values: np.ndarray[Any, Any]) -> list[float]:
    """The estimate, which comes first, and bounds of 95 %."""
    return [round(float(value), 4) for value in (values[0], *np.nanquantile(values[1:], (0.025, 0.975)))]


def share(found: list[Asked]) -> float:
    return round(sum(row[0] for row in found) / max(1, len(found)), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--prompts", type=int, default=4000, help="that are logged before the run")
    parser.add_argument("--graded", type=int, default=500)
    parser.add_argument("--more", type=int, default=4000, help="other prompts, asked while the run goes on")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--target", default="quality", help="what auto means")
    parser.add_argument("--folder", type=Path, help="where ledger and weights stay  [default: a temporary folder]")
    parser.add_argument("--logged", action="store_true", help="the folder's ledger has those requests, from an earlier run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stepdown-distil-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["STEPDOWN_STATE_DIR"] = str(folder / "state")
        (folder / "state").mkdir(exist_ok=True)
        file = configured(folder, options.target)
        with served(str(file), timeout_s=900) as (url, key):
            found = asyncio.run(all_of_it(url, key, file, options))
    print(json.dumps(found))
    sys.exit(0 if found["promoted"] else 1)


if __name__ == "__main__":
    main()
