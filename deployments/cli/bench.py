"""stepdown bench: how long a decision takes, without Ray."""

import json
import time

import click

TEXT = "Sort these numbers from smallest to largest, then explain in two sentences how you did it: 47, 12, 88. "


@click.group()
def bench() -> None:
    """Measure, one JSON line each."""


@bench.command()
@click.option("--config", default="pocket", show_default=True, help="The ladder whose router decides.")
@click.option("--characters", default=500, show_default=True, help="Length of the prompt.")
@click.option("--n", default=2000, show_default=True, help="Decisions to time.")
def decide(config: str, characters: int, n: int) -> None:
    """Time whole decisions, from request body to tier: parsing, facts, constraints, classifier, policy.

    Prints quantiles of the time that passed and, `cpu_`, of the processor's: the two differ on a busy machine.
    """
    import numpy as np

    from classifiers.fast.precompile import precompile
    from deployments.tiers.token_counters import counters
    from router.config import load_config
    from router.engine import Router, load_artefact
    from router.request.wire import parse

    loaded = load_config(config)
    artefact = load_artefact(loaded)
    if artefact:
        precompile(artefact.model)  # as the ingress does
    router = Router(loaded, artefact, counters(loaded))
    took, worked = [], []
    for i in range(n + 50):
        text = f"{i} " + (TEXT * (characters // len(TEXT) + 1))
        body = json.dumps({"model": "auto", "messages": [{"role": "user", "content": text[:characters]}]}).encode()
        began, working = time.perf_counter(), time.thread_time()
        router.decide(parse("chat/completions", body))
        took.append(time.perf_counter() - began)
        worked.append(time.thread_time() - working)
    sides = {"": took[50:], "cpu_": worked[50:]}  # the first fifty warm caches
    figures = {f"{side}p{q}_ms": round(float(np.percentile(ms, q)) * 1e3, 4) for side, ms in sides.items() for q in (50, 90, 99)}
    click.echo(json.dumps({"bench": "decide", "characters": characters, "n": n, **figures}))
