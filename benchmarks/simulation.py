"""Simulates 1,000 replicas and 10,000 requests a second on the real decision code: `make simulate-cluster`.

Run as: python -m benchmarks.simulation DATA_FOLDER. Prompts, scores, tokens and costs are real outcomes (zeroeval_3task,
Llama-3.1 8B/70B/405B). The real `Router`, trained on other rows, decides each prompt once, and `adjust` of
router/traffic/load.py places every single request. Service times come from token counts and the rates in KINDS.
Every policy gets the same number of accelerators, distributed for its own work.

day     one day with its peak, compressed: latency, wait, cost, quality and refusals by policy
growth  the same ladder under increasing load: what breaks first
loss    steady load below the peak with half of the medium tier's replicas lost: the case for queue-aware choice

Prints JSON lines. Costs are list prices as a share of always asking the largest tier; so is quality.
"""

import argparse
import json
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.simulated_cluster import Choose, Day, Kind, News, Pool, Ran, day, run, steady
from classifiers import Artifact, load, save
from classifiers.sufficiency import folds_of
from router.config import Config
from router.engine import Router
from router.learn.outcomes import Outcomes, read_outcomes
from router.learn.tables import read_table
from router.learn.training import train
from router.traffic.load import Asked, BalanceSettings, BalanceState, Full, adjust
from router.types import Request

Floats = NDArray[np.float64]
FILE = "zeroeval_3task.parquet"
MODELS = {"small": "Llama-3.1-8B-Instruct", "medium": "Llama-3.1-70B-Instruct", "large": "Llama-3.1-405B-Instruct"}
# Of the order that vLLM reaches on H100 with full batches; stated, not measured here.
KINDS = (Kind("small", 1, 256, 8_000, 40), Kind("medium", 4, 192, 4_000, 30), Kind("large", 8, 128, 2_000, 25))
REPLICAS, INGRESSES, FOLDS = 1_000, 8, 3
BROKEN_WAIT_S, BROKEN_SHARE = 2.0, 0.001


@dataclass(frozen=True)
class World:
    """The prompts that requests are drawn from; arrays have one row a prompt."""

    tasks: NDArray[np.str_]
    scores: Floats
    costs: Floats
    service_s: Floats
    asked: list[Asked]
    """each prompt as the real router decided it"""
    decide_ms: float


# -- the world ------------------------------------------------------------------------------------------------------------


def trained(table: Outcomes) -> Artifact:
    made = train(table)
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder) / "router", made.model, made.manifest)
        return load(Path(folder) / "router", table.tiers)


