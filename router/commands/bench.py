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
    """Time whole decisions, from request body to tier: parsing, facts, constraints, classifier, policy."""
    import numpy as np

    from deployments.tokens import counters
    from router.config import load_config
    from router.engine import Router, load_artefact
    from router.wire import parse

    loaded = load_config(config)
    router = Router(loaded, load_artefact(loaded), counters(loaded))
    took = []
    for i in range(n + 50):
        text = f"{i} " + (TEXT * (characters // len(TEXT) + 1))
        body = json.dumps({"model": "auto", "messages": [{"role": "user", "content": text[:characters]}]}).encode()
        began = time.perf_counter()
        router.decide(parse("chat/completions", body))
        took.append(time.perf_counter() - began)
    ms = np.array(took[50:]) * 1e3  # the first fifty warm caches
    figures = {f"p{q}_ms": round(float(np.percentile(ms, q)), 4) for q in (50, 90, 99)}
    click.echo(json.dumps({"bench": "decide", "characters": characters, "n": n, **figures}))
