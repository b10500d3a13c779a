"""Small outcome tables: sums that both tiers can do, proofs that only the large one can."""

import json

import numpy as np


def rows(n=80, seed=0):
    random = np.random.default_rng(seed)
    made = []
    for i in range(n):
        hard = random.random() < 0.5
        a, b = (int(v) for v in random.integers(1, 99, 2))
        prompt = f"prove that x^{a} divides the group of order {b} [{i}]" if hard else f"what is {a} plus {b} [{i}]"
        small, large = random.random() < (0.1 if hard else 0.95), random.random() < 0.95
        made.append(
            {
                "id": f"p{i}",
                "prompt": prompt,
                "task": "proof" if hard else "sum",
                "score|s": float(small),
                "score|l": float(large),
                "cost|s": 0.001,
                "cost|l": 0.01,
            }
        )
    return made


def write_jsonl(path, lines):
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines), "utf-8")
    return path
