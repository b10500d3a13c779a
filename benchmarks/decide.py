"""Times guess and choice alone, of short and long prompts and in batches, on one core, without Ray.

Run as: python -m benchmarks.decide [ARTEFACT]. It leaves out the request's JSON, constraints and the cascade; `stepdown bench
decide` times a whole decision. Without an artefact it trains the default on made-up prompts for three tiers. The figures are
medians of several runs, of elapsed and of CPU time (`cpu_`), which other work on the machine changes less. `long_`: 100,000
characters.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import numpy as np
from threadpoolctl import threadpool_limits

from classifiers import Sufficiency, choose, load, save
from classifiers.artifact import Artifact
from classifiers.choose import Rule
from classifiers.fast.precompile import precompile
from classifiers.models.registry import DEFAULT

WORDS = (
    "the of a sum list value between tree river price market cell law court number largest word count spell table "
    "why how which explain write compute sort reverse 12 7 345 1999 3.5 ( ) ? : , . theorem def return x y n"
).split()


def prompts(n: int, length: int, seed: int = 0) -> list[str]:
    """n texts of `length` characters, of words drawn by falling frequency."""
    random = np.random.default_rng(seed)
    chance = 1 / np.arange(1, len(WORDS) + 1)
    made = []
    for _ in range(n):
        words = random.choice(WORDS, size=length // 2, p=chance / chance.sum())
        made.append(" ".join(words)[:length])
    return made


def made_up(folder: Path, n: int = 2000, names: Sequence[str] = ("small", "medium", "large")) -> Artifact:
    """An artefact of the default classifier for these tiers, trained on prompts whose difficulty is their length."""
    random = np.random.default_rng(1)
    texts = [text[: int(random.integers(40, 1000))] for text in prompts(n, 1000)]
    lengths, reach = np.array([len(t) for t in texts])[:, None], np.geomspace(900, 4000, len(names))
    chance = np.clip(1 - lengths / reach, 0.02, 0.98)
    model = Sufficiency(DEFAULT, n_folds=2).fit(texts, (random.random(chance.shape) < chance).astype(float))
    rules = {"balanced": Rule("utility", 0.1).to_dict()}
    save(folder, model, {"tiers": list(names), "costs": list(np.geomspace(0.05, 1.0, len(names))), "rules": rules})
    return load(folder)


def times_ms(call: Callable[[str], object], texts: list[str]) -> dict[str, float]:
    """Median and 99th percentile of one call a text, after warming up: of the time that passed, and of the processor's."""
    for text in texts[:50]:
        call(text)
    spent: dict[str, list[float]] = {"": [], "cpu_": []}
    for text in texts:
        start, working = time.perf_counter(), time.thread_time()
        call(text)
        spent[""].append(time.perf_counter() - start)
        spent["cpu_"].append(time.thread_time() - working)
    told = {f"{side}p{q}_ms": round(float(np.percentile(s, q)) * 1e3, 4) for side, s in spent.items() for q in (50, 99)}
    return told | {f"{side}mean_ms": round(float(np.mean(s)) * 1e3, 4) for side, s in spent.items()}


def measure(artifact: Artifact, texts: list[str]) -> dict[str, float]:
    """Decisions on 500 and 100,000 characters, and in a batch."""
    rule = artifact.rules["balanced"]

    def decide(text: str) -> object:
        p, cost, _ = artifact.guess_one(text)
        return choose(p, cost, rule)

    one = times_ms(decide, texts)
    long = times_ms(decide, [(text * 250)[:100_000] for text in texts[:100]])
    start, working = time.perf_counter(), time.process_time()
    artifact.guess(texts * 5)
    rate, cpu_rate = (len(texts) * 5 / spent for spent in (time.perf_counter() - start, time.process_time() - working))
    return {
        **one,
        "per_s": 1e3 / one["mean_ms"],
        "per_cpu_s": 1e3 / one["cpu_mean_ms"],
        **{f"long_{name}": value for name, value in long.items()},
        "batch_per_s": rate,
        "batch_per_cpu_s": cpu_rate,
    }


@click.command(help=__doc__)
@click.argument("artefact", required=False)
@click.option("--runs", default=5, show_default=True)
def main(artefact: str | None, runs: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        artifact = load(artefact) if artefact else made_up(Path(folder) / "artefact")
    compiled = precompile(artifact.model)  # as the ingress does
    texts = prompts(1000, 500)
    seen = [measure(artifact, texts) for _ in range(runs)]
    middle = {name: round(statistics.median(run[name] for run in seen), 4) for name in seen[0]}
    print(json.dumps({"scenario": "decisions", "tiers": len(artifact.tiers), "runs": runs, "compiled": compiled, **middle}))


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
