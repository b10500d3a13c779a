"""The state of learning, as deployments.learning.status tells it, with a run in its shadow after one that was promoted."""

import copy
import time
from typing import Any

NOON = time.time() // 86400 * 86400 - 43200
HOSTILE = "<img src=x onerror=alert(2)>"
GATES = [
    {
        "name": "cost at equal quality",
        "passed": True,
        "why": "at the incumbent's quality 31.0 % cheaper, at least 18.2 % by the lower bound",
    },
    {"name": "calibration", "passed": True, "why": "calibration error 0.014, the incumbent's is 0.021"},
    {"name": "payback", "passed": True, "why": "what it cost is earned in 0.4 days, at most 30"},
]
WORSE = [{**GATES[0], "passed": False, "why": "the saving's lower bound is -2.1 %, expected more than 0"}, *GATES[1:]]


def ran(
    id: str, began_s: float, stage: str, pairs: int, why: str, gates: list[dict[str, Any]], ended_s: float | None
) -> dict[str, Any]:
    plain = {"kind": "router", "candidate": "c" * 64, "incumbent": "", "started_by": "host:42"}
    return {"id": id, "began_s": began_s, "ended_s": ended_s, "stage": stage, "pairs": pairs, "why": why, "gates": gates, **plain}


SHADOW = "wealth 6.2 of 20 after 214 graded pairs; at least 300 pairs are needed"
SETTINGS = {"shadow_pairs": 300, "shadow_wealth": 20.0, "rollback_wealth": 100.0, "canary_requests": 1000, "canary_s": 86400.0}
SAVED = {
    "requests": 18_204,
    "cost_usd": 3.18,
    "counterfactual_usd": 7.92,
    "unasked_usd": 0.41,
    "saved_usd": 4.33,
    "saved_share": 0.547,
}
LEARNED: dict[str, Any] = {
    "collect": "consented",
    "start": "auto",
    "counts": {
        "kept": 20_418,
        "drawn": 2_043,
        "waiting": 12,
        "filled": 2_018,
        "failed": 9,
        "dropped": 4,
        "graded": 2_018,
        "complete": 1_951,
        "feedback": 36,
        "by_source": {"top": 1_951, "agreement": 2_904, "judge": 840, "feedback": 36, "tests": 122, "none": 67},
        "fill_usd": 0.62,
        "judge_usd": 0.11,
    },
    "progress": {
        "stage": "shadow",
        "pairs": 214,
        "needed": 400,
        "eta_s": NOON + 90_000,
        "when": "tomorrow 14:00",
        "line": "214 of about 400 pairs; at today's traffic: tomorrow 14:00",
        "saving": {
            "share": 0.58,
            "rows": 214,
            "played": True,
            "text": "the candidate would save 58% of the cost of always asking the top tier (214 requests)",
        },
        "why": ["a candidate is played beside what serves; nobody gets its answers yet"],
    },
    "run": {
        **ran("run-3", NOON - 7_200, "shadow", 1_951, SHADOW, GATES, None),
        "settings": {"flywheel": SETTINGS, "pairs": 1_951},
        "since_s": NOON - 6_900,
        "graded": 214,
        "needed": 400,
        "wealth": 6.2,
        "wealth_against": 1.3,
        "mean_difference": -0.0047,
        "lost": 3,
        "won": 2,
        "saving": 0.58,
        "counts": {"candidate": {"requests": 0}},
    },
    "runs": [
        ran("run-3", NOON - 7_200, "shadow", 1_951, SHADOW, GATES, None),
        ran("run-2", NOON - 86_400, "refused", 1_204, WORSE[0]["why"], WORSE, NOON - 86_000),
        ran(
            "run-1", NOON - 4 * 86_400, "done", 612, "watched for 86400 s: wealth 1.1 of 100 against it", GATES, NOON - 2 * 86_400
        ),
    ],
    "bundles": {},
    "promotions": [{"run_id": "run-1", "at_s": NOON - 3 * 86_400, "until_s": NOON, "by": "host:42", "saved": SAVED}],
    "scheduler": None,
    "in_use": {"active": "a1b2c3d4e5f6" + "0" * 52, "configured": ""},
}


SLICES = {
    "all": {"before": 0.616, "after": 0.783, "n": 1_500, "won": 277, "lost": 27},
    "app=mail": {"before": 0.412, "after": 0.731, "n": 604, "won": 203, "lost": 10},
    "form=json": {"before": 0.802, "after": 0.815, "n": 210, "won": 9, "lost": 6},
}
ROWS = {"counts": {"train": {"failure": 3_104, "success": 3_104}, "dev": {}, "test": {}}}


def generation(digest: str, state: str, made_s: float, run_id: str, **more: Any) -> dict[str, Any]:
    plain = {"tier": "small", "parent": "", "method": "sequence, all weights", "licence": "apache-2.0", "dataset": "d" * 64}
    books = {"cost_usd": 0.0421, "training_usd": 0.03, "seconds": 62.4, "tokens": 2_400_000, "saves_usd_day": 1.2}
    found = {"digest": digest * 64, "state": state, "made_s": made_s, "run_id": run_id, "rows": ROWS, "learned": SLICES}
    return {**plain, **books, **found, **more}


GENERATIONS = [
    generation("f", "shadow", NOON - 7_000, "run-3", parent="e" * 64, saves_usd_day=0.3),
    generation("e", "promoted", NOON - 3 * 86_400, "run-1"),
    generation("9", "rolled back", NOON - 9 * 86_400, "run-0", learned={}, saves_usd_day=None),
]
LEARNED["generations"] = GENERATIONS


async def training() -> dict[str, Any]:
    """While a student is trained."""
    found = copy.deepcopy(LEARNED)
    found["progress"] |= {"stage": "training"}
    steps = [
        {"step": "data", "share": None, "why": "data: 6,208 train, 804 dev, 1,604 test", "at_s": NOON, "done": True},
        {"step": "train", "share": 0.5, "why": "training: 1.2 of 2.4 M tokens, loss 0.31", "at_s": NOON, "done": False},
    ]
    found["run"] |= {"stage": "training", "kind": "student", "steps": steps, "why": "", "gates": None}
    return found


async def learned() -> dict[str, Any]:
    return LEARNED


async def hostile() -> dict[str, Any]:
    """With names and reasons that want to be HTML, and with everything wrong that can be."""
    found = copy.deepcopy(LEARNED)
    for place in (found["run"], found["runs"][0]):
        place["id"] = place["why"] = HOSTILE
    found["run"]["stage"] = "canary"
    found["run"]["counts"] = {"candidate": {"requests": 480}}
    found["progress"] |= {"stage": "canary", "needed": None, "line": "214 pairs so far", "why": [HOSTILE]}
    found["promotions"][0]["run_id"] = found["run"]["gates"][0]["name"] = found["run"]["gates"][0]["why"] = HOSTILE
    found["generations"][0] |= {
        "state": HOSTILE,
        "learned": {HOSTILE: SLICES["all"]},
        "method": HOSTILE,
        "rows": {},
        "parent": "",
    }
    found["in_use"] |= {
        "canary": "b" * 64,
        "share": 0.05,
        "not_loaded": {"previous": HOSTILE},
        "ignored": HOSTILE,
        "database": HOSTILE,
    }
    return found | {"unknown": HOSTILE}
