"""`Router` decides which tier answers a request, by constraints, classifier and rule. Deciding has no side effects."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from classifiers import Artifact, Rule, explicit
from router.cascade.code_tests import load_code_check
from router.cascade.judge import check_holdback
from router.choose_flow import PLAIN, Flows
from router.config import Config, Tier
from router.decide import aliases, policy, sessions
from router.decide.abilities import Abilities
from router.decide.targets import TARGETS, as_chance
from router.errors import BadConfig, BadRequest, ContextTooLong, UnknownModel
from router.request import server_tools, wire
from router.request.token_bounds import Reader, surely_too_long, text_length
from router.services import choice
from router.types import Chosen, Counter, Decision, Facts, Request

NOTHING: Mapping[str, str] = MappingProxyType({})


def load_artefact(config: Config) -> Artifact | None:
    """The trained router that the config names, checked against the config's ladder. Raises BadConfig."""
    from classifiers import ClassifierError, load

    if not config.routing.artefact:
        return None
    try:
        artefact = load(config.routing.artefact, config.names)
    except ClassifierError as error:
        raise BadConfig(f"routing.artefact: {error}") from None
    check_holdback(config.escalation, artefact.posterior)
    return artefact


class Router:
    """Decides for one ladder. artefact: None means that `auto` is the top tier. count: by tier.

    abilities: what the tiers can do; None: what their settings say.
    """

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
        self.tiers: Sequence[Tier] = config.tiers
        self.names = config.names
        self.artefact = artefact
        self.count = count
        self.fingerprints = fingerprints or {}
        """of the served ladder: `models`, tier -> fingerprint, and others"""
        self.default = str(config.routing.target)
        self.targets = list(artefact.rules) if artefact else list(TARGETS)
        self.rule(self.default)  # stops the start if the target does not exist
        self.abilities = abilities or Abilities(config.tiers)
        self.flows = Flows(config, artefact, count, special, fingerprints, self.abilities)
        self.check = load_code_check(config.escalation.tests)
        """runs the tests that come with a request; None: such requests are refused"""

    def rule(self, target: str) -> Rule | None:
        """The rule of a target; None: there is no artefact. Raises BadConfig for an unknown target."""
        named = self.artefact.rules if self.artefact else {}
        if target in named:
            return named[target]
        chance = as_chance(target)
        if chance is None and target not in TARGETS:
            known = ", ".join([*TARGETS, "a chance from 0 to 1"])
            raise BadConfig(f"routing.target: {target!r} is none of {known}")
        if chance is None and self.artefact:
            raise BadConfig(f"routing.target: the artefact has no target {target!r}; set it with `stepdown calibrate`")
        return explicit(chance) if chance is not None and self.artefact else None

    def target_of(self, wanted: str) -> str | None:
        """`auto` -> the configured target, `auto:X` -> X, a tier's name -> None. Raises UnknownModel, WrongKind."""
        if wanted in self.names:
            return None
        head, colon, target = wanted.partition(":")
        if head == "auto" and not colon:
            return self.default
        if head == "auto" and (target in self.targets or as_chance(target) is not None):
            return target
        choice.check_chat(self.config, wanted)
        raise UnknownModel(wanted, list(self.names), self.targets)

    def stands_for(self, name: str) -> str:
        """What an alias stands for; other names stand for themselves."""
        return aliases.resolved(name, self.config.aliases, self.config.served_names) if self.config.aliases else name

    def named(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """The body with the model that an alias stands for."""
        wanted = body.get("model")
        found = self.stands_for(wanted) if isinstance(wanted, str) else wanted
        return body if found == wanted else {**body, "model": found}

    def count_prompt(self, request: Request) -> int:
        """Tokens of the prompt as the tier with the largest window reads it, of those that may answer. Raises UnknownModel."""
        wanted = str(request.body["model"])
        among = self.tiers if self.target_of(wanted) is not None else [tier for tier in self.tiers if tier.name == wanted]
        widest = max(among, key=lambda tier: tier.context)
        return Reader.of(widest, self.count[widest.name]).counted(request.body)

    def read_ahead(self, request: Request) -> None:
        """Do the slow part of `decide` in advance; see Artifact.read_ahead. Raises UnknownModel."""
        if self.artefact is not None and self.target_of(str(request.body["model"])) is not None:
            self.artefact.read_ahead(wire.facts(request).text)

    def refuse_too_long(self, request: Request, length: int) -> None:
        """Refuse what no tier's window can hold by its length alone, before anything is tokenized. Raises ContextTooLong.

        length: see `text_length`.
        """
        wanted = str(request.body["model"])
        tiers = [tier for tier in self.tiers if tier.name == wanted or wanted not in self.names]
        readers = [Reader.of(tier, self.count[tier.name]) for tier in tiers]
        if surely_too_long(length, readers):
            widest = max(readers, key=lambda reader: reader.context)
            raise ContextTooLong(widest.least(length), widest.context, True)

    def decide(self, request: Request, before: str | None = None, barred: Mapping[str, str] = NOTHING) -> Decision:
        """Where the request goes. Raises BadRequest, UnknownModel.

        before: the tier of its conversation so far. barred: tiers that may not be asked at all, each with the reason.
        """
        length = text_length(request.body)
        self.refuse_too_long(request, length)
        server_tools.check_mode(request.body, self.config.delegation.mode)
        if request.tests and self.check is None:
            raise BadRequest("`stepdown.tests`: this server runs no tests; escalation.tests of its configuration names what does")
        may_plan = request.body["model"] not in self.names[:-1]  # a smaller tier that was asked for by name never plans
        facts, top = wire.facts(request), self.tiers[-1]
        may_plan = may_plan and not surely_too_long(length, [Reader.of(top, self.count[top.name])])
        estimate = self.flows.estimate(server_tools.without(request.body)) if may_plan else None
        # The classifier predicts costs of plain calls; a request that can be divided costs the top tier less.
        share = estimate.delegated_usd / estimate.direct_usd if estimate and not estimate.state and estimate.direct_usd else None
        decided = self.decide_facts(facts, before, request.body.get("messages") or [], share, barred)
        return replace(decided, considered=None if barred else estimate, barred=frozenset(barred))

    def flow(self, asked: Request, decided: Decision) -> Chosen:
        """The flow that answers the request."""
        if asked.path != "chat/completions":
            return PLAIN
        body = server_tools.without(asked.body)
        return self.flows.choose(replace(asked, body=body), decided, server_tools.offered(asked.body))

    def decide_facts(
        self,
        facts: Facts,
        before: str | None = None,
        messages: Sequence[Mapping[str, Any]] = (),
        share: float | None = None,
        barred: Mapping[str, str] = NOTHING,
    ) -> Decision:
        """share: expected cost of delegation, as a share of the top tier's plain call; None: the request is not divided."""
        target = self.target_of(facts.wanted)
        asked = [t for t in self.tiers if t.name == facts.wanted or (target is not None and t.name not in barred)]
        excluded = {**policy.exclude(facts, asked, self.count, self.abilities, self.config.routing.answer_reserve), **barred}
        if not [t for t in asked if t.name not in excluded]:
            policy.refuse(facts, asked, self.count, excluded, self.abilities)
        if target is not None and facts.one_answer:
            excluded |= self.flows.not_judgeable(target, excluded)
        if target is None:
            return Decision(facts.wanted, "asked for", facts.wanted)
        rule = self.rule(target)
        if rule is None or self.artefact is None:
            top = next(t.name for t in reversed(self.tiers) if t.name not in excluded)
            return Decision(top, "fixed", target, {}, excluded)
        p, cost, unfamiliar = self.artefact.guess_one(facts.text)
        divided = share is not None
        if share is not None:
            cost = np.append(cost[:-1], cost[-1] * share)
        decided = policy.pick(self.names, p, cost, rule, target, excluded)
        promises, size = self.flows.promises, len(facts.text)
        other = divided or bool(excluded) or not facts.as_measured
        state = promises.covering(target, facts.temperature, facts.stream, unfamiliar, size, other)
        judge = self.flows.judge(p, cost, target, excluded, state, facts.stream) if facts.one_answer else None
        first = judge.first() if judge else ()
        decided = replace(  # only once: it is the slowest step of a decision outside numpy
            decided,
            tier=first[0] if first else decided.tier,
            first=first,
            judge=judge,
            certificate=state if facts.one_answer and self.flows.judges(target) else "",
            unfamiliar=round(unfamiliar, 4),
            cost={name: usd for name, usd in zip(self.names, cost.tolist(), strict=True) if name in decided.p},
        )
        return sessions.stay(decided, before, self.names, p, cost, rule, messages) if before else decided
