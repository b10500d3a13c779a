"""The steps of `make gpu-check`, each a function of a running ladder and of what nvidia-smi says, that returns figures."""

import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from benchmarks import gpu_ladder
from benchmarks.gpu_cards import Card
from benchmarks.gpu_ladder import DOZE_S, RUNGS, SHARES, SOURCES, Ladder, Said
from router.errors import BadInput

Figures = Mapping[str, Any]
SUMS = 20
ANSWER_TOKENS = 64
FREE_TOKENS = 4_096
AT_ONCE = 8
SPEED_TOKENS = 256
LOOK_S = 0.5
WAIT_S = 120.0  # for a tier to doze, or to come back
LONG_TOKENS = 4_000
GPU_SHARE = 0.92  # of a card that vLLM takes, as tiers with `gpu` are told
GREEDY = "Name the four seasons of the year in one line."


@dataclass(frozen=True)
class Surroundings:
    """What steps look at beside the ladder. cards: as nvidia-smi says now."""

    cards: Callable[[], Sequence[Card]]
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def used_gib(self) -> float:
        return round(sum(card.used_gib for card in self.cards()), 2)

    def wait(self, until: Callable[[], bool], what: str) -> float:
        """Seconds that it took. Raises BadInput after WAIT_S."""
        began_s = self.clock()
        while not until():
            if self.clock() - began_s > WAIT_S:
                raise BadInput(f"waited {WAIT_S:.0f} s, and {what} did not happen; look at the ladder's log")
            self.sleep(LOOK_S)
        return round(self.clock() - began_s, 2)


def fit(around: Surroundings) -> Figures:
    """The memory that `stepdown fit` predicts for both engines on the first card."""
    from router.fit.families import known
    from router.fit.machine import GIB, parsed
    from router.fit.memory import Engine

    card = around.cards()[0]
    machine, found = parsed(f"1x{card.total_gib:.2f}GB"), {}
    for tier, source in SOURCES.items():
        model = known().named(source)
        if model is None:
            raise BadInput(f"fit does not know {source}; expected it in router/fit/families.yaml")
        engine = Engine(model, model.checkpoints[0], machine, 1, gpu_ladder.CONTEXT)
        placed = engine.placed(SHARES[tier] * GPU_SHARE * card.total_gib * GIB, SHARES[tier])
        sizes = {"weights_gib": engine.weights, "peak_gib": engine.peak, "cache_gib": placed.cache}
        found[tier] = {name: round(size / GIB, 2) for name, size in sizes.items()} | {"cache_tokens": placed.tokens}
    return {"card": card.name, "total_gib": round(card.total_gib, 2), **found}


def start(ladder: Ladder, around: Surroundings, predicted: Figures, took_s: float) -> Figures:
    """Both engines answer; what their caches hold beside what was predicted."""
    answers = {tier: ladder.ask(tier, GREEDY, ANSWER_TOKENS).status for tier in SHARES}
    held = ladder.cache_tokens()
    found: dict[str, Any] = {"ready_s": round(took_s, 1), "used_gib": around.used_gib(), "status": answers}
    for tier, source in SOURCES.items():
        expected, measured = (predicted.get(tier) or {}).get("cache_tokens"), held.get(source)
        found[f"{tier}_cache_tokens"] = measured
        if expected and measured:
            found[f"{tier}_off_percent"] = round(100 * (measured / expected - 1), 1)
    return found


def rungs(ladder: Ladder) -> Figures:
    """The same sums asked of each rung: how many were right, what was thought."""
    found = {}
    for rung in RUNGS:
        asked = [(f"What is {17 * n + 238} plus {29 * n + 467}? Answer with the number.", 46 * n + 705) for n in range(SUMS)]
        said = [ladder.ask(rung, text, FREE_TOKENS) for text, _ in asked]
        thoughts = [one.thought_tokens for one in said if one.thought_tokens is not None]
        found[rung] = {
            "right": sum(last_number(one.text) == right for one, (_, right) in zip(said, asked, strict=True)),
            "of": SUMS,
            "thought_tokens": round(statistics.mean(thoughts), 1) if thoughts else None,
            "most_thought_tokens": max(thoughts, default=None),
            "answer_s": round(statistics.mean(one.took_s for one in said), 2),
        }
    return found


