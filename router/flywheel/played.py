"""What a router would have done with a kept request, by the router's own code: the answers are those that were kept.

`Router.decide` and `Router.flow` run as they do live; each call of the flow is answered by the tier's kept answer. So a candidate
and an incumbent are compared on the same request without asking any tier. The rest of a conversation is not known: each request
is decided as its first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from router.costs.prices import prices, token_cost_usd
from router.decide.coverage import of_answer
from router.engine import Router
from router.errors import RequestFailed, StepdownError
from router.flywheel.served import Answer, Served
from router.learn.evidence import STATISTIC_COLUMNS
from router.request.body import several_wanted
from router.request.wire import check_messages
from router.trace import FlowKind
from router.types import Call, Chosen, Commit, Decision, Flow, Reply, Request, Step, Usage

MOST_STEPS = 64  # of a flow: a guard, since none that can be played takes more than two a tier


class CannotPlay(StepdownError):
    """What a router would have done cannot be known from the kept answers; the message says why.

    refused: the router itself refuses the request.
    """

    code = "cannot_play"

    def __init__(self, why: str, refused: bool = False) -> None:
        super().__init__(why)
        self.refused = refused


@dataclass(frozen=True, slots=True)
class Played:
    """What a router would have done."""

    tier: str
    """whose answer the client would have got"""
    calls: tuple[tuple[str, float], ...]
    """(tier, USD) in the order asked"""
    cost_usd: float
    score: float | None
    """of that answer, in [0, 1]; None: it has no grade"""
    certificate: str
    """its state for this answer, as in the ledger"""
    target: str
    flow: FlowKind = "direct"

    @property
    def escalated(self) -> bool:
        """Whether a larger tier was asked after a smaller one."""
        return any(tier != self.calls[0][0] for tier, _ in self.calls)


def play(router: Router, served: Served) -> Played:
    """What the router would have done with the request. A router without an artefact takes the top tier. Raises CannotPlay."""
    if served.wanted in router.names:
        raise CannotPlay(f"the client asked for {served.wanted} by name")
    if several_wanted(served.body):
        raise CannotPlay("several answers were asked for")
    request = Request("chat/completions", served.body)
    try:
        check_messages(served.body["messages"])  # redaction may have changed more than texts
        decided = router.decide(request)
        chosen = router.flow(request, decided)
    except RequestFailed as error:
        raise CannotPlay(f"this router refuses the request ({error.code})", refused=True) from None
    if chosen.kind not in ("direct", "cascade"):
        raise CannotPlay(f"this router answers by {chosen.kind}, of which nothing is kept")
    return Player(router, served, request.stream).run(decided, chosen)


class Player:
    """Answers the calls of one request's flow."""

    def __init__(self, router: Router, served: Served, stream: bool) -> None:
        self.router, self.served, self.stream = router, served, stream
        self.calls: dict[str, tuple[str, float]] = {}
        """call id -> (tier, USD)"""

    def run(self, decided: Decision, chosen: Chosen) -> Played:
        departed = False
        if chosen.steps is None:
            tier, cost = decided.tier, self.answer(decided.tier).cost_usd
            self.calls[tier] = (tier, cost)
        else:
            end = self.end_of(chosen.steps)
            tier, departed = self.calls[end.call_id][0], end.departed
        tiers = {name for name, _ in self.calls.values()}
        grade = self.served.grades.get(tier)
        return Played(
            tier,
            tuple(self.calls.values()),
            sum(usd for _, usd in self.calls.values()),
            None if grade is None else grade.score,
            of_answer(decided, self.router.names, chosen.kind, tiers, departed),
            decided.target,
            chosen.kind,
        )

    def end_of(self, flow: Flow) -> Commit:
        """Drive the flow to its end, every call answered at once."""
        replies: Sequence[Reply] | None = None
        try:
            for _ in range(MOST_STEPS):
                step = next(flow) if replies is None else flow.send(replies)
                self.cut(step)
                replies = [self.reply(call) for call in step.start]
        except StopIteration as done:
            if isinstance(done.value, Commit):
                return done.value
            raise CannotPlay("the flow ends without a tier's answer") from None
        finally:
            flow.close()
        raise CannotPlay(f"the flow does not end within {MOST_STEPS} steps")

    def cut(self, step: Step) -> None:
        """A stream that is cancelled after its first tokens costs these only."""
        if step.kind is not None:
            raise CannotPlay(f"the flow becomes {step.kind}, of which nothing is kept")
        for name in step.cancel:
            tier, usd = self.calls[name]
            price = next(prices(one) for one in self.router.tiers if one.name == tier)
            begun = Usage(self.answer(tier).input_tokens, self.router.config.escalation.holdback_tokens)
            self.calls[name] = (tier, min(usd, token_cost_usd(begun, price)))

    def answer(self, tier: str) -> Answer:
        found = self.served.answers.get(tier)
        if found is None:
            raise CannotPlay(f"no answer of {tier} is kept")
        return found

    def reply(self, call: Call) -> Reply:
        """The kept answer as the reply to a call."""
        found = self.answer(call.tier)
        self.calls[call.id] = (call.tier, found.cost_usd)
        if call.hold and self.stream and found.output_tokens > call.hold:
            return self.begun(call, found)
        stats, first = scores_of(found.signals)
        self.check_scored(call, bool(stats))
        return Reply(
            call,
            text=found.text,
            finish_reason=found.finish,
            usage=Usage(found.input_tokens, found.output_tokens or int(found.signals.get("logprob_tokens") or 0)),
            logprobs=first,
            first_margin=found.signals.get("first_margin"),
            stats=stats,
            tool_calls=tuple(found.message.get("tool_calls") or ()),
            refusal=found.message.get("refusal") or "",
            thought=found.thought,
        )

    def begun(self, call: Call, found: Answer) -> Reply:
        """The first tokens of a stream. Their text is not known, but judging does not look at it."""
        _, first = scores_of(found.signals)
        self.check_scored(call, len(first) >= call.hold)
        return Reply(call, logprobs=first[: call.hold], first_margin=found.signals.get("first_margin"), partial=True)

    def check_scored(self, call: Call, scored: bool) -> None:
        """Raise CannotPlay where the live answer would be judged by log-probabilities that were not kept."""
        artefact, place = self.router.artefact, self.router.names.index(call.tier)
        heads = artefact.posterior.heads if artefact and artefact.posterior else {}
        if not scored and call.role == "attempt" and call.body.get("logprobs") and f"full:{place}" in heads:
            raise CannotPlay(f"the kept answer of {call.tier} has no log-probabilities to judge it by")


def scores_of(signals: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """STATISTICS of an answer's log-probabilities, and the first of these; both empty where they are not known."""
    stats = tuple(signals.get(name) for name in STATISTIC_COLUMNS)
    first = tuple(float(value) for value in signals.get("first_logprobs") or ())
    return ((), ()) if None in stats else (tuple(float(value) for value in stats), first)
