"""The promises in force: each target's certificate, whether it covers a request, and the alarm that retires it."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from classifiers import Artifact, Rule
from router.config import Escalation
from router.decide import certificates
from router.decide.certificates import HOLDBACK, Certificate, Drift

log = logging.getLogger("stepdown")
UNCOVERED = "uncovered"  # the certificate is valid, but the request or its handling differs from those it was made on


class Promises:
    """The certificates of one artefact on one ladder, by name: one for each target, under holdback another for its streams.

    fingerprints: `models` and `templates` of the served ladder. Only `audited` changes a state.
    """

    def __init__(self, artefact: Artifact | None, settings: Escalation, fingerprints: Mapping[str, Any]) -> None:
        self.settings = settings
        self.drift: dict[str, Drift] = {}
        manifest, targets = (artefact.manifest, artefact.cascades) if artefact else ({}, {})
        self.targets = tuple(targets)
        held = settings.holdback_tokens if settings.mode == "holdback" else None
        # A held-back stream is accepted by its first tokens, whose score differs from that of whole answers.
        made: dict[str, tuple[str, int | None]] = {target: (target, None) for target in targets}
        made |= {target + HOLDBACK: (target, held) for target in targets if held is not None}
        self.known = {name: certificates.find_certificate(manifest, name) for name in made}
        # Computed once: every request needs its state, and only an alarm changes one.
        self.states = {
            name: certificates.state_of(
                self.known[name],
                {**fingerprints, "prefix": prefix, "score": certificates.score_fingerprint(manifest, target, prefix)},
            )
            for name, (target, prefix) in made.items()
        }

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
        request may be answered in parts, unlike every prompt that a certificate is made on.
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
        return state if same and like else UNCOVERED

    def rule(self, rule: Rule, target: str, state: str, stream: bool = False) -> Rule:
        """The rule that keeps the promise: with a valid certificate its threshold, without one as configured."""
        found = self.known.get(self.name(target, stream))
        if found is not None and state in ("valid", "infeasible"):
            return certificates.binding(rule, found)
        return replace(rule, threshold=certificates.ALWAYS_UP) if self.settings.without_certificate == "escalate" else rule

    def audited(self, target: str, error: bool, stream: bool = False) -> None:
        """Count an accepted answer that was compared with the top tier's; retires the certificate if its alarm goes off."""
        name = self.name(target, stream)
        found = self.known.get(name)
        if not isinstance(found, Certificate) or found.retired:
            return
        drift = self.drift.get(name, certificates.watch(found)).update(error)
        self.drift[name] = drift
        if drift.alarmed:
            why = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}: {drift.errors} of {drift.audits} audited answers differed"
            self.known[name], self.states[name] = certificates.retire(found, why), "retired"
            log.warning("the certificate of auto:%s is retired: %s", name, why)

    def inherit(self, before: "Promises") -> None:
        """Take over what audits have found, from the promises of the same artefact before a reload."""
        for name in self.known:
            if before.states.get(name) == "retired":
                self.known[name], self.states[name] = before.known[name], "retired"
        self.drift = {name: drift for name, drift in before.drift.items() if name in self.known}

    def status(self) -> dict[str, dict[str, Any]]:
        """For the status page: each certificate's state, its promise, and the counts of its audits."""
        status: dict[str, dict[str, Any]] = {name: {"state": state} for name, state in self.states.items()}
        for name, found in self.known.items():
            if found is not None:
                status[name] |= {k: v for k, v in found.to_dict().items() if k not in ("kind", "fingerprints")}
        for name, drift in self.drift.items():
            status[name] |= {"audits": drift.audits, "audit_errors": drift.errors}
        return status
