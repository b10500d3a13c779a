"""Judges replies by the artefact: translates between a flow's tier names and replies and next_step's positions and evidence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from classifiers import Rule
from classifiers.choose import Floats
from classifiers.replies.answers import final_answer, same
from classifiers.replies.posterior import Posterior
from classifiers.replies.signals import Evidence
from router.cascade import next_step
from router.config import Escalation
from router.errors import BadConfig
from router.types import Accept, GoUp, Reply


def evidence_of(reply: Reply) -> Evidence:
    """What a reply says about its own quality."""
    return Evidence(
        output_tokens=reply.usage.output_tokens or len(reply.logprobs),
        finish_reason=reply.finish_reason,
        has_answer=bool(reply.text.strip()),
        answer=None if reply.partial else final_answer(reply.text),
        logprobs=reply.logprobs,
        first_margin=reply.first_margin,
        stats=reply.stats,
    )


def check_holdback(settings: Escalation, posterior: Posterior | None) -> None:
    """Refuse to judge first tokens if the artefact was not trained on as many. Raises BadConfig."""
    if settings.mode != "holdback":
        return
    heads = [] if posterior is None else [name for name in posterior.heads if name.startswith("prefix:")]
    if posterior is None or len(heads) < posterior.n_tiers - 1:
        raise BadConfig(
            f"escalation.mode: holdback, but the artefact has heads on first tokens for {len(heads)} tiers, "
            "expected all below the top; train it on outcomes with log-probabilities (`stepdown label`), or use mode: buffer"
        )
    if settings.holdback_tokens != posterior.prefix:
        raise BadConfig(
            f"escalation.holdback_tokens: {settings.holdback_tokens}, expected {posterior.prefix}, the number the artefact was "
            f"trained on; set that, or train again with --prefix {settings.holdback_tokens}"
        )


@dataclass(frozen=True, slots=True)
class TrainedJudge:
    """A `types.Judge` that goes by the artefact's posterior. prior, cost: (n_tiers,)."""

    names: Sequence[str]
    prior: Floats
    cost: Floats
    rule: Rule
    posterior: Posterior
    allowed: tuple[int, ...]
    """positions of the tiers that may be asked, ascending"""
    best_of: bool = True
    """a smaller tier's answer may still be accepted once the top tier has answered"""
    early: bool = False
    """streams are judged by their first tokens, each alone: unfinished answers cannot be compared"""

    def step(self, answers: Mapping[str, Reply]) -> next_step.NextStep:
        answered = {self.names.index(tier): evidence_of(reply) for tier, reply in answers.items()}
        prefix = self.posterior.prefix if self.early and answers and self.is_long(answers) else None
        given = (self.prior, self.cost, answered, self.rule, self.posterior, self.allowed)
        return next_step.step(*given, comparable=not self.early, best_of=self.best_of, prefix=prefix)

    def is_long(self, answers: Mapping[str, Reply]) -> bool:
        """Whether the largest tier's answer is longer than the judged prefix, even if it all came in one chunk."""
        last = answers[max(answers, key=self.names.index)]
        return last.partial or len(last.logprobs) > self.posterior.prefix

    def first(self) -> tuple[str, ...]:
        """The tiers to ask first."""
        asked = self.step({})
        assert isinstance(asked, next_step.AskTiers)
        return tuple(self.names[k] for k in asked.tiers)

    def next(self, answers: Mapping[str, Reply]) -> Accept | GoUp:
        made = self.step(answers)
        if isinstance(made, next_step.AcceptTier):
            return Accept(self.names[made.tier])
        return GoUp(tuple(self.names[k] for k in made.tiers), escalation_reason(list(answers.values()), self.rule))


def escalation_reason(replies: Sequence[Reply], rule: Rule) -> str:
    if rule.threshold > 1:
        return "no certificate"
    if not any(reply.logprobs or reply.stats for reply in replies):
        return "no evidence"
    if len(replies) > 1 and same(*(final_answer(reply.text) for reply in replies[-2:])) is False:
        return "disagreement"
    return "low confidence"
