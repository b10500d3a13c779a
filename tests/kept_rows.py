"""Requests as they are kept, with every tier's graded answer: the sums of answer_rows."""

from answer_rows import TIERS, answered_rows

from router.config import Config
from router.flywheel.served import Answer, Grade, Served

NAMES = tuple(TIERS)
PRINTS = {"form": 2, "models": {"small": "a", "medium": "b", "large": "c"}}
BESIDES = ("answer", "finish_reason", "output_tokens", "score", "cost_usd")


def kept(row, at_s, **changes):
    answers, grades = {}, {}
    for name, outcome in row["outcomes"].items():
        signals = {key: value for key, value in outcome.items() if key not in BESIDES}
        message = {"role": "assistant", "content": outcome["answer"]}
        answers[name] = Answer(name, "fill", message, "stop", 20, outcome["output_tokens"], outcome["cost_usd"], signals)
        grades[name] = Grade(outcome["score"], "agreement")
    given = {
        "trace_id": row["id"],
        "at_s": at_s,
        "key_id": "key-a",
        "conversation": "",
        "messages": ({"role": "user", "content": row["prompt"]},),
        "answered_by": list(answers)[-1],
        "answers": answers,
        "grades": grades,
        "sampling": {"temperature": 0},
        "drawn": True,
    }
    return Served(**{**given, **changes})


def kept_rows(n=240, seed=0, every_s=60.0, names=NAMES, **changes):
    """Oldest first, one each `every_s`."""
    return [kept(row, i * every_s, **changes) for i, row in enumerate(answered_rows(n, seed, names))]


def config_of(mode="buffer", target="balanced", names=NAMES, **flywheel):
    tiers = [
        {"name": name, "engine": "echo", "context": 4096, "price": {"usd_per_1m_input": usd, "usd_per_1m_output": usd}}
        for name, usd in {"small": 0.05, "medium": 0.25, "large": 1.0}.items()
        if name in names
    ]
    settings = {"classifier": "linear", "alpha": 0.05, **flywheel}
    return Config(tiers=tiers, routing={"target": target}, escalation={"mode": mode, "holdback_tokens": 4}, flywheel=settings)
