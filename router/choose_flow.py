"""Chooses the flow that answers a request, and how its parts are routed and judged."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from classifiers import Artifact, choose
from classifiers.choose import Floats
from classifiers.parts.decomposability import splits
from router.cascade.flow import AcceptAny, Cascade
from router.cascade.judge import TrainedJudge
from router.cascade.race import Race
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
from router.types import Call, Chosen, Commit, Counter, Decision, Fail, Flow, GoUp, Limits, Offered, Reply, Request, Step

# Targets by which subtasks are judged, the first that the artefact has: one wrong part spoils the whole answer.
STRICTEST = ("quality", "balanced", "cheap")
# The lowest tier that the planner's hint of difficulty allows, as a share of the ladder's height.
LOWEST = {"trivial": 0.0, "easy": 0.0, "medium": 0.34, "hard": 1.0}
OWN_LOGPROBS = {"logprobs": True, "top_logprobs": 2}
PLAIN = Chosen("direct")


def one_call(tier: str, body: Mapping[str, Any], told: Mapping[str, Any]) -> Flow:
    """One plain call as a flow, for a request whose answer has to tell more than the call itself does."""
    call = Call("final", tier, "final", body, hold=1)
    reply = (yield Step((call,), phase=f"asking {tier}"))[0]
    if reply.error is not None:
        return Fail(reply.error, {call.id: "failed"}, told)
    return Commit(call.id, outcomes={call.id: "accepted"}, told=told)


def without_tools_it_forbids(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """A client that forbids tool calls asks for a plain answer, which may be planned; the tools stay in the prompt."""
    return server_tools.with_tools(body, []) if body.get("tool_choice") == "none" else body


class Flows:
    """Chooses flows for one ladder. special: all special tokens of the tiers' tokenizers."""

    def __init__(
        self,
        config: Config,
        artefact: Artifact | None,
        count: Mapping[str, Counter],
        special: Sequence[str] = (),
        fingerprints: Mapping[str, Any] | None = None,
    ) -> None:
        self.config = config
        self.artefact = artefact
        self.special = special
        self.names = config.names
        self.memory = Memory()
        self.promises = Promises(artefact, config.escalation, fingerprints or {})
        self.rungs = [Rung(t.name, t.context, *per_token(t), count[t.name]) for t in config.tiers]
        # Gates, price, tier and judgement of a subtask all need the guess about the same text.
        self.guess = lru_cache(maxsize=256)(artefact.guess_one) if artefact else None
        self.strict = next((name for name in STRICTEST if artefact and name in artefact.rules), None)

    def choose(self, asked: Request, decided: Decision, offered: Offered) -> Chosen:
        """The flow of a chat request, within the client's own limits. asked: without the server tools, which are in `offered`."""
        limits = asked.limits
        if limits is None:
            return self.unlimited(asked, decided, offered)
        if offered.delegate:
            offered = replace(offered, delegate=offered.delegate.and_(limits))
        chosen = self.unlimited(asked, decided, offered)
        if chosen.kind in ("delegation", "tools"):
            return chosen  # they keep the limits themselves: they leave room for the calls still to come
        steps = chosen.steps or one_call(decided.tier, asked.body, {})
        return replace(chosen, steps=tightened(steps, limits, self.rungs))

    def unlimited(self, asked: Request, decided: Decision, offered: Offered) -> Chosen:
        """The same without the client's limits on the request as a whole."""
        why = self.not_offered(asked.body, decided) if offered.delegate else ""
        if offered.delegate and not why:
            return self.tool_mode(asked.body, decided, offered.delegate)
        chosen = PLAIN
        if decided.target not in self.names:
            # Tests are for one answer: parts that were put together would not have passed them.
            planned = None if asked.tests else self.delegation(asked.body, decided, offered.delegate or asked.limits)
            chosen = planned or self.escalation(asked, decided, offered)
        if chosen.steps or not why:
            return chosen
        return Chosen("direct", one_call(decided.tier, asked.body, {"delegation": "ineligible", "why": why}))

    # -- escalation ------------------------------------------------------------------------------------------------------

    def judge(
        self, p: Floats, cost: Floats, target: str, excluded: Mapping[str, str], state: str | None = None, stream: bool = False
    ) -> TrainedJudge | None:
        """Who decides after each answer; None where answers are not looked at. p, cost: (n_tiers,).

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
        return TrainedJudge(self.names, p, cost, bound, posterior, allowed, best_of=False, early=early)

    def escalation(self, asked: Request, decided: Decision, offered: Offered) -> Chosen:
        """Ask the first tiers, look at their answers, go up; a plain call where nothing is looked at.

        offered: by it smaller tiers may say that a request is beyond them, and the top tier, once there, delegates.
        """
        if several_wanted(asked.body):
            return PLAIN
        if decided.judge is None and not (offered.escalate or asked.tests):
            return self.race(asked, decided)
        names = decided.allowed(self.names)
        first = decided.first if decided.tier in decided.first else (decided.tier,)  # its session may have moved it
        if first == (names[-1],):
            return PLAIN
        shown = self.shown(names, asked.body) if offered.escalate else set()
        if decided.judge is None and not (asked.tests or decided.tier in shown):
            return PLAIN
        settings, finale = self.config.escalation, self.finale(asked, decided, offered)
        cascade = Cascade(
            asked.body,
            names,
            decided.judge or AcceptAny(),
            settings,
            asked.stream,
            shown,
            scored=decided.judge is not None,
            finale=finale,
            tests=asked.tests,
        )
        return Chosen("cascade", cascade.run(first))

    def race(self, asked: Request, decided: Decision) -> Chosen:
        """A race with the next larger tier where the one decided on is late; a plain call where no race is wanted or possible."""
        settings, place = self.config.escalation, self.names.index(decided.tier)
        larger = decided.allowed(self.names[place + 1 :])
        if settings.mode != "hedge" or not larger:
            return PLAIN
        return Chosen("race", Race(asked.body, (decided.tier, larger[0]), settings.larger_after_s).run())

    def finale(self, asked: Request, decided: Decision, offered: Offered) -> Callable[[Sequence[Reply]], Chosen] | None:
        """What the top tier does with a request that came up to it, if more than answer."""
        limits = offered.delegate
        at_top = replace(decided, tier=decided.allowed(self.names)[-1])
        if limits is None or self.not_offered(asked.body, at_top):
            return None

        def chosen(before: Sequence[Reply]) -> Chosen:
            spent = sum(self.rungs[self.names.index(reply.call.tier)].paid(reply.usage) for reply in before)
            return self.tool_mode(asked.body, at_top, limits.after(spent))

        return chosen

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
        return gates.consider(without_tools_it_forbids(body), self.rungs, settings, self.memory, route, splits, self.special)

    def delegation(self, body: Mapping[str, Any], decided: Decision, limits: Limits | None = None) -> Chosen | None:
        """Let the tier decided on plan, where all gates pass; it must be the top of those that may be asked."""
        if self.config.delegation.mode not in ("plan", "auto") or decided.tier != decided.allowed(self.names)[-1]:
            return None
        rungs, limits = self.below(decided), limits or Limits()
        settings, route = limits.tightened(self.config.delegation), self.within(rungs)
        seen = decided.considered
        if not isinstance(seen, Considered) or settings != self.config.delegation or len(rungs) < len(self.rungs):
            seen = gates.consider(without_tools_it_forbids(body), rungs, settings, self.memory, route, splits, self.special)
        if seen.state is not None:
            return None
        steps = delegate(
            body,
            rungs,
            settings,
            route,
            self.accept,
            self.memory,
            special=self.special,
            worker_fields=OWN_LOGPROBS,
            max_usd=limits.max_cost_usd,
            considered=seen,
        )
        return Chosen("delegation", steps)

    def tool_mode(self, body: Mapping[str, Any], decided: Decision, limits: Limits) -> Chosen:
        """Let the tier decided on hand work down by a call. body: without server tools."""
        rungs = self.below(decided)
        steps = tool_mode(
            body,
            rungs,
            self.config.delegation,
            limits,
            self.within(rungs),
            self.accept,
            self.memory,
            self.special,
            OWN_LOGPROBS,
            decided.allowed(self.names) if decided.target not in self.names else (),
        )
        return Chosen("tools", steps)

    def not_offered(self, body: Mapping[str, Any], decided: Decision) -> str:
        """Why `stepdown_delegate` is not shown; empty where it is."""
        tier = next(tier for tier in self.config.tiers if tier.name == decided.tier)
        beyond = beyond_flows(body)
        for found, why in (
            (decided.tier != decided.allowed(self.names)[-1], "a smaller tier answers"),
            (len(self.names) < 2 or decided.tier == self.names[0], "there is no smaller tier"),
            (not tier.tools, f"tier {tier.name} takes no tools"),
            (not server_tools.free_choice(body), "tool_choice leaves no choice"),
            (beyond, beyond),
            (body.get("functions"), "the client brings functions of the old kind"),
            (body["messages"][-1].get("role") not in ("user", "tool", "function"), "the last message is not the user's"),
        ):
            if found:
                return why
        return ""

    def below(self, decided: Decision) -> list[Rung]:
        """The tier decided on and those under it that may be asked."""
        return [rung for rung in self.rungs[: self.names.index(decided.tier) + 1] if rung.name not in decided.barred]

    # -- subtasks --------------------------------------------------------------------------------------------------------

    def within(self, rungs: Sequence[Rung]) -> gates.Route:
        """`route` for a ladder that lacks some tiers: its top takes what they would have got."""
        names = [rung.name for rung in rungs]

        def route(text: str, difficulty: str | None) -> str:
            tier = self.route(text, difficulty)
            return tier if tier in names else names[-1]

        return route

    def route(self, text: str, difficulty: str | None) -> str:
        """The tier of a subtask: the classifier's choice, which the planner's hint can only raise."""
        lowest = round(LOWEST.get(difficulty or "easy", 0.0) * (len(self.names) - 1))
        return self.names[max(lowest, self.names.index(self.cheapest(text)))]

    def cheapest(self, text: str) -> str:
        """The tier that the classifier gives a text; without a trained router the one below the top."""
        if self.artefact is None or self.guess is None or self.strict is None:
            return self.names[max(0, len(self.names) - 2)]
        judge = self.subtask_judge(text)
        if judge:
            return judge.first()[0]
        p, cost, _ = self.guess(text)
        return self.names[choose(p, cost, self.artefact.rules[self.strict])[0]]

    def subtask_judge(self, text: str) -> TrainedJudge | None:
        """Who decides about answers to a subtask; None without a trained router."""
        if self.guess is None or self.strict is None:
            return None
        p, cost, _ = self.guess(text)
        return self.judge(p, cost, self.strict, {})

    def accept(self, tier: str, text: str, reply: Reply) -> str | None:
        """None for a subtask's answer that is good enough, else why it goes up."""
        judge = self.subtask_judge(text)
        verdict = judge.next({tier: reply}) if judge else None
        return verdict.reason if isinstance(verdict, GoUp) else None
