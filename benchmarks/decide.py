"""Time of one decision, of long prompts and of batches, without Ray. Run as: python -m benchmarks.decide [ARTEFACT]

Without an artefact it trains the default on made-up prompts for three tiers. Prints one JSON line.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from classifiers import Sufficiency, choose, load, save
from classifiers.artifact import Artifact
from classifiers.choose import Rule
from classifiers.registry import DEFAULT

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
    return {f"{side}p{q}_ms": round(float(np.percentile(s, q)) * 1e3, 4) for side, s in spent.items() for q in (50, 99)}


def measure(artifact: Artifact, texts: list[str]) -> dict[str, object]:
    """Decisions on 500 and 100,000 characters, and a batch."""
    rule = artifact.rules["balanced"]

    def decide(text: str) -> object:
        p, cost, _ = artifact.guess_one(text)
        return choose(p, cost, rule)

    long = [(text * 250)[:100_000] for text in texts[:100]]
    start, working = time.perf_counter(), time.process_time()
    artifact.guess(texts * 5)
    rate, cpu_rate = (len(texts) * 5 / spent for spent in (time.perf_counter() - start, time.process_time() - working))
    return {
        "tiers": len(artifact.tiers),
        "500_characters": times_ms(decide, texts),
        "100000_characters": times_ms(decide, long),
        "batch_per_s": round(rate),
        "batch_per_cpu_s": round(cpu_rate),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artefact", nargs="?")
    asked = parser.parse_args().artefact
    with tempfile.TemporaryDirectory() as folder:
        artifact = load(asked) if asked else made_up(Path(folder) / "artefact")
    start = time.perf_counter()
    if asked:
        load(asked)
    load_s = time.perf_counter() - start
    print(json.dumps({"load_s": round(load_s, 4), **measure(artifact, prompts(1000, 500))}))


if __name__ == "__main__":
    main()
