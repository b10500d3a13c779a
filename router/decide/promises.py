"""What may be promised of a request here and now: each target's certificate, whether it covers the request, its alarm."""

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
UNCOVERED = "uncovered"  # a valid certificate, but the request is unlike those that it was made with, or treated otherwise


class Promises:
    """The certificates of one artefact on one ladder, by name: a target's, and under holdback that of its streams besides.

    fingerprints: `models` and `templates` of the ladder that is served. Changed by `audited` alone.
    """

    def __init__(self, artefact: Artifact | None, settings: Escalation, fingerprints: Mapping[str, Any]) -> None:
        self.settings = settings
        self.drift: dict[str, Drift] = {}
        manifest, targets = (artefact.manifest, artefact.cascades) if artefact else ({}, {})
        self.targets = tuple(targets)
        held = settings.holdback_tokens if settings.mode == "holdback" else None
        # A stream that is held back is accepted by its first tokens, which is another score than that of whole answers.
        made: dict[str, tuple[str, int | None]] = {target: (target, None) for target in targets}
        made |= {target + HOLDBACK: (target, held) for target in targets if held is not None}
        self.known = {name: certificates.of(manifest, name) for name in made}
        # Every request asks for its state and only an alarm changes one, so hashing is done here.
        self.states = {
            name: certificates.state(
                self.known[name],
                {**fingerprints, "prefix": prefix, "score": certificates.score_fingerprint(manifest, target, prefix)},
            )
            for name, (target, prefix) in made.items()
        }

    def name(self, target: str, stream: bool) -> str:
        """Of the certificate that a request is under."""
        return target + HOLDBACK if stream and self.settings.mode == "holdback" else target

    def state(self, target: str, stream: bool = False) -> certificates.State:
        """`valid`, `stale`, `retired`, `infeasible` or `none`."""
        return self.states.get(self.name(target, stream), "none")

    def worst(self, target: str) -> certificates.State:
        """Of whole answers and of streams: `valid` only where both are."""
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
        """The state for one request.

        temperature: None where it asks for none, which leaves it to the model. unfamiliar, characters: of its text as the
        classifier sees it. divided: it may be answered in parts, as no prompt was that a certificate is made on.
        """
        found, state = self.known.get(self.name(target, stream)), self.state(target, stream)
        if state == "none" and stream:
            whole = self.state(target)  # what there is was made for whole answers
            return UNCOVERED if whole == "valid" else whole
        if state != "valid" or not isinstance(found, Certificate):
            return state
        sampling = found.fingerprints.get("sampling")
        same = sampling in (None, {"temperature": temperature})
        like = not divided and certificates.reaches(found, unfamiliar=unfamiliar, characters=characters)
        return state if same and like else UNCOVERED

    def rule(self, rule: Rule, target: str, state: str, stream: bool = False) -> Rule:
        """The rule that keeps what is promised: with a valid certificate its threshold, without one as configured."""
        found = self.known.get(self.name(target, stream))
        if found is not None and state in ("valid", "infeasible"):
            return certificates.binding(rule, found)
        return replace(rule, threshold=certificates.ALWAYS_UP) if self.settings.without_certificate == "escalate" else rule

    def audited(self, target: str, error: bool, stream: bool = False) -> None:
        """One accepted answer was compared with the top tier's. Retires the certificate when its promise is found broken."""
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

    def go_on_from(self, before: "Promises") -> None:
        """Of the same artefact: what audits have found is still so."""
        for name in self.known:
            if before.states.get(name) == "retired":
                self.known[name], self.states[name] = before.known[name], "retired"
        self.drift = {name: drift for name, drift in before.drift.items() if name in self.known}

    def told(self) -> dict[str, Any]:
        """For the status page: each certificate's state, what was promised, and how the audits went."""
        return {name: self.told_of(name) for name in self.known}

    def told_of(self, name: str) -> dict[str, Any]:
        found, drift = self.known[name], self.drift.get(name)
        shown: dict[str, Any] = {"state": self.states[name]}
        if found is not None:
            shown |= {k: v for k, v in found.to_dict().items() if k not in ("kind", "fingerprints")}
        return shown | ({"audits": drift.audits, "audit_errors": drift.errors} if drift else {})
