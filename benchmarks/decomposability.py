"""Makes classifiers/parts/decomposability.json. Run as: python -m benchmarks.decomposability [--negatives TABLE.parquet ...]

Prompts are generated from templates; a fifth of the templates, and of the tables' prompts, is held out for measuring.
--negatives: outcome tables whose prompts (column `prompt`) are single questions; they are used, never stored.
"""

import argparse
import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from benchmarks.decomposable_prompts import no, yes
from classifiers.parts.decomposability import FEATURES, FILE, Decomposability, features
from deployments.pocket.tasks import KINDS

PER_TEMPLATE = 12
POCKET = 600
PRECISION_WEIGHT = 4.0  # a wrong yes costs a plan and quality, a wrong no only a saving


def held_out(key: str) -> bool:
    """One in five, by its text alone."""
    return hashlib.sha256(key.encode()).digest()[0] % 5 == 0


Row = tuple[str, int, bool, str]  # text, label, held out, group


def generated(rng: random.Random) -> Iterator[Row]:
    for label, source in ((1, yes()), (0, no())):
        for template, make in source:
            for _ in range(PER_TEMPLATE):
                yield make(rng), label, held_out(template.rstrip("*/|-^")), "templates"


def pocket(rng: random.Random) -> Iterator[Row]:
    for kind, make in KINDS.items():
        for _ in range(POCKET):
            text = make(rng).prompt
            yield text, int(kind == "composite"), held_out(text), f"pocket {kind}"


def tables(paths: list[Path], rng: random.Random, most: int = 800) -> Iterator[Row]:
    for path in paths:
        import pyarrow.parquet

        texts = sorted(set(pyarrow.parquet.read_table(path, columns=["prompt"]).column("prompt").to_pylist()))
        for text in rng.sample(texts, min(most, len(texts))):
            yield text, 0, held_out(text), path.stem


def fit(rows: list[Row]) -> Decomposability:
    x = np.array([features(text) for text, *_ in rows])
    y = np.array([label for _, label, *_ in rows])
    scale = StandardScaler().fit(x)
    model = LogisticRegression(C=0.3, max_iter=3000, class_weight={0: PRECISION_WEIGHT, 1: 1.0}).fit(scale.transform(x), y)
    raw = model.coef_[0] / scale.scale_
    return Decomposability(tuple(round(float(c), 5) for c in raw), round(float(model.intercept_[0] - raw @ scale.mean_), 5))


def measure(model: Decomposability, rows: list[Row]) -> dict[str, str]:
    """For each group and label the share that is right."""
    found: dict[str, list[bool]] = {}
    for text, label, _, group in rows:
        found.setdefault(f"{group}, {'yes' if label else 'no'}", []).append((model.chance(text) >= 0.5) == bool(label))
    found["all"] = [right for group in list(found.values()) for right in group]
    return {name: f"{sum(right)}/{len(right)}" for name, right in sorted(found.items())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--negatives", nargs="*", type=Path, default=[], help="outcome tables of single questions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--errors", action="store_true", help="show what is decided wrong")
    asked = parser.parse_args()
    rng = random.Random(asked.seed)
    rows = [*generated(rng), *pocket(rng), *tables(asked.negatives, rng)]
    train, test = ([row for row in rows if row[2] == part] for part in (False, True))
    model = fit(train)
    scores = measure(model, test)
    print(json.dumps({"train": measure(model, train), "held out": scores}, indent=1))
    if asked.errors:
        for text, label, _, group in test:
            if (model.chance(text) >= 0.5) != bool(label):
                print(f"--- {group} {label} {model.chance(text):.3f}\n{text[:300]}")
    manifest = {
        "recipe": "python -m benchmarks.decomposability --negatives " + " ".join(path.name for path in asked.negatives),
        "seed": asked.seed,
        "rows": len(train),
        "templates": len({t for s in (yes(), no()) for t, _ in s}),
        "held_out": scores,
    }
    coefficients = dict(zip(FEATURES, model.coefficients, strict=True))
    made = {"manifest": manifest, "intercept": model.intercept, "coefficients": coefficients}
    FILE.write_text(json.dumps(made, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