def last_number(text: str) -> int | None:
    found = re.findall(r"-?\d[\d,]*", text)
    return int(found[-1].replace(",", "")) if found else None


def doze(ladder: Ladder, around: Surroundings) -> Figures:
    """Memory awake and dozing, the wake, the same greedy answer after it, and that no call is ended by it."""
    before, awake_gib = ladder.ask("small", GREEDY, ANSWER_TOKENS), around.used_gib()
    dozed_after_s = around.wait(lambda: ladder.state("small") == "dozing", "tier small's dozing")
    dozing_gib = around.used_gib()
    after = ladder.ask("small", GREEDY, ANSWER_TOKENS)
    return {
        "awake_gib": awake_gib,
        "dozing_gib": dozing_gib,
        "freed_gib": round(awake_gib - dozing_gib, 2),
        "woken_gib": around.used_gib(),
        "dozed_after_s": dozed_after_s,
        "first_answer_s": round(before.took_s, 2),
        "answer_with_wake_s": round(after.took_s, 2),
        "same_answer": before.status == after.status == 200 and before.text == after.text,
        **under_load(ladder, around),
    }


def under_load(ladder: Ladder, around: Surroundings) -> Figures:
    """One long answer, and short ones with pauses about as long as it takes to doze: all must be whole."""
    long = {"ignore_eos": True, "min_tokens": LONG_TOKENS}
    with ThreadPoolExecutor(2) as pool:
        whole = pool.submit(ladder.ask, "small", "Tell a long story.", LONG_TOKENS, **long)
        short = []
        for n in range(6):
            short.append(ladder.ask("small", f"What is {n} plus 1?", 8))
            around.sleep(DOZE_S + 0.1 * (n - 3))
    return {
        "long_answer_whole": whole.result().tokens == LONG_TOKENS,
        "long_answer_s": round(whole.result().took_s, 1),
        "short_failed": sum(one.status != 200 for one in short),
    }


def kill(ladder: Ladder, around: Surroundings) -> Figures:
    """The small engine's process is killed: another tier answers, and it comes back."""
    ladder.kill("small")
    around.sleep(LOOK_S)
    said = ladder.ask("auto", GREEDY, ANSWER_TOKENS)
    back_s = around.wait(lambda: ladder.ask("small", GREEDY, 8).status == 200, "tier small's return")
    return {"status_meanwhile": said.status, "answered_by": said.tier, "answer_s": round(said.took_s, 2), "back_after_s": back_s}


def speed(ladder: Ladder, around: Surroundings) -> Figures:
    """Tokens a second of each engine alone, and of both at the same time."""
    alone = {tier: rate(ladder, around, [tier])[tier] for tier in SHARES}
    both = rate(ladder, around, list(SHARES))
    return {f"{tier}_{how}_tokens_s": found[tier] for tier in SHARES for how, found in (("alone", alone), ("together", both))}


def rate(ladder: Ladder, around: Surroundings, tiers: Sequence[str]) -> dict[str, float]:
    """Tokens a second by tier, of AT_ONCE answers at each of them, all at once."""
    forced = {"ignore_eos": True, "min_tokens": SPEED_TOKENS}

    def ask(tier: str) -> tuple[Said, float]:
        return ladder.ask(tier, "Tell a story.", SPEED_TOKENS, **forced), around.clock()

    began_s = around.clock()
    with ThreadPoolExecutor(AT_ONCE * len(tiers)) as pool:
        asked = {tier: [pool.submit(ask, tier) for _ in range(AT_ONCE)] for tier in tiers}
    found = {tier: [one.result() for one in each] for tier, each in asked.items()}
    return {
        tier: round(sum(said.tokens for said, _ in each) / max(1e-9, max(ended_s for _, ended_s in each) - began_s), 1)
        for tier, each in found.items()
    }
