"""Which flow answers a request, and how its parts are routed and judged: cascade and delegation meet the classifier here."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from classifiers import Artifact, choose
from classifiers.choose import Floats
from classifiers.parts.decomposability import splits
from router.cascade.flow import Cascade, Unseen
from router.cascade.judge import Ladder
from router.cascade.race import Hedge
from router.config import Config
from router.costs.prices import per_token
from router.decide.promises import Promises
from router.delegate import gates
from router.delegate.gates import Considered
from router.delegate.memory import Memory
from router.delegate.planned import delegate
from router.delegate.tool_mode import tool_mode
from router.limits.client_limits import tightened
from router.limits.delegation_budget import Rung
from router.request import server_tools
from router.request.body import beyond_flows, several_wanted
from router.types import Call, Commit, Counter, Decision, Fail, Flow, Limits, Offered, Reply, Request, Step

STRICTEST = ("quality", "balanced", "cheap")  # targets for subtasks: one wrong part spoils the whole
LOWEST = {"trivial": 0.0, "easy": 0.0, "medium": 0.34, "hard": 1.0}  # of the ladder's height, that a hint raises to
OWN_LOGPROBS = {"logprobs": True, "top_logprobs": 2}
NOTHING = Offered()


def one_call(tier: str, body: Mapping[str, Any], told: Mapping[str, Any]) -> Flow:
    """The plain way as a flow, where there is something to tell of it."""
    call = Call("final", tier, "final", body, hold=1)
    reply = (yield Step((call,), phase=f"asking {tier}"))[0]
    if reply.error is not None:
        return Fail(reply.error, {call.id: "failed"}, told)
    return Commit(call.id, outcomes={call.id: "accepted"}, told=told)


def uncalled(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """A client that forbids tool calls asks for a plain answer, which may be planned; the tools stay in the prompt."""
    return server_tools.with_tools(body, []) if body.get("tool_choice") == "none" else body


class Flows:
    """Makes the flow of a request. `special`: all special tokens of the tiers' tokenizers."""

    def __init__(
        self,
        config: Config,
        artefact: Artifact | None,
        count: Mapping[str, Counter],
        special: Sequence[str] = (),
        fingerprints: Mapping[str, Any] | None = None,
    ) -> None:
        self.config, self.artefact, self.special = config, artefact, special
        self.names = config.names
        self.memory = Memory()
        self.promises = Promises(artefact, config.escalation, fingerprints or {})
        self.rungs = [Rung(t.name, t.context, *per_token(t), count[t.name]) for t in config.tiers]
        # A subtask is guessed for the gates, for its price, for its tier and for its answer: the same text each time.
        self.guess = lru_cache(maxsize=256)(artefact.guess_one) if artefact else None
        self.strict = next((name for name in STRICTEST if artefact and name in artefact.rules), None)

    # -- escalation ------------------------------------------------------------------------------------------------------

    def ladder(
        self, p: Floats, cost: Floats, target: str, excluded: Mapping[str, str], state: str | None = None, stream: bool = False
    ) -> Ladder | None:
        """How to decide after each answer; None where answers are not looked at. p, cost: (n_tiers,).

        state: of the certificate for this request; None: nothing is promised of it, as of a subtask.
        """
        allowed = tuple(i for i, name in enumerate(self.names) if name not in excluded)
        if self.artefact is None or not self.config.escalation.looks or len(allowed) < 2:
            return None
        posterior, rule = self.artefact.posterior, self.artefact.cascades.get(target)
        if posterior is None or rule is None:
            return None
        bound = rule if state is None else self.promises.rule(rule, target, state, stream)
        early = stream and self.config.escalation.mode == "holdback"
        return Ladder(self.names, p, cost, bound, posterior, allowed, best_of=False, early=early)

    def escalation(self, asked: Request, decided: Decision, offered: Offered = NOTHING) -> Flow | None:
        """Ask the first tiers, look, go up. None where the first answer stands: the top tier, or several answers wanted.

        offered: by it smaller tiers may say that a request is beyond them, and the top tier, once there, delegates.
        """
        if several_wanted(asked.body):
            return None
        if decided.ladder is None:
            stands = not (offered.escalate or asked.tests)
            return self.hedged(asked, decided) if stands else self.handed_up(asked, decided, offered)
        names = [self.names[k] for k in decided.ladder.allowed]
        first = decided.first if decided.tier in decided.first else (decided.tier,)  # its session may have moved it
        if first == (names[-1],):
            return None
        shown = self.shown(names, asked.body) if offered.escalate else set()
        cascade = Cascade(asked.body, names, decided.ladder, self.config.escalation, asked.stream, shown, tests=asked.tests)
        cascade.finale = self.finale(asked, decided, offered)
        return cascade.run(first)

    def hedged(self, asked: Request, decided: Decision) -> Flow | None:
        """A race with the next larger tier, where the one decided on is late; None where there is none or it is not wanted."""
        settings, place = self.config.escalation, self.names.index(decided.tier)
        larger = [name for name in self.names[place + 1 :] if name not in decided.excluded]
        if settings.mode != "hedge" or not larger:
            return None
        return Hedge(asked.body, (decided.tier, larger[0]), settings.larger_after_s).run()

    def finale(self, asked: Request, decided: Decision, offered: Offered) -> Callable[[Sequence[Reply]], Flow] | None:
        """What the top tier does with a request that came up to it, if more than answer."""
        limits = offered.delegate
        there = replace(decided, tier=[name for name in self.names if name not in decided.excluded][-1])
        if limits is None or self.not_offered(asked.body, there):
            return None

        def flow(before: Sequence[Reply]) -> Flow:
            spent = sum(self.rungs[self.names.index(reply.call.tier)].paid(reply.usage) for reply in before)
            return self.tool_mode(asked.body, there, limits.after(spent))

        return flow

    def handed_up(self, asked: Request, decided: Decision, offered: Offered) -> Flow | None:
        """One tier's answer stands unless it says itself that it cannot give one, or its code fails the client's tests."""
        names = [name for name in self.names if name not in decided.excluded]
        shown = self.shown(names, asked.body) if offered.escalate else set()
        if decided.tier == names[-1] or not (asked.tests or decided.tier in shown):
            return None
        given: dict[str, Any] = {"scored": False, "tests": asked.tests}
        cascade = Cascade(asked.body, names, Unseen(), self.config.escalation, asked.stream, shown, **given)
        cascade.finale = self.finale(asked, decided, offered)
        return cascade.run([decided.tier])

    def shown(self, names: Sequence[str], body: Mapping[str, Any]) -> set[str]:
        """The tiers that get `stepdown_escalate`: all below the top that take tools."""
        able = {tier.name for tier in self.config.tiers if tier.tools}
        return able & set(names[:-1]) if server_tools.may_escalate(body) else set()

    # -- delegation ------------------------------------------------------------------------------------------------------

    def considered(self, body: Mapping[str, Any]) -> Considered | None:
        """The gates' outcome; None where nothing is ever planned."""
        if self.config.delegation.mode not in ("plan", "auto") or "messages" not in body:
            return None
        settings, route = self.config.delegation, self.within(self.rungs)
        return gates.consider(uncalled(body), self.rungs, settings, self.memory, route, splits, self.special)

    def delegation(self, body: Mapping[str, Any], decided: Decision, limits: Limits | None = None) -> Flow | None:
        """Let the tier decided on plan, where all gates pass; it must be the top of those that may be asked."""
        if self.config.delegation.mode not in ("plan", "auto"):
            return None
        allowed = [name for name in self.names if name not in decided.excluded]
        if decided.tier != allowed[-1]:
            return None
        rungs = self.below(decided)
        settings, limits = self.config.delegation, limits or Limits()
        settings, route = limits.tightened(settings), self.within(rungs)
        seen = decided.considered
        if seen is None or settings != self.config.delegation or len(rungs) < len(self.rungs):
            seen = gates.consider(uncalled(body), rungs, settings, self.memory, route, splits, self.special)
        if seen.state is not None:
            return None
        return delegate(
            body,
            rungs,
            settings,
            route,
            self.accept,
            self.memory,
            special=self.special,
            more=OWN_LOGPROBS,
            max_usd=limits.max_cost_usd,
            considered=seen,
        )

    def tool_mode(self, body: Mapping[str, Any], decided: Decision, limits: Limits) -> Flow:
        """Let the tier decided on hand work down by a call. body: without server tools."""
        rungs = self.below(decided)
        allowed = [name for name in self.names if name not in decided.excluded]
        return tool_mode(
            body,
            rungs,
            self.config.delegation,
            limits,
            self.within(rungs),
            self.accept,
            self.memory,
            self.special,
            OWN_LOGPROBS,
            allowed if decided.target not in self.names else (),
        )

    def not_offered(self, body: Mapping[str, Any], decided: Decision) -> str:
        """Why `stepdown_delegate` is not shown; empty where it is."""
        allowed = [name for name in self.names if name not in decided.excluded]
        tier, asked = next(tier for tier in self.config.tiers if tier.name == decided.tier), beyond_flows(body)
        for found, what in (
            (decided.tier != allowed[-1], "a smaller tier answers"),
            (len(self.names) < 2 or decided.tier == self.names[0], "there is no smaller tier"),
            (not tier.tools, f"tier {tier.name} takes no tools"),
            (not server_tools.free_choice(body), "tool_choice leaves no choice"),
            (asked, asked),
            (body.get("functions"), "the client brings functions of the old kind"),
            (body["messages"][-1].get("role") not in ("user", "tool", "function"), "the last message is not the user's"),
        ):
            if found:
                return what
        return ""

    def below(self, decided: Decision) -> list[Rung]:
        """The tier decided on and those under it that may be asked."""
        return [rung for rung in self.rungs[: self.names.index(decided.tier) + 1] if rung.name not in decided.barred]

    def within(self, rungs: Sequence[Rung]) -> gates.Route:
        """`route` for a ladder whose top is missing."""
        names = [rung.name for rung in rungs]

        def route(text: str, difficulty: str | None) -> str:
            tier = self.route(text, difficulty)
            return tier if tier in names else names[-1]

        return route

    def answered(self, asked: Request, decided: Decision, offered: Offered) -> Flow | None:
        """The flow of a chat request without server tools in its body, which `offered` has; None: one plain call."""
        why = self.not_offered(asked.body, decided) if offered.delegate else ""
        if offered.delegate and not why:
            return self.tool_mode(asked.body, decided, offered.delegate)
        flow: Flow | None = None
        if decided.target not in self.names:
            # Tests are for one answer: parts that were put together would not have passed them.
            planned = None if asked.tests else self.delegation(asked.body, decided, offered.delegate or asked.limits)
            flow = planned or self.escalation(asked, decided, offered)
        if flow or not why:
            return flow
        return one_call(decided.tier, asked.body, {"delegation": "ineligible", "why": why})

    def limited(self, asked: Request, decided: Decision, offered: Offered) -> Flow | None:
        """`answered`, within the client's own limits."""
        limits = asked.limits
        if limits is None:
            return self.answered(asked, decided, offered)
        if offered.delegate:
            offered = replace(offered, delegate=offered.delegate.and_(limits))
        flow = self.answered(asked, decided, offered) or one_call(decided.tier, asked.body, {})
        # Plans and turns keep the limits themselves: they know what is to come and leave room for it.
        own = getattr(flow, "__name__", "") in (delegate.__name__, tool_mode.__name__)
        return flow if own else tightened(flow, limits, self.rungs)

    def guessed(self, text: str) -> Ladder | None:
        """The decision about a subtask; None without a trained router."""
        if self.guess is None or self.strict is None:
            return None
        p, cost, _ = self.guess(text)
        return self.ladder(p, cost, self.strict, {})

    def route(self, text: str, difficulty: str | None) -> str:
        """The tier of a subtask: the classifier's, which the planner's hint can only raise."""
        lowest = round(LOWEST.get(difficulty or "easy", 0.0) * (len(self.names) - 1))
        return self.names[max(lowest, self.names.index(self.cheapest(text)))]

    def cheapest(self, text: str) -> str:
        """The tier that the classifier gives a text; without a trained router the one below the top."""
        if self.artefact is None or self.guess is None or self.strict is None:
            return self.names[max(0, len(self.names) - 2)]
        ladder = self.guessed(text)
        if ladder:
            return ladder.first()[0]
        p, cost, _ = self.guess(text)
        return self.names[choose(p, cost, self.artefact.rules[self.strict])[0]]

    def accept(self, tier: str, text: str, reply: Reply) -> str | None:
        """None for a subtask's answer that is good enough, else why it goes up."""
        ladder = self.guessed(text)
        if ladder is None:
            return None
        verdict = ladder.next({tier: reply})
        return getattr(verdict, "reason", None)
