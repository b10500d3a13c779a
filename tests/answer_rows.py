"""Outcome tables with answers, as `stepdown label` writes them: sums that get longer, log-probabilities that know."""

import numpy as np

TIERS = {"small": (0.05, 2.2), "medium": (0.25, 3.6), "large": (1.0, 9.0)}  # cost, how long a sum it can do


def answered_rows(n=240, seed=0, names=tuple(TIERS)):
    random = np.random.default_rng(seed)
    return [_row(random, i, names) for i in range(n)]


def _row(random, i, names):
    terms = [int(v) for v in random.integers(2, 99, int(random.integers(2, 7)))]
    outcomes = {name: _outcome(random, *TIERS[name], terms) for name in names}
    prompt = "what is " + " + ".join(map(str, terms)) + f" [{i}]"
    return {"id": f"p{i}", "prompt": prompt, "answer": str(sum(terms)), "outcomes": outcomes}


def _outcome(random, cost, reach, terms):
    right = random.random() < 1 / (1 + np.exp((len(terms) - 1 - reach) * 1.5))
    answer = sum(terms) + (0 if right else int(random.integers(1, 9)))
    doubt = (0.02 if right else 0.7) * random.exponential()
    values = sorted(float(v) for v in -doubt * random.exponential(size=4))
    return {
        "answer": str(answer),
        "finish_reason": "stop",
        "output_tokens": 4,
        "score": float(right),
        "cost_usd": cost * (0.5 + len(terms) / 8),
        "mean_logprob": sum(values) / 4,
        "min_logprob": values[0],
        "p10_logprob": values[0],
        "p25_logprob": values[1],
        "p50_logprob": values[2],
        "logprob_tokens": 4,
        "first_margin": float(1 / (doubt + 0.1)),
        "first_logprobs": values,
    }
