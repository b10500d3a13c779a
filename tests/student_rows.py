"""Kept requests of a student and its teacher, and rows of a data folder, for tests of what chooses, splits and compares."""

from router.config import Config
from router.distil.choosing import Collector, Pair
from router.distil.licences import Permissions
from router.distil.rows import Row, Student
from router.flywheel.served import Answer, Grade, Served

PAIR = Pair("small", "large")
FREE = Permissions({"apache-2.0": True, "closed": False}, {})
LATE = 1e9
SURE = {"mean_logprob": -0.01}


def asked(n, text="", right=True, at_s=None, student=True, **changes):
    """Request n, one a minute; its answer is n, and a wrong student says 0."""
    answers = {"large": answer("large", f"{n}")}
    grades = {"large": Grade(1.0, "top")}
    if student:
        answers["small"] = answer("small", f"{n}" if right else "0")
        grades["small"] = Grade(float(right), "agreement")
    given = {
        "trace_id": f"{n:032x}",
        "at_s": 60.0 * n if at_s is None else at_s,
        "key_id": f"k{n % 7}",
        "conversation": "",
        "messages": ({"role": "user", "content": text or f"Tell me the number {n} in digits, please"},),
        "answered_by": "large",
        "answers": answers,
        "grades": grades,
        "sampling": {"temperature": 0},
        "drawn": True,
    }
    return Served(**{**given, **changes})


def answer(tier, text, finish="stop", licence="apache-2.0", tokens=4, **more):
    message = {"role": "assistant", "content": text}
    return Answer(tier, "fill", message, finish, 20, tokens, 0.001, SURE, licence=licence, **more)


def log(n=400, wrong=4, **changes):
    """n requests, of which the student has one in `wrong` wrong."""
    return [asked(i, right=i % wrong != 0, **changes) for i in range(n)]


def collected(rows, corrections=None, seed=0, pair=PAIR, may_teach=FREE, most=30_000, now_s=LATE):
    collector = Collector(pair, may_teach, now_s, seed, most)
    for row in rows:
        collector.add(row, (corrections or {}).get(row.trace_id, ""))
    return collector


def learned(n, right=True, **changes):
    """A row of a data folder: the answer to learn is n."""
    given = {
        "id": f"t{n}",
        "messages": ({"role": "user", "content": f"Tell me the number {n}"},),
        "answer": {"role": "assistant", "content": f"{n}"},
        "kind": "success" if right else "failure",
        "student": Student({"role": "assistant", "content": f"{n}" if right else "0"}, "stop", float(right), 4),
        "group": f"g{n}",
        "drawn": True,
        "licence": "apache-2.0",
        "teacher_tokens": 4,
    }
    return Row(**{**given, **changes})


def ladder(tmp_path, teacher=None, student=None, **settings):
    """small on vllm, large beside it. teacher, student: changes of the two tiers."""
    price = {"usd_per_1m_input": 1, "usd_per_1m_output": 1}
    common = {"engine": "vllm", "source": str(tmp_path / "model"), "context": 400, "price": price}
    free = {"licence": {"id": "apache-2.0", "train_on_outputs": "any"}}
    large = {**common, "price": {"usd_per_1m_input": 9, "usd_per_1m_output": 9}}
    tiers = [{"name": "small", **common, **(student or {})}, {"name": "large", **large, **free, **(teacher or {})}]
    return {"tiers": tiers, **settings}


def config_of(tmp_path, **given):
    return Config.model_validate(ladder(tmp_path, **given))
