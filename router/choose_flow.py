"""Chooses the flow that answers a request, and how its parts are routed and judged."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from classifiers import Artifact, choose
from classifiers.choose import Floats
from classifiers.parts.decomposability import splits
from router.cascade.call_outcomes import CallOutcomes
from router.cascade.flow import AcceptAny, Cascade, without_logprobs
from router.cascade.judge import TrainedJudge
from router.cascade.other_tiers import OtherTiers
from router.cascade.race import Race
from router.client_options import ClientLimits, OfferedTools
from router.config import Config, Delegation, Tier
from router.costs.prices import per_token
from router.decide.abilities import Abilities
from router.decide.promises import Promises
from router.delegate import gates
from router.delegate.gates import Considered
from router.delegate.memory import Memory
from router.delegate.planned import delegate
from router.delegate.tool_mode import tool_mode
from router.limits.client_limits import limit_flow
from router.limits.delegation_budget import Rung
from router.request import server_tools
from router.request.body import beyond_flows, continues, several_wanted
from router.types import Call, Chosen, Commit, Counter, Decision, Fail, Flow, GoUp, Reply, Request, Step

# Subtasks are judged by the strictest target that the artefact has: one wrong part spoils the whole answer.
STRICTEST = ("quality", "balanced", "cheap")
# The planner's hint of difficulty -> the lowest tier that it allows, as a share of the ladder's height.
LOWEST = {"trivial": 0.0, "easy": 0.0, "medium": 0.34, "hard": 1.0}
OWN_LOGPROBS = {"logprobs": True, "top_logprobs": 2}
PLAIN = Chosen("direct")


def one_call(tier: str, body: Mapping[str, Any], report: Mapping[str, Any], others: OtherTiers | None = None) -> Flow:
    """One plain call as a flow, for a request with limits or whose answer has something to report.

    others: called where that tier cannot answer.
    """
    others, outcomes, name = others or OtherTiers(), CallOutcomes(), "final"
    while True:
        call = Call(name, tier, "final", body, hold=1, committed=True)
        reply = (yield Step((call,), outcomes=outcomes.new(), phase=f"asking {tier}"))[0]
        if reply.error is None:
            outcomes.set(call.id, "accepted")
            return Commit(call.id, outcomes=outcomes.new(), report=report)
        outcomes.set(call.id, reply.error.outcome)
        following = others.after(reply.error)
        if not following:
            return Fail(others.error(), outcomes.new(), report)
        tier, name = following, f"final-{following}"


def rung(tier: Tier, count: Counter, reserve: int) -> Rung:
    """A tier as flows use it."""
    sent = 1 if tier.hedge_after_s is None else 2
    return Rung(tier.name, tier.context, *per_token(tier), count, tier.image_tokens, sent, reserve)


class Flows:
    """Chooses flows for one ladder. special: all special tokens of the tiers' tokenizers."""

    def __init__(
        self,
        config: Config,
        artefact: Artifact | None,
        count: Mapping[str, Counter],
        special: Sequence[str] = (),
        fingerprints: Mapping[str, Any] | None = None,
        abilities: Abilities | None = None,
    ) -> None:
        self.config = config
        self.abilities = abilities or Abilities(config.tiers)
        self.artefact = artefact
        self.special = special
        self.names = config.names
        self.memory = Memory()
        self.promises = Promises(artefact, config.escalation, fingerprints or {})
        self.rungs = [rung(tier, count[tier.name], config.routing.answer_reserve) for tier in config.tiers]
        # Cached because a subtask's gates, price, tier and judge all need the guess for the same text.
        self.guess = lru_cache(maxsize=256)(artefact.guess_one) if artefact else None
        self.strict = next((name for name in STRICTEST if artefact and name in artefact.rules), None)

    def choose(self, asked: Request, decided: Decision, offered: OfferedTools) -> Chosen:
        """The flow of a chat request, within the client's own limits. asked: without the server tools, which are in `offered`."""
        chosen, unscored = self.limited(asked, decided, offered), self.abilities.lacking("logprobs")
        return replace(chosen, steps=without_logprobs(chosen.steps, unscored)) if chosen.steps and unscored else chosen

    def limited(self, asked: Request, decided: Decision, offered: OfferedTools) -> Chosen:
        """The same, where calls may ask any tier for log-probabilities."""
        limits = asked.limits
        if limits is None:
            return self.unlimited(asked, decided, offered)
        if offered.delegate:
            offered = replace(offered, delegate=offered.delegate.combined_with(limits))
        chosen = self.unlimited(asked, decided, offered)
        if chosen.kind in ("delegation", "tools"):
            return chosen  # these flows keep the limits themselves, to leave room for the calls still to come
        steps = chosen.steps or one_call(decided.tier, asked.body, {}, OtherTiers.of(decided))
        return replace(chosen, steps=limit_flow(steps, limits, self.rungs))

    def unlimited(self, asked: Request, decided: Decision, offered: OfferedTools) -> Chosen:
        """The same without the client's limits on the request as a whole."""
        why = self.why_no_delegation(asked.body, decided) if offered.delegate else ""
        if offered.delegate and not why:
            return self.tool_mode(asked.body, decided, offered.delegate)
        chosen = PLAIN
        if decided.target not in self.names:
            # Tests are for one answer. The parts of a composed answer would not have passed them.
            planned = None if asked.tests else self.delegation(asked.body, decided, offered.delegate or asked.limits)
            chosen = planned or self.escalation(asked, decided, offered)
        if chosen.steps or not why:
            return chosen
        report = {"delegation": "ineligible", "why": why}
        return Chosen("direct", one_call(decided.tier, asked.body, report, OtherTiers.of(decided)))

    # -- escalation ------------------------------------------------------------------------------------------------------

    def judge(
        self, p: Floats, cost: Floats, target: str, excluded: Mapping[str, str], state: str | None = None, stream: bool = False
    ) -> TrainedJudge | None:
        """Judges the answers to one request; None: answers are not judged. p, cost: (n_tiers,).

        state: of the certificate for this request; None for a subtask, which no certificate covers.
        """
        allowed = tuple(i for i, name in enumerate(self.names) if name not in excluded)
        if self.artefact is None or not self.judges(target) or len(allowed) < 2:
            return None
        posterior, rule = self.artefact.posterior, self.artefact.cascades[target]
        assert posterior is not None
        bound = rule if state is None else self.promises.rule(rule, target, state, stream)
        early = stream and self.config.escalation.mode == "holdback"
        return TrainedJudge(self.names, p, cost, bound, posterior, allowed, best_of=False, early=early)

    def judges(self, target: str) -> bool:
        """Whether answers under this target are judged before they are accepted, which is what certificates are about."""
        found = self.artefact
        return found is not None and self.config.escalation.looks and found.posterior is not None and target in found.cascades

    def not_judgeable(self, target: str, excluded: Mapping[str, str]) -> dict[str, str]:
        """Tiers whose answers would have to be judged and cannot be, each with the reason. The largest one's need no judging."""
        if not self.judges(target):
            return {}
        below = [name for name in self.names if name not in excluded][:-1]
        return {name: why for name in below if (why := self.abilities.lack(name, "logprobs"))}

    def escalation(self, asked: Request, decided: Decision, offered: OfferedTools) -> Chosen:
        """A cascade from the first tiers upwards; a race or a plain call if answers are not judged."""
        if several_wanted(asked.body) or continues(asked.body):
            return PLAIN
        if decided.judge is None and not (offered.escalate or asked.tests):
            return self.race(asked, decided)
        names = decided.allowed(self.names)
        first = decided.first if decided.tier in decided.first else (decided.tier,)  # a session may have moved it to another tier
        if first == (names[-1],):
            return PLAIN
        escalating = self.tiers_with_escalate(names, asked.body) if offered.escalate else set()
        if decided.judge is None and not (asked.tests or decided.tier in escalating):
            return PLAIN
        cascade = Cascade(
            asked.body,
            names,
            decided.judge or AcceptAny(),
            self.config.escalation,
            asked.stream,
            escalating,
            scored=decided.judge is not None,
            top_flow=self.top_flow(asked, decided, offered),
            tests=asked.tests,
            windows={rung.name: rung.context for rung in self.rungs},
        )
        return Chosen("cascade", cascade.run(first))

    def race(self, asked: Request, decided: Decision) -> Chosen:
        """A race against the next larger tier in case the chosen one is late; a plain call if that is off or there is none."""
        settings, place = self.config.escalation, self.names.index(decided.tier)
        larger = decided.allowed(self.names[place + 1 :])
        if settings.mode != "hedge" or not larger:
            return PLAIN
        window = self.rungs[place].context
        wider = next((name for name in larger if self.rungs[self.names.index(name)].context > window), None)
        return Chosen("race", Race(asked.body, (decided.tier, larger[0]), settings.larger_after_s, wider).run())

    def top_flow(self, asked: Request, decided: Decision, offered: OfferedTools) -> Callable[[Sequence[Reply]], Chosen] | None:
        """Tool mode for a request that escalates to the top tier, if the client offers it; else None, for a plain call."""
        limits = offered.delegate
        at_top = replace(decided, tier=decided.allowed(self.names)[-1])
        if limits is None or self.why_no_delegation(asked.body, at_top):
            return None

        def chosen(before: Sequence[Reply]) -> Chosen:
            spent = sum(self.rungs[self.names.index(reply.call.tier)].paid(reply.usage) for reply in before)
            return self.tool_mode(asked.body, at_top, limits.after_spending(spent))

        return chosen

    def tiers_with_escalate(self, names: Sequence[str], body: Mapping[str, Any]) -> set[str]:
        """The tiers that are offered `stepdown_escalate`: all below the top that take tools."""
        able = set(names[:-1]) - set(self.abilities.lacking("tools"))
        return able if server_tools.may_escalate(body) else set()

    # -- delegation ------------------------------------------------------------------------------------------------------

    def estimate(self, body: Mapping[str, Any]) -> Considered | None:
        """What the gates find; None: delegation by plans is off."""
        if self.config.delegation.mode not in ("plan", "auto") or "messages" not in body:
            return None
        return self.consider(body, self.rungs, self.config.delegation)

    def consider(self, body: Mapping[str, Any], rungs: Sequence[Rung], settings: Delegation) -> Considered:
        if body.get("tool_choice") == "none":  # the client asks for a plain answer, which may be planned
            body = server_tools.with_tools(body, [])
        return gates.consider(body, rungs, settings, self.memory, self.route_within(rungs), splits, self.special)

    def delegation(self, body: Mapping[str, Any], decided: Decision, limits: ClientLimits | None) -> Chosen | None:
        """Delegation planned by the chosen tier; None: a gate is closed, or it is not the largest that may be asked."""
        if self.config.delegation.mode not in ("plan", "auto") or decided.tier != decided.allowed(self.names)[-1]:
            return None
        rungs, limits = self.rungs_below(decided), limits or ClientLimits()
        settings, estimate = limits.applied_to(self.config.delegation), decided.considered
        if not isinstance(estimate, Considered) or settings != self.config.delegation or len(rungs) < len(self.rungs):
            estimate = self.consider(body, rungs, settings)
        if estimate.state is not None:
            return None
        steps = delegate(
            body,
            rungs,
            settings,
            self.route_within(rungs),
            self.escalation_reason,
            self.memory,
            special=self.special,
            worker_fields=OWN_LOGPROBS,
            max_usd=limits.max_cost_usd,
            considered=estimate,
        )
        return Chosen("delegation", steps)

    def tool_mode(self, body: Mapping[str, Any], decided: Decision, limits: ClientLimits) -> Chosen:
        """Delegation by a tool of the chosen tier. body: without server tools."""
        rungs = self.rungs_below(decided)
        steps = tool_mode(
            body,
            rungs,
            self.config.delegation,
            limits,
            self.route_within(rungs),
            self.escalation_reason,
            self.memory,
            self.special,
            OWN_LOGPROBS,
            decided.allowed(self.names) if decided.target not in self.names else (),
        )
        return Chosen("tools", steps)

    def why_no_delegation(self, body: Mapping[str, Any], decided: Decision) -> str:
        """Why `stepdown_delegate` is not offered to the chosen tier; empty: it is."""
        beyond, no_tools = beyond_flows(body), self.abilities.lack(decided.tier, "tools")
        reasons = (
            (decided.tier != decided.allowed(self.names)[-1], "a smaller tier answers"),
            (len(self.names) < 2 or decided.tier == self.names[0], "there is no smaller tier"),
            (no_tools, f"tier {decided.tier} {no_tools}"),
            (not server_tools.free_choice(body), "tool_choice leaves no choice"),
            (beyond, beyond),
            (body.get("functions"), "the client brings functions of the old kind"),
            (body["messages"][-1].get("role") not in ("user", "tool", "function"), "the last message is not the user's"),
        )
        return next((why for found, why in reasons if found), "")

    def rungs_below(self, decided: Decision) -> list[Rung]:
        """The chosen tier and those below it that may be asked, and answer chats."""
        out = {*decided.barred, *self.abilities.lacking("chat")}
        return [rung for rung in self.rungs[: self.names.index(decided.tier) + 1] if rung.name not in out]

    # -- subtasks --------------------------------------------------------------------------------------------------------

    def route_within(self, rungs: Sequence[Rung]) -> gates.Route:
        """`route` for a ladder that lacks some tiers: its top tier replaces them."""
        names = [rung.name for rung in rungs]

        def route(text: str, difficulty: str | None) -> str:
            tier = self.route(text, difficulty)
            return tier if tier in names else names[-1]

        return route

    def route(self, text: str, difficulty: str | None) -> str:
        """The tier of a subtask: the classifier's choice, or a larger one if the planner's hint asks for it."""
        lowest = round(LOWEST.get(difficulty or "easy", 0.0) * (len(self.names) - 1))
        return self.names[max(lowest, self.names.index(self.cheapest(text)))]

    def cheapest(self, text: str) -> str:
        """The tier that the classifier chooses; without an artefact the one below the top."""
        if self.artefact is None or self.guess is None or self.strict is None:
            return self.names[max(0, len(self.names) - 2)]
        judge = self.subtask_judge(text)
        if judge:
            return judge.first()[0]
        p, cost, _ = self.guess(text)
        return self.names[choose(p, cost, self.artefact.rules[self.strict])[0]]

    def subtask_judge(self, text: str) -> TrainedJudge | None:
        """Judges the answers to a subtask; None: they are not judged."""
        if self.guess is None or self.strict is None:
            return None
        p, cost, _ = self.guess(text)
        return self.judge(p, cost, self.strict, {})

    def escalation_reason(self, tier: str, text: str, reply: Reply) -> str | None:
        """Why the answer to a subtask is escalated; None: it is good enough."""
        judge = self.subtask_judge(text)
        verdict = judge.next({tier: reply}) if judge else None
        return verdict.reason if isinstance(verdict, GoUp) else None
