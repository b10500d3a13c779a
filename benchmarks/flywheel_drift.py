"""What the flywheel does when the traffic changes for good, when it is taught wrongly, and when what it promoted becomes bad.

Run as: python -m benchmarks.flywheel_drift [--rows FILE] [--classifier NAME] [--lives 5] [--least-pairs 400]

The ledger, the flywheel with its gates and tests, the certificate's alarm and the routers are real. Tiers' answers are recorded
(`flywheel_offline`; --rows keeps them), and the clock is set (see `flywheel_life`). Everything is drawn, filled in and graded
without labels: `large` is right. Shares of cost and of exact match are against `large`; exact match is by the references.

drift: from an empty log to a promoted router on eight kinds of task. Then six requests in ten are of two new kinds, `letter` and
`largest`, which `small` gets wrong and is sure of: its answers are there, spoilt. Audits retire the certificate; the flywheel
makes a new router. corrupted: a router taught with wrong grades, while those of the shadow are right. spoilt: from the promotion
on, `small` and `medium` give so many wrong answers more that the router's are worse by `--worse`. Prints one JSON line.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import torch

from benchmarks.flywheel_life import Life, Row, configured, corrupted, shares, spoilt
from benchmarks.flywheel_offline import HELD_OUT, POOL, pocket_rows
from deployments.pocket import tasks
from router.flywheel.served import Served

NEW = ("letter", "largest")
NEW_SHARE = 0.6
BELOW = ("small", "medium")
CORRUPTED = ("flipped", "random", "generous")
MARK = "new_kind"  # of a row


def said(what: str) -> None:
    print(f"{time.process_time():6.0f} s of CPU  {what}", file=sys.stderr, flush=True)


# -- the mix ----------------------------------------------------------------------------------------------------------------


class Tasks:
    """Rows of recorded answers by kind."""

    def __init__(self, rows: Sequence[Row]) -> None:
        kinds = {task.prompt: task.kind for task in tasks.fresh("single", POOL + HELD_OUT, 18)}
        self.old = [row for row in rows if kinds[row["prompt"]] not in NEW]
        self.new = [{**row, MARK: True} for row in rows if kinds[row["prompt"]] in NEW]

    def mix(self, share: float, seed: int, begin: int = 0) -> Iterator[Row]:
        """Without end: `share` of new kinds, each row once before any twice. begin: at which of the old ones."""
        random, places = np.random.default_rng(seed), [begin, 0]
        while True:
            new = random.random() < share
            rows = self.new if new else self.old
            yield rows[places[new] % len(rows)]
            places[new] += 1


def unlearned(life: Life) -> None:
    """`small` answers the new kinds wrongly from now on; they are known by their prompts."""
    texts = set[str]()

    def marked(rows: Iterator[Row]) -> Iterator[Row]:
        for row in rows:
            if row.get(MARK):
                texts.add(row["prompt"])
            yield row

    def change(served: Served, random: np.random.Generator) -> Served:
        return spoilt(served, ("small",)) if served.messages[-1]["content"] in texts else served

    life.mix, life.change = marked(life.mix), change


# -- lives ------------------------------------------------------------------------------------------------------------------


def promoted(life: Life) -> bool:
    return bool(life.run and life.run.stage == "promoted")


def ended(life: Life) -> bool:
    return bool(life.run and life.run.closed)


def drift(life: Life, given: Tasks, options: argparse.Namespace) -> Row:
    """From the promotion on: until the change, until the alarm, until the next promotion, and after it."""
    first, begin = life.promoted, len(life.answered)
    life.live(ended, 1_000)
    assert life.run and life.run.stage == "done", life.history()[-1]
    before, changed = life.answered[begin:], len(life.answered)
    said(f"the mix changes; before it {shares(before)}")
    life.mix = given.mix(NEW_SHARE, options.seed + 1, begin=changed)
    unlearned(life)
    life.live(lambda one: bool(one.alarms), 2_000)
    retired = len(life.answered)
    said(f"retired: {life.alarms[-1]}")
    life.live(lambda one: promoted(one) and one.promoted not in ("", first), options.most)
    again = len(life.answered)
    said(f"promoted again: {shares(life.answered[retired:])}")
    life.live(lambda one: len(one.answered) - again >= options.after, 2 * options.after)
    return {
        "before": shares(before),
        "until_retired": shares(life.answered[changed:retired]),
        "retired": life.alarms[0],
        "until_promoted_again": shares(life.answered[retired:again]),
        "again": shares(life.answered[again:]),
        "runs": [(event[0], event[2][:200]) for event in life.history() if event[1] != "looked"],
    }


def wrongly_taught(folder: Path, given: Tasks, how: str, seed: int, options: argparse.Namespace) -> Row:
    """How far a router comes that was made of wrong grades."""
    life = Life(
        folder,
        configured(folder, 0.0, options.classifier, least_pairs=options.least_pairs),
        given.mix(0.0, seed, 700 * seed),
        seed,
    )

    def change(served: Served, random: np.random.Generator) -> Served:
        return served if life.run else corrupted(served, BELOW, how, random)

    life.change = change
    life.live(lambda one: ended(one) or promoted(one), options.most)
    events = life.history()
    stage, _, why = events[-1]
    before = "shadow" if any(event[0] == "shadow" for event in events) else "gates"
    found = {"grades": how, "end": stage, "stopped_by": before, "why": why[:200], "requests": len(life.answered)}
    if passed := [event[2] for event in events if event[1] in ("passed", "promoted")]:
        found |= {"stopped_by": "", "passed": passed, "as_served": shares([one for one in life.answered if one.router])}
    life.close()
    said(f"{found}")
    return found


def made_bad(life: Life, options: argparse.Namespace) -> Row:
    """Requests until a promoted router is rolled back whose answers have become worse by options.worse."""
    begin = len(life.answered)
    given = [a for a in life.answered if a.router]
    share = sum(a.usd < 0.95 * a.top_usd for a in given) / len(given)  # that a smaller tier answers
    chance = min(1.0, options.worse / share)

    def change(served: Served, random: np.random.Generator) -> Served:
        return spoilt(served, BELOW) if random.random() < chance else served

    life.change = change
    life.live(ended, 1_000)  # looked at before the next run begins
    run, (stage, _, why) = life.run, life.history()[-1]
    assert run and stage == "rolled back" and life.promoted != run.candidate, life.history()[-1]
    life.close()
    return {"requests": len(life.answered) - begin, "why": why}


def well_taught(place: Path, given: Tasks, options: argparse.Namespace) -> Row:
    """One router that is promoted; what becomes of it if it is spoilt, and if the mix changes."""
    (folder := place / "drift").mkdir()
    config = configured(folder, options.audit_rate, options.classifier, least_pairs=options.least_pairs)
    life = Life(folder, config, given.mix(0.0, options.seed), options.seed, options.step)
    found: Row = {"until_promoted": life.live(promoted, options.most)}
    life.live(lambda one: sum(bool(a.router) for a in one.answered) >= 100, 200)
    said(f"promoted after {found['until_promoted']} requests: {shares([a for a in life.answered if a.router])}")
    ends: dict[str, list[Row]] = {"with_audits": [], "without_audits": []}
    for seed in range(options.lives if options.only != "drift" else 0):
        for name, rate in (("with_audits", options.audit_rate), ("without_audits", 0.0)):
            (folder := place / f"{name}{seed}").mkdir()
            ends[name].append(made_bad(life.copied(folder, seed, rate), options))
            said(f"spoilt, {name}: {ends[name][-1]}")
    taken = {name: [one["requests"] for one in rows] for name, rows in ends.items() if rows}
    found["spoilt"] = {name: {"median": median(n), "most": max(n), "ends": ends[name]} for name, n in taken.items()}
    if options.only != "spoilt":
        found |= drift(life, given, options)
    life.close()
    return found


def all_wrongly_taught(place: Path, given: Tasks, options: argparse.Namespace) -> list[Row]:
    found = []
    for seed in range(options.first, options.lives):
        (folder := place / f"corrupted{seed}").mkdir()
        found.append(wrongly_taught(folder, given, CORRUPTED[min(seed, len(CORRUPTED) - 1)], seed, options))
    return found


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, default=None, help="of recorded answers, written there if it is not there")
    parser.add_argument("--classifier", default=None, help="[default: the best one]")
    parser.add_argument("--lives", type=int, default=5, help="of each kind beside the drift")
    parser.add_argument("--only", choices=("drift", "spoilt", "corrupted"), default=None, help="a part of it")
    parser.add_argument("--step", type=int, default=10, help="requests between two looks")
    parser.add_argument("--first", type=int, default=0, help="number of the first wrongly taught life")
    parser.add_argument("--least-pairs", type=int, default=400)
    parser.add_argument("--audit-rate", type=float, default=0.2)
    parser.add_argument("--worse", type=float, default=0.2)
    parser.add_argument("--after", type=int, default=300, help="requests after the second promotion")
    parser.add_argument("--most", type=int, default=6_000, help="requests until a promotion")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def main() -> None:
    options = parsed()
    torch.set_num_threads(1)
    given = Tasks(pocket_rows(options.rows, ("small", "medium", "large")))
    with tempfile.TemporaryDirectory() as place:
        found = well_taught(Path(place), given, options) if options.only != "corrupted" else {}
        if options.only in (None, "corrupted"):
            found["corrupted"] = all_wrongly_taught(Path(place), given, options)
    print(json.dumps({**found, "cpu_s": round(time.process_time()), "step": options.step}))


if __name__ == "__main__":
    main()
