"""The promises in force: each target's certificate, whether it covers a request, and the alarm that retires it."""

import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from classifiers import Artifact, Rule
from router.config import Escalation
from router.decide import certificates
from router.decide.certificates import HOLDBACK, Certificate
from router.decide.coverage import UNCOVERED
from router.decide.drift import Audited

log = logging.getLogger("stepdown")


class Promises:
    """The certificates of one artefact on one ladder, by name: one for each target, under holdback another for its streams.

    fingerprints: of the served ladder. States are changed by what audits find alone: `audited` counts one of this process,
    `take` replaces the counts by those of all processes, which only a database knows.
    """

    def __init__(self, artefact: Artifact | None, settings: Escalation, fingerprints: Mapping[str, Any]) -> None:
        self.settings = settings
        self.found: dict[str, Audited] = {}
        """what audits have found, by a certificate's digest; also of certificates before a reload"""
        self.unsaved: deque[tuple[Certificate, bool]] = deque()
        """audits that only this process knows: the certificate, and whether the answers differed"""
        self.unread = False
        """what was found before this process is not known yet; until it is, nothing is promised"""
        manifest, targets = (artefact.manifest, artefact.cascades) if artefact else ({}, {})
        self.targets = tuple(targets)
        held = settings.holdback_tokens if settings.mode == "holdback" else None
        # A held-back stream is accepted by its first tokens, whose score differs from that of whole answers.
        made: dict[str, tuple[str, int | None]] = {target: (target, None) for target in targets}
        made |= {target + HOLDBACK: (target, held) for target in targets if held is not None}
        self.known = {name: certificates.find_certificate(manifest, name) for name in made}
        self.digests = {name: certificates.digest(one) for name, one in self.promising().items()}
        here = {
            name: {**fingerprints, "prefix": prefix, "score": certificates.score_fingerprint(manifest, target, prefix)}
            for name, (target, prefix) in made.items()
        }
        # Computed once: every request needs its state, and only an alarm changes one.
        self.states = {name: certificates.state_of(self.known[name], here[name]) for name in made}
        self.at_first = {name: (self.known[name], self.states[name]) for name in made}
        self.why = {name: certificates.why_stale(one, here[name]) for name, one in self.promising().items()}
        self.warn()

    def warn(self) -> None:
        """Say in the log what is wrong with certificates, and how to mend it."""
        for name, why in self.why.items():
            if why:
                log.warning("the certificate of auto:%s is stale: %s", name, why)
        old = [name for name, one in self.promising().items() if self.states[name] == "valid" and one.harmless is None]
        if old and self.settings.audit_rate:
            log.warning(
                "certificates %s do not say how many differences from the top tier's answers are harmless, so audits count each "
                "as a worse answer and may retire a promise that is kept; calibrate again to have it measured",
                ", ".join(old),
            )

    def promising(self) -> dict[str, Certificate]:
        """Those that promise something, by name."""
        return {name: found for name, found in self.known.items() if isinstance(found, Certificate)}

    def name(self, target: str, stream: bool) -> str:
        """The name of the certificate that a request is under."""
        return target + HOLDBACK if stream and self.settings.mode == "holdback" else target

    def state(self, target: str, stream: bool = False) -> certificates.CertificateState:
        """The state of the certificate for whole answers, or for streams."""
        return self.states.get(self.name(target, stream), "none")

    def worst(self, target: str) -> certificates.CertificateState:
        """The state of both certificates of a target: `valid` only where both are."""
        whole = self.state(target)
        return whole if whole != "valid" else self.state(target, stream=True)

    def covering(
        self,
        target: str,
        temperature: float | None,
        stream: bool = False,
        unfamiliar: float = 0.0,
        characters: int = 0,
        divided: bool = False,
    ) -> str:
        """The state for one request, `uncovered` where a valid certificate does not cover it.

        temperature: None leaves it to the model. unfamiliar, characters: of the text that the classifier sees. divided: the
        request is asked of other tiers, in another way or in parts, unlike every prompt that a certificate is made on.
        """
        found, state = self.known.get(self.name(target, stream)), self.state(target, stream)
        if state == "none" and stream:
            whole = self.state(target)  # this certificate was made for whole answers
            return UNCOVERED if whole == "valid" else whole
        if state != "valid" or not isinstance(found, Certificate):
            return state
        sampling = found.fingerprints.get("sampling")
        same = sampling in (None, {"temperature": temperature})
        like = not divided and certificates.reaches(found, unfamiliar=unfamiliar, characters=characters)
        return state if same and like and not self.unread else UNCOVERED

    def rule(self, rule: Rule, target: str, state: str, stream: bool = False) -> Rule:
        """The rule that keeps the promise: with a valid certificate its threshold, without one as configured."""
        found = self.known.get(self.name(target, stream))
        if found is not None and state in ("valid", "infeasible"):
            return certificates.binding(rule, found)
        return replace(rule, threshold=certificates.ALWAYS_UP) if self.settings.without_certificate == "escalate" else rule

    def audited(self, target: str, error: bool, stream: bool = False) -> None:
        """Count a covered answer that was compared with the top tier's; retires the certificate if its alarm goes off."""
        name = self.name(target, stream)
        found = self.known.get(name)
        if not isinstance(found, Certificate) or self.states[name] == "retired":
            return
        self.unsaved.append((found, error))
        digest = self.digests[name]
        self.take({digest: certificates.count(found, self.found.get(digest, Audited()), error)})

    def take(self, found: Mapping[str, Audited]) -> None:
        """Go by what audits have found, by certificates' digests: retires what they retired, and no longer what was lifted."""
        self.found.update(found)
        for name, digest in self.digests.items():
            audited, one = found.get(digest), self.known[name]
            if audited is None or not isinstance(one, Certificate):
                continue
            if audited.retired and self.states[name] != "retired":
                log.warning("the certificate of auto:%s is retired: %s", name, audited.retired)
            if audited.retired:
                self.known[name], self.states[name] = certificates.retire(one, audited.retired), "retired"
            else:
                self.known[name], self.states[name] = self.at_first[name]

    def inherit(self, before: "Promises") -> None:
        """Take over what audits have found, from the promises before a reload. A certificate is known by its content."""
        self.found, self.unsaved, self.unread = before.found, before.unsaved, before.unread
        self.take(dict(before.found))
        for name, digest in self.digests.items():
            if before.states.get(name) == "retired" and before.digests.get(name) == digest:
                self.known[name], self.states[name] = before.known[name], "retired"

    def status(self) -> dict[str, dict[str, Any]]:
        """For the status page: each certificate's state, its promise, and the counts of its audits."""
        status: dict[str, dict[str, Any]] = {name: {"state": state} for name, state in self.states.items()}
        for name, found in self.known.items():
            if found is not None:
                status[name] |= {k: v for k, v in found.to_dict().items() if k not in ("kind", "fingerprints")}
        for name, digest in self.digests.items():
            status[name] |= {"digest": digest} | ({"why": self.why[name]} if self.why[name] else {})
            if audited := self.found.get(digest):
                status[name] |= {"audits": audited.audits, "audit_errors": audited.errors}
        return status
