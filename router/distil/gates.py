"""What a trained student has to pass on the test rows before anything else is done with it: paired with what it was before.

`gain` and `lost` prove, by bounds that bootstrap over conversations gives; `form` compares how answers look; `capacity` only says
what the student is too small for.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from classifiers.choose import Floats
from router.distil.evaluation import FAILING, N_DRAWS, SURE, Compared, Draws, Forms, Masks
from router.flywheel.gates import Gate

FEWEST = 20  # test rows
RIGHT = 0.5  # score from which an answer counts as right
MOST_LOST = 0.05  # of those that were right, over all
MOST_LOST_OF_SLICE = 0.10
FEWEST_RIGHT = 50  # rows of a slice that were right
FORM = 0.10  # how much lower a share, or how much longer an answer, may be
HALF = 0.5  # of a slice's gap: what remains above it is the student's size, or needs other rows
NAMES = ("gain", "lost", "form", "capacity")


def student_gates(found: Compared) -> list[Gate]:
    """`gain`, `lost`, `form` and `capacity`, in this order."""
    if len(found.rows) < FEWEST:
        few = f"{len(found.rows)} test rows can be compared; at least {FEWEST} are needed"
        return [Gate(name, False, {"n": len(found.rows)}, few) for name in NAMES]
    draws = Draws(found.rows)
    return [gain_gate(found, draws), lost_gate(found, draws), form_gate(found), capacity_gate(found, draws)]


def gain_gate(found: Compared, draws: Draws) -> Gate:
    """On the failing slices the new answers are better for sure: the lower bound of the mean gain is above 0."""
    of = found.is_failing
    if not of.any():
        return Gate("gain", False, {"n": 0}, f"no test row is of {', '.join(found.failing)}, where the student failed")
    means = draws.mean(found.new - found.old, of)
    low = float(np.nanquantile(means[1:], 1 - SURE))
    old, new = (float(draws.mean(scores, of)[0]) for scores in (found.old, found.new))
    won, lost = int((found.new > found.old)[of].sum()), int((found.new < found.old)[of].sum())
    where = f"on {', '.join(sorted(found.failing))[:200]}" if found.failing else "over all"
    numbers = {"before": old, "after": new, "gain": float(means[0]), "low": low, "n": int(of.sum()), "won": won, "lost": lost}
    said = f"mean score {old:.3f} before, {new:.3f} after, at least {low:+.3f} with {SURE:.0%}, {where} ({int(of.sum())} rows)"
    return Gate("gain", low > 0, {**numbers, "slices": sorted(found.failing)}, said)


def lost_gate(found: Compared, draws: Draws) -> Gate:
    """Of what the student could do, little is lost for sure: over all, and in each slice with enough rows that were right."""
    right = found.old >= RIGHT
    lost = (right & (found.new < RIGHT)).astype(np.float64)
    if not right.any():
        return Gate("lost", True, {"n": 0}, "no test row was right before, so nothing could be lost")
    share, high = upper(lost, right, draws)
    numbers: dict[str, Any] = {"share": share, "high": high, "limit": MOST_LOST, "n": int(right.sum()), "lost": int(lost.sum())}
    said = f"{share:.1%} of {int(right.sum())} rows that were right are lost, at most {high:.1%} with {SURE:.0%}"
    if high > MOST_LOST:
        return Gate("lost", False, numbers, f"{said}; {MOST_LOST:.0%} may be")
    big = {name: mask & right for name, mask in found.slices.items() if (mask & right).sum() >= FEWEST_RIGHT}
    slices = {name: slice_numbers(lost, of, draws) for name, of in big.items()}
    bad = not_proved({name: one["p"] for name, one in slices.items()})
    numbers["slices"] = slices
    if bad:
        worst = max(bad, key=lambda name: slices[name]["p"])
        part = f"of {worst} {slices[worst]['share']:.1%} of {slices[worst]['n']} are lost, and {MOST_LOST_OF_SLICE:.0%} may be"
        return Gate("lost", False, numbers, f"{said}; {part}: that it is less is not proved")
    return Gate(
        "lost", True, numbers, said + (f"; so of each of {len(slices)} slices, below {MOST_LOST_OF_SLICE:.0%}" if slices else "")
    )


def upper(lost: Floats, of: Masks, draws: Draws) -> tuple[float, float]:
    """The share that is lost of these rows, and its upper bound.

    Where nothing is lost every draw says 0; so the bound is never below the exact one for no loss among so many, 1 - a^(1/n).
    """
    shares = draws.mean(lost, of)
    exact = 1 - (1 - SURE) ** (1 / max(draws.effective(of), 1.0))
    return float(shares[0]), max(float(np.nanquantile(shares[1:], SURE)), exact)


def slice_numbers(lost: Floats, of: Masks, draws: Draws) -> dict[str, Any]:
    """p: the share of draws in which too much is lost."""
    shares = draws.mean(lost, of)
    p = (1 + float((shares[1:] > MOST_LOST_OF_SLICE).sum())) / (1 + N_DRAWS)
    return {"share": float(shares[0]), "p": p, "n": int(of.sum()), "lost": int(lost[of].sum())}


def not_proved(p: dict[str, float]) -> list[str]:
    """Slices for which it is not proved that little is lost, by Holm's rule: the smallest p needs 1 - SURE over the number of
    slices, the next over one less, and so on; from the first that does not reach it on, none is proved.
    """
    order = sorted(p, key=lambda name: (p[name], name))
    for i, name in enumerate(order):
        if p[name] > (1 - SURE) / (len(order) - i):
            return order[i:]
    return []


def form_gate(found: Compared) -> Gate:
    """JSON, tool calls and refusals no worse by FORM, and the mean length within FORM of what it was, or of what was learned."""
    old, new = Forms.of(found.rows, found.before), Forms.of(found.rows, found.after)
    taught = [row.teacher_tokens for row in found.rows if row.teacher_tokens]
    learned = float(np.mean(taught)) if len(taught) == len(found.rows) else old.tokens
    low, high = (1 - FORM) * min(old.tokens, learned), (1 + FORM) * max(old.tokens, learned)
    wrong = [
        *lower("valid JSON", old.json, new.json),
        *lower("calls of tools where they are due", old.calls, new.calls),
        *([f"refused or empty {new.refusals:.0%}, before {old.refusals:.0%}"] if new.refusals > old.refusals + FORM else []),
        *([f"{new.tokens:.1f} tokens an answer, {low:.1f} to {high:.1f} are allowed"] if not low <= new.tokens <= high else []),
    ]
    names = ("json", "calls", "refusals", "tokens")
    numbers = {name: [known(getattr(old, name)), known(getattr(new, name))] for name in names} | {"learned_tokens": learned}
    said = "; ".join(wrong) or f"{new.tokens:.1f} tokens an answer, before {old.tokens:.1f}; JSON, calls and refusals as before"
    return Gate("form", not wrong, numbers, said)


def lower(what: str, old: float, new: float) -> list[str]:
    """NaN: no row asks for it."""
    return [f"{what} {new:.0%}, before {old:.0%}"] if new < old - FORM else []


def known(value: float) -> float | None:
    return None if np.isnan(value) else value


def capacity_gate(found: Compared, draws: Draws) -> Gate:
    """Always passed: names the slices in which more than half of the gap is left."""
    left: dict[str, list[float]] = {}
    for name, of in {"all": np.ones(len(found.rows), dtype=bool), **found.slices}.items():
        old, new = (float(1 - draws.mean(scores, of)[0]) for scores in (found.old, found.new))
        if name != "all" and old > FAILING and new > HALF * old:
            left[name] = [old, new]
    named = ", ".join(f"{name} ({1 - old:.2f} to {1 - new:.2f})" for name, (old, new) in left.items())
    said = (
        f"more than half of the gap is left in {named[:400]}: more rows, or a larger student"
        if left
        else "no slice is left behind"
    )
    return Gate("capacity", True, {"slices": left}, said)


def passed(gates: Sequence[Gate]) -> bool:
    return all(gate.passed for gate in gates)


def report(found: Compared, gates: Sequence[Gate]) -> dict[str, Any]:
    """What evaluation.json holds: scores, paired counts, by slice too, and the gates."""
    draws = Draws(found.rows) if found.rows else None
    by = {"all": np.ones(len(found.rows), dtype=bool), **found.slices}
    return {
        "passed": passed(gates),
        "rows": len(found.rows),
        "left_out": dict(found.left_out),
        "slices": {name: slice_report(found, of, draws) for name, of in by.items()} if draws else {},
        "gates": [{"name": one.name, "passed": one.passed, "numbers": dict(one.numbers), "why": one.why} for one in gates],
    }


def slice_report(found: Compared, of: Masks, draws: Draws) -> dict[str, Any]:
    won, lost = found.new > found.old, found.new < found.old
    scores = {"before": float(draws.mean(found.old, of)[0]), "after": float(draws.mean(found.new, of)[0])}
    return {**scores, "n": int(of.sum()), "won": int((won & of).sum()), "lost": int((lost & of).sum())}
