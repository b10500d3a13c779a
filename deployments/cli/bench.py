"""stepdown bench: how long a decision takes, without Ray."""

import json
import time

import click

from deployments.cli.shared import LADDER, POSITIVE
from deployments.tiers.token_counters import counters
from router.config import load_config
from router.request.wire import parse

TEXT = "Sort these numbers from smallest to largest, then explain in two sentences how you did it: 47, 12, 88. "
WARM_UP = 50  # decisions before the timed ones, which fill caches


@click.group()
def bench() -> None:
    """Measure a part of Stepdown; prints one JSON line."""


@bench.command()
@LADDER
@click.option("--characters", type=POSITIVE, default=500, show_default=True, help="Length of the prompt.")
@click.option("--n", type=POSITIVE, default=2000, show_default=True, help="Decisions to time.")
def decide(config: str, characters: int, n: int) -> None:
    """Time whole decisions, from request body to tier: parsing, facts, constraints, classifier, policy.

    Prints quantiles of the time that passed and, as `cpu_`, of processor time: the two differ on a busy machine.
    """
    import numpy as np

    from classifiers.fast.precompile import precompile
    from router.engine import Router, load_artefact

    loaded = load_config(config)
    artefact = load_artefact(loaded)
    if artefact:
        precompile(artefact.model)  # as the ingress does
    router = Router(loaded, artefact, counters(loaded))
    passed, worked = [], []
    for i in range(n + WARM_UP):
        text = f"{i} " + (TEXT * (characters // len(TEXT) + 1))
        body = json.dumps({"model": "auto", "messages": [{"role": "user", "content": text[:characters]}]}).encode()
        began, working = time.perf_counter(), time.thread_time()
        router.decide(parse("chat/completions", body))
        passed.append(time.perf_counter() - began)
        worked.append(time.thread_time() - working)
    sides = {"": passed[WARM_UP:], "cpu_": worked[WARM_UP:]}
    figures = {f"{side}p{q}_ms": round(float(np.percentile(s, q)) * 1e3, 4) for side, s in sides.items() for q in (50, 90, 99)}
    click.echo(json.dumps({"bench": "decide", "characters": characters, "n": n, **figures}))
