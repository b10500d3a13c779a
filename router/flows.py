"""Which flow answers a request, and how its parts are routed and judged: cascade and delegation meet the classifier here."""

from collections.abc import Mapping, Sequence
from typing import Any

from classifiers import Artifact, choose
from classifiers.artifact import Floats
from classifiers.decomposability import splits
from router import gates
from router.budget import Memory, Rung
from router.cascade import Cascade
from router.config import Config
from router.cost import per_token
from router.delegation import delegate
from router.judging import Ladder
from router.policy import Counter
from router.types import Decision, Flow, Reply, Request

STRICTEST = ("quality", "balanced", "cheap")  # targets for subtasks: one wrong part spoils the whole
LOWEST = {"trivial": 0.0, "easy": 0.0, "medium": 0.34, "hard": 1.0}  # of the ladder's height, that a hint raises to
OWN_LOGPROBS = {"logprobs": True, "top_logprobs": 2}


class Flows:
    """Makes the flow of a request. `special`: all special tokens of the tiers' tokenizers."""

    def __init__(
        self, config: Config, artefact: Artifact | None, count: Mapping[str, Counter], special: Sequence[str] = ()
    ) -> None:
        self.config, self.artefact, self.special = config, artefact, special
        self.names = config.names
        self.memory = Memory()
        self.rungs = [Rung(t.name, t.context, *per_token(t), count[t.name]) for t in config.tiers]
        self.strict = next((name for name in STRICTEST if artefact and name in artefact.rules), None)

    # -- escalation ------------------------------------------------------------------------------------------------------

    def ladder(self, p: Floats, cost: Floats, target: str, excluded: Mapping[str, str]) -> Ladder | None:
        """How to decide after each answer; None where answers are not looked at. p, cost: (n_tiers,)."""
        allowed = tuple(i for i, name in enumerate(self.names) if name not in excluded)
        if self.artefact is None or self.config.escalation.mode == "pre" or len(allowed) < 2:
            return None
        posterior, rule = self.artefact.posterior, self.artefact.cascades.get(target)
        if posterior is None or rule is None:
            return None
        return Ladder(self.names, p, cost, rule, posterior, allowed, best_of=False)

    def escalation(self, asked: Request, decided: Decision) -> Flow | None:
        """Ask the first tiers, look, go up. None where the first answer stands: the top tier, or several answers wanted."""
        if decided.ladder is None or (asked.body.get("n") or 1) > 1:
            return None
        names = [self.names[k] for k in decided.ladder.allowed]
        first = decided.first if decided.tier in decided.first else (decided.tier,)  # its session may have moved it
        if first == (names[-1],):
            return None
        return Cascade(asked.body, names, decided.ladder, self.config.escalation, asked.stream).run(first)

    # -- delegation ------------------------------------------------------------------------------------------------------

    def delegation(self, body: Mapping[str, Any], decided: Decision) -> Flow | None:
        """Let the tier decided on plan, where all gates pass; it must be the top of those that may be asked."""
        if self.config.delegation.mode not in ("plan", "auto"):
            return None
        allowed = [name for name in self.names if name not in decided.excluded]
        if decided.tier != allowed[-1]:
            return None
        rungs = self.rungs[: self.names.index(decided.tier) + 1]
        settings = self.config.delegation
        seen = gates.consider(body, rungs, settings, self.memory, self.route, splits, self.special)
        if seen.state is not None:
            return None
        return delegate(
            body, rungs, settings, self.route, self.accept, self.memory, special=self.special, more=OWN_LOGPROBS, considered=seen
        )

    def guessed(self, text: str) -> Ladder | None:
        """The decision about a subtask; None without a trained router."""
        if self.artefact is None or self.strict is None:
            return None
        p, cost, _ = self.artefact.guess_one(text)
        return self.ladder(p, cost, self.strict, {})

    def route(self, text: str, difficulty: str | None) -> str:
        """The tier of a subtask: the classifier's, which the planner's hint can only raise."""
        lowest = round(LOWEST.get(difficulty or "easy", 0.0) * (len(self.names) - 1))
        return self.names[max(lowest, self.names.index(self.cheapest(text)))]

    def cheapest(self, text: str) -> str:
        """The tier that the classifier gives a text; without a trained router the one below the top."""
        if self.artefact is None or self.strict is None:
            return self.names[max(0, len(self.names) - 2)]
        ladder = self.guessed(text)
        if ladder:
            return ladder.first()[0]
        p, cost, _ = self.artefact.guess_one(text)
        return self.names[choose(p, cost, self.artefact.rules[self.strict])[0]]

    def accept(self, tier: str, text: str, reply: Reply) -> str | None:
        """None for a subtask's answer that is good enough, else why it goes up."""
        ladder = self.guessed(text)
        if ladder is None:
            return None
        verdict = ladder.next({tier: reply})
        return getattr(verdict, "reason", None)
