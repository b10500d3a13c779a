"""A proof from its prompts to its page: the steps one after the other, each kept, so that a killed run goes on."""

import asyncio
import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from classifiers.files import atomic_write
from deployments.journal import Steps, hash_of, hash_of_files
from deployments.prove import learn
from deployments.prove.about import about_of, recorded
from deployments.prove.budget import Purse, estimate
from deployments.prove.figures import figures
from deployments.prove.inputs import FEWEST, check_usd
from deployments.prove.ladder import GivenLadder, OwnLadder, Start, copy_of
from deployments.prove.live import AUTO, Live, graded, interleaved
from deployments.prove.page import page
from deployments.prove.split import SHARES, drawn, split
from deployments.prove.wish import Wish
from router.learn.chats import chat_of
from router.learn.labels.journal import source_of
from router.learn.labels.ladder_client import ServedLadder

Json = dict[str, Any]
Bar = Callable[[str, int], AbstractContextManager[Callable[[int, int], None]]]
PROMPTS = "prompts.json"
LIVE = "live.json"
PROOF = "proof.json"
PAGE = "proof.html"
SPENT = "spent.jsonl"


class Proof:
    """One run. say: told what happens, a line each. bar: shows progress."""

    def __init__(self, wish: Wish, steps: Steps, ladder: OwnLadder | GivenLadder, say: Callable[[str], None], bar: Bar) -> None:
        self.wish, self.steps, self.ladder, self.say, self.bar = wish, steps, ladder, say, bar
        self.folder = wish.folder
        self.tiers = list(wish.config.names)
        self.purse = Purse(wish.usd, self.folder / SPENT)
        self.served = copy_of(wish.config, self.folder, wish.target, wish.mode, None)

    def run(self) -> Json:
        """All steps. Returns the figures. Raises BadInput."""
        parts = self.split()
        self.check_money(parts)
        self.again_with_more_money()
        self.label(parts)
        self.train()
        self.certify()
        self.live(parts["live"])
        return self.written()

    # -- steps -----------------------------------------------------------------------------------------------------------------

    def split(self) -> dict[str, list[Json]]:
        given = self.wish.given
        inputs = {
            "the prompts": given.rows,
            "the grader": given.grader_name,
            "--seed": self.wish.seed,
            "--sample": self.wish.sample,
        }

        def make() -> Json:
            parts = split(drawn(given.rows, self.wish.sample, self.wish.seed), self.wish.seed)
            atomic_write(self.folder / PROMPTS, json.dumps(parts))
            return {part: len(rows) for part, rows in parts.items()}

        counts = self.steps.run("split", inputs | {"shares": SHARES}, [PROMPTS], make)
        self.say("prompts: " + ", ".join(f"{n} to {part}" for part, n in counts.items()))
        parts: dict[str, list[Json]] = json.loads((self.folder / PROMPTS).read_text("utf-8"))
        return parts

    def check_money(self, parts: dict[str, list[Json]]) -> None:
        """Say what the rest is expected to cost, and keep back what trying live may cost. Raises BadInput."""
        prices, n = list(self.wish.prices.values()), self.wish.max_tokens
        chats = {part: [chat_of(row) for row in rows] for part, rows in parts.items()}
        labels = estimate(chats["teach"] + chats["certify"], n, prices)
        live = estimate(chats["live"], n, [*prices, *prices])
        usual, most = labels[0] + live[0], labels[1] + live[1]
        told = f"expected to cost {usual:.3g} USD by token prices, {most:.3g} at most"
        self.say(told + (f"; spent before: {self.purse.spent:.3g}" if self.purse.spent else ""))
        every = max(1, sum(map(len, parts.values())))
        check_usd(self.wish.usd, usual * min(1.0, FEWEST / every))
        if self.wish.usd is not None:
            self.purse.reserved = self.wish.usd * live[0] / max(usual, 1e-18)

    def again_with_more_money(self) -> None:
        """Steps that a budget cut short go on where there is more now."""
        for name in ("label", "live"):
            result = self.steps.result(name)
            if result.get("partial") and (self.wish.usd is None or self.wish.usd > result.get("usd", 0.0)):
                self.steps.forget(name, "its budget was spent and there is more now")

    def label(self, parts: dict[str, list[Json]]) -> None:
        rows = [{**row, "part": part} for part in ("teach", "certify") for row in parts[part]]
        rows = drawn(rows, len(rows), self.wish.seed)  # mixed, so that a budget cuts both parts alike
        inputs = {"the prompts": hash_of_files([self.folder / PROMPTS]), **self.asked_how()}

        def make() -> Json:
            with self.bar("labels", len(rows) * len(self.tiers)) as progress:
                work = learn.label(rows, self.reached(), self.wish.given.grader, self.folder, self.purse, progress)
                return asyncio.run(work) | {"usd": self.wish.usd}

        self.purse.refused = 0
        self.steps.run("label", inputs, [learn.OUTCOMES, learn.TEACH, learn.CERTIFY], make)

    def train(self) -> None:
        config, wish = self.served, self.wish
        inputs = {
            "the outcomes": hash_of_files([self.folder / learn.TEACH]),
            "the classifier": wish.classifier,
            "the promise": [wish.target, wish.alpha, wish.delta],
            "escalation.holdback_tokens": config.escalation.holdback_tokens,
        }

        def make() -> Json:
            with self.bar(f"fitting {wish.classifier}", 6) as progress:
                promised = wish.alpha, wish.delta
                return learn.train(self.folder, config, wish.classifier, wish.target, promised, progress)

        self.steps.run("train", inputs, [learn.TRAINED], make)

    def certify(self) -> None:
        wish = self.wish
        inputs = {
            "the trained router": hash_of_files([self.folder / learn.TRAINED]),
            "the outcomes": hash_of_files([self.folder / learn.CERTIFY]),
            "the promise": [wish.target, wish.alpha, wish.delta, wish.mode],
            **self.ladder_is(),
        }

        def make() -> Json:
            if why := self.steps.result("train").get("reason"):
                shutil.rmtree(self.folder / learn.ROUTER, ignore_errors=True)
                return {"certificates": {wish.target: {"kind": "none", "rule": wish.target, "reason": why}}}
            self.say("certifying")
            return learn.certify(self.folder, self.served, wish.target, wish.alpha, wish.delta)

        self.steps.run("certify", inputs, [learn.ROUTER], make)

    def live(self, rows: list[Json]) -> None:
        version = hash_of_files([self.folder / learn.ROUTER])
        inputs = {"the router": version, "the prompts": rows, "--at-once": self.wish.at_once, **self.asked_how()}

        def make() -> Json:
            if why := self.nothing_to_try():
                atomic_write(self.folder / LIVE, "[]")
                return {"prompts": 0, "why": why}
            self.ladder.use(self.folder / learn.ROUTER, self.certificate().get("digest", ""))
            with self.bar("live", len(rows) * (len(self.tiers) + 1)) as progress:
                answered = asyncio.run(self.tried(rows, version, progress))
            atomic_write(self.folder / LIVE, json.dumps(answered))
            return {"prompts": len(answered), "partial": self.purse.refused > 0, "usd": self.wish.usd}

        self.purse.refused, self.purse.reserved = 0, 0.0
        self.steps.run("live", inputs, [LIVE], make)

    def certificate(self) -> Json:
        """The first of those that were made, or what says why there is none."""
        return dict(next(iter(self.steps.result("certify")["certificates"].values())))

    def nothing_to_try(self) -> str:
        """Why `auto` need not be tried; empty: it is to be."""
        if why := self.steps.result("train").get("reason"):
            return f"no router could be trained: {why}"
        if self.wish.url and not self.certificate().get("digest"):
            return f"every request would go to the top tier, without a certificate: {self.certificate().get('reason')}"
        return ""

    async def tried(self, rows: list[Json], version: str, progress: Callable[[int, int], None]) -> list[Json]:
        """First `auto` beside the top tier, then the other tiers, so that they do not disturb the comparison."""
        ladder, top = self.reached(), self.tiers[-1]
        compared = interleaved(rows, [AUTO, top], self.wish.seed)
        others = interleaved(rows, self.tiers[:-1], self.wish.seed)
        run = Live(ladder, self.folder, version, self.purse, lambda done, total: progress(done, len(compared) + len(others)))
        await run.run(compared, self.wish.at_once)
        await run.run(others, self.wish.at_once)
        ways = [AUTO, *self.tiers]
        return await graded(rows, run.found, ways, ladder, self.wish.given.grader, self.folder, self.purse)

    def written(self) -> Json:
        """The figures and the page."""
        rows = json.loads((self.folder / LIVE).read_text("utf-8"))
        found = figures(rows, self.tiers, self.wish.alpha, self.wish.seed)
        if why := self.steps.result("live").get("why"):
            found["why"] = why
        about = about_of(self.wish, self.steps, self.purse.by_what)
        atomic_write(self.folder / PROOF, json.dumps(recorded(found, about, self.wish.texts), indent=1) + "\n")
        atomic_write(self.folder / PAGE, page(found, about, self.wish.texts))
        return found

    # -- what they need --------------------------------------------------------------------------------------------------------

    def reached(self) -> ServedLadder:
        url, key = self.ladder.reach()
        limits = (self.wish.max_tokens, self.wish.concurrency)
        return ServedLadder(url, key, self.tiers, self.wish.prices, *limits, known_as=self.wish.url or hash_of(self.ladder_is()))

    def ladder_is(self) -> dict[str, Any]:
        """What makes it another ladder."""
        return {"the tiers": [tier.model_dump(mode="json") for tier in self.wish.config.tiers], "--url": self.wish.url}

    def asked_how(self) -> dict[str, Any]:
        grader = self.wish.given.grader
        return {
            **self.ladder_is(),
            "--max-tokens": self.wish.max_tokens,
            "the grader": [self.wish.given.grader_name, source_of(grader) if grader else ""],
        }


def prove(wish: Wish, say: Callable[[str], None], bar: Bar, start: Start) -> Json:
    """Make the proof in its folder. Returns the figures. start: starts the ladder, where no address is given. Raises BadInput."""
    with Steps(wish.folder, say) as steps:
        ladder: OwnLadder | GivenLadder
        if wish.url:
            ladder = GivenLadder(wish.url, wish.api_key, wish.target, wish.folder)
        else:
            ladder = OwnLadder(wish.config, wish.folder, wish.target, wish.mode, say, start)
        with ladder:
            return Proof(wish, steps, ladder, say, bar).run()


def files_of(folder: Path) -> Sequence[Path]:
    """The page and its figures."""
    return [folder / PAGE, folder / PROOF]