def router_of(artefact: Artifact, tiers: list[str], target: str) -> Router:
    price = {"usd_per_1m_input": 1.0, "usd_per_1m_output": 1.0}  # equal ones are in order; costs come from the table
    shown = [{"name": name, "engine": "echo", "context": 100_000, "price": price} for name in tiers]
    config = Config.model_validate({"tiers": shown, "routing": {"target": target}})
    return Router(config, artefact, dict.fromkeys(tiers, lambda text: len(text) // 3))


def decided(router: Router, texts: list[str]) -> tuple[list[Asked], float]:
    """Every prompt once through the real thing, and milliseconds for each."""
    asked, rule = [], router.rule(router.default)
    assert router.artefact is not None
    began = time.perf_counter()
    made = [router.decide(Request("chat/completions", {"model": "auto", "messages": [said(text)]})) for text in texts]
    took_ms = (time.perf_counter() - began) / len(texts) * 1e3
    for text, decision in zip(texts, made, strict=True):
        p, cost, _ = router.artefact.guess_one(text)
        allowed = [k for k, name in enumerate(router.names) if name not in decision.excluded]
        asked.append(Asked(p, cost, rule, allowed, router.names.index(decision.tier)))
    return asked, took_ms


def said(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def world(folder: Path, target: str) -> World:
    """All prompts of the table, each decided by a router that was trained without it and without its near-duplicates."""
    table, columns = read_outcomes(folder / FILE, MODELS), read_table(folder / FILE)
    at = {name: i for i, name in enumerate(columns["id"])}
    table = table.take(np.isfinite(table.scores).all(1) & np.isfinite(table.costs).all(1))
    rows = [at[name] for name in table.ids]
    tokens_in = np.array([columns["prompt_tok"][i] for i in rows], float)
    tokens_out = np.array([[columns[f"out_tok|{m}"][i] or 1 for m in MODELS.values()] for i in rows], float)
    service = np.stack([kind.service_s(tokens_in, tokens_out[:, k]) for k, kind in enumerate(KINDS)], axis=1)
    asked, took_ms = unseen(table, target)
    return World(table.tasks, table.scores, table.costs, service, asked, took_ms)


def unseen(table: Outcomes, target: str) -> tuple[list[Asked], float]:
    found: dict[int, Asked] = {}
    took, fold = [], folds_of(list(table.groups), FOLDS)
    for k in range(FOLDS):
        router = router_of(trained(table.take(fold != k)), table.tiers, target)
        held = np.flatnonzero(fold == k)
        asked, took_ms = decided(router, [str(text) for text in table.texts[held]])
        found |= dict(zip(held.tolist(), asked, strict=True))
        took.append(took_ms)
    return [found[i] for i in range(len(table))], float(np.mean(took))


# -- policies --------------------------------------------------------------------------------------------------------------


def fixed(tiers: NDArray[np.int64]) -> Choose:
    """A tier for each prompt, whatever the load."""
    table = tiers.tolist()
    return lambda prompt, now, second: table[prompt]


def mixed(share: float, seed: int = 1) -> Choose:
    """Large with that chance, else small, by lot."""
    draws = iter(np.random.default_rng(seed).random(50_000_000 // 8))
    return lambda prompt, now, second: 2 if next(draws) < share else 0


def balanced(w: World, pools: list[Pool]) -> Choose:
    """Stepdown with queue-aware choice: the real `adjust`, in as many ingresses that do not know of each other."""
    news, states, settings = News(pools), [BalanceState() for _ in range(INGRESSES)], BalanceSettings()
    turn = 0

    def choose(prompt: int, now: float, second: int) -> int:
        nonlocal turn
        turn += 1
        placed = adjust(w.asked[prompt], news.at(second), states[turn % INGRESSES], now, settings)
        return -1 if isinstance(placed, Full) else placed.tier

    return choose


def threshold_of(w: World, budget: float) -> NDArray[np.int64]:
    """Small where its chance is above a bar, else large, at the mean cost `budget`: the usual two-model router."""
    p = np.array([a.p[0] for a in w.asked])
    ways = [np.where(p >= bar, 0, 2) for bar in sorted(set(p))]
    spent = [w.costs[np.arange(len(p)), way].mean() for way in ways]
    return ways[int(np.abs(np.array(spent) - budget).argmin())]


@dataclass(frozen=True)
class Policy:
    name: str
    shares: Floats
    """(n_prompts, n_tiers) chance of each tier, by which the accelerators are laid out"""
    choose: Any
    """pools -> Choose"""


def policies(w: World) -> list[Policy]:
    n = len(w.asked)
    ours, top = np.array([a.chosen for a in w.asked]), np.full(n, 2)
    cost = w.costs[np.arange(n), ours].mean()
    small, large = w.costs[:, 0].mean(), w.costs[:, 2].mean()
    share = float(np.clip((cost - small) / (large - small), 0, 1))
    bar, one = threshold_of(w, cost), np.eye(3)
    return [
        Policy("stepdown, queue-aware", one[ours], lambda pools: balanced(w, pools)),
        Policy("stepdown", one[ours], lambda pools: fixed(ours)),
        Policy("always large", one[top], lambda pools: fixed(top)),
        Policy("random", np.tile([1 - share, 0.0, share], (n, 1)), lambda pools: mixed(share)),
        Policy("threshold", one[bar], lambda pools: fixed(bar)),
    ]


def laid_out(w: World, policy: Policy, accelerators: int, seconds: int) -> list[Pool]:
    """Replicas in proportion to the work that the policy brings each tier, of so many accelerators in all."""
    work = (policy.shares * w.service_s).mean(0) / [kind.places for kind in KINDS]
    unit = accelerators / float((work * [kind.accelerators for kind in KINDS]).sum())
    return [Pool(kind, max(1, round(unit * work[k])), seconds) for k, kind in enumerate(KINDS)]


def accelerators_of(w: World, policy: Policy) -> int:
    """What REPLICAS replicas hold when laid out for this policy."""
    work = (policy.shares * w.service_s).mean(0) / [kind.places for kind in KINDS]
    return round(REPLICAS * float((work * [kind.accelerators for kind in KINDS]).sum() / work.sum()))


# -- what came of it -------------------------------------------------------------------------------------------------------


def told(w: World, load: Day, ran: Ran) -> dict[str, Any]:
    """Figures of one run. Latency is wait and service; refused requests have none, and no quality."""
    done = ran.tier >= 0
    prompt, tier = load.prompt[done], ran.tier[done]
    latency = ran.wait_s[done] + w.service_s[prompt, tier]
    always, best = w.costs[load.prompt, 2].mean(), w.scores[load.prompt, 2].mean()
    return {
        "requests": len(load.prompt),
        "refused": round(float(1 - done.mean()), 5),
        "latency_s": percentiles(latency),
        "wait_s": percentiles(ran.wait_s[done]),
        "cost": round(float(w.costs[prompt, tier].mean() / always), 4),
        "quality": round(float(w.scores[prompt, tier].mean() / best), 4),
        "shares": [round(float((tier == k).mean()), 3) for k in range(3)],
    }


def settled(load: Day, ran: Ran) -> tuple[Day, Ran]:
    """The second half: replicas begin empty, and long answers take a minute."""
    late = load.at_s >= load.seconds / 2
    part = replace(ran, tier=ran.tier[late], wait_s=ran.wait_s[late])
    return replace(load, at_s=load.at_s[late], prompt=load.prompt[late]), part


def percentiles(values: Floats) -> list[float]:
    """p50, p95, p99."""
    return [round(float(v), 2) for v in np.percentile(values, [50, 95, 99])] if len(values) else []


def days(w: World, per_s: float, seconds: int) -> None:
    made, load = policies(w), day(w.tasks, per_s, seconds)
    accelerators = accelerators_of(w, made[0])
    for policy in made:
        pools, began = laid_out(w, policy, accelerators, seconds), time.monotonic()
        found = told(w, load, run(load, pools, w.service_s, policy.choose(pools)))
        layout = {"replicas": [p.replicas for p in pools], "accelerators": accelerators, "peak_per_s": per_s}
        tell("day", policy=policy.name, **found, **layout, took_s=round(time.monotonic() - began, 1))


def growth(w: World, per_s: float, seconds: int) -> None:
    """More load step by step until a policy breaks: a twentieth waits over 2 s, or over a thousandth is refused."""
    made = policies(w)
    accelerators = accelerators_of(w, made[0])
    for policy in made:
        tell("growth", policy=policy.name, **broken(w, policy, accelerators, per_s, seconds))


def broken(w: World, policy: Policy, accelerators: int, per_s: float, seconds: int) -> dict[str, Any]:
    held = 0.0
    for step in range(8, 30):
        rate = per_s * step / 10
        load, pools = steady(len(w.asked), rate, seconds), laid_out(w, policy, accelerators, seconds)
        ran = run(load, pools, w.service_s, policy.choose(pools))
        found = told(w, *settled(load, ran))
        if found["wait_s"][1] > BROKEN_WAIT_S or found["refused"] > BROKEN_SHARE:
            waits = [percentiles(ran.wait_s[ran.tier == k])[1:2] for k in range(3)]
            first = KINDS[int(np.argmax([w95[0] if w95 else 0.0 for w95 in waits]))].name
            return {"holds_per_s": held, "breaks_at_per_s": rate, "first": first, "wait95_s_by_tier": waits, **found}
        held = rate
    return {"holds_per_s": held, "breaks_at_per_s": None}


def loss(w: World, per_s: float, seconds: int) -> None:
    made = policies(w)[:2]
    accelerators = accelerators_of(w, made[0])
    for policy in made:
        pools = laid_out(w, policy, accelerators, seconds)
        pools[1] = Pool(pools[1].kind, max(1, pools[1].replicas // 2), seconds)
        load = steady(len(w.asked), per_s, seconds)
        ran = run(load, pools, w.service_s, policy.choose(pools))
        waits = [percentiles(ran.wait_s[ran.tier == k])[1:2] for k in range(3)]
        layout = {"replicas": [p.replicas for p in pools], "per_s": per_s, "wait95_s_by_tier": waits}
        tell("loss", policy=policy.name, **told(w, *settled(load, ran)), **layout)


def tell(part: str, **found: Any) -> None:
    print(json.dumps({"bench": "simulation", "part": part, **found}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder with zeroeval_3task.parquet")
    parser.add_argument("--per-s", type=float, default=10_000, help="requests a second at the day's peak")
    parser.add_argument("--seconds", type=int, default=300, help="into which a day is squeezed")
    parser.add_argument("--target", default="balanced")
    parser.add_argument("--part", choices=["day", "growth", "loss"], help="this one alone")
    asked = parser.parse_args()
    w = world(asked.data, asked.target)
    cores = asked.per_s * w.decide_ms / 1e3
    tell("decide", prompts=len(w.asked), ms=round(w.decide_ms, 3), cores_for_peak=round(cores, 1))
    if asked.part in (None, "day"):
        days(w, asked.per_s, asked.seconds)
    if asked.part in (None, "loss"):
        loss(w, 0.7 * asked.per_s, asked.seconds // 2)
    if asked.part in (None, "growth"):
        growth(w, asked.per_s, asked.seconds // 2)


if __name__ == "__main__":
    main()
