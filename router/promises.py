"""What may be promised of a request here and now: each target's certificate, whether it covers the request, its alarm."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from classifiers import Artifact, Rule
from router import certificates
from router.certificates import Certificate, Drift
from router.config import Escalation

log = logging.getLogger("stepdown")
UNCOVERED = "uncovered"  # a valid certificate, but the request is unlike those that it was made with, or treated otherwise


class Promises:
    """The certificates of one artefact on one ladder. Changed by `audited` alone.

    fingerprints: `models` and `templates` of the ladder that is served.
    """

    def __init__(self, artefact: Artifact | None, settings: Escalation, fingerprints: Mapping[str, Any]) -> None:
        self.settings = settings
        self.drift: dict[str, Drift] = {}
        manifest, targets = (artefact.manifest, artefact.cascades) if artefact else ({}, {})
        self.known = {target: certificates.of(manifest, target) for target in targets}
        # Every request asks for its state and only an alarm changes one, so hashing is done here.
        self.states = {
            target: certificates.state(found, {**fingerprints, "score": certificates.score_fingerprint(manifest, target)})
            for target, found in self.known.items()
        }

    def state(self, target: str) -> certificates.State:
        """`valid`, `stale`, `retired`, `infeasible` or `none`."""
        return self.states.get(target, "none")

    def covering(
        self, target: str, temperature: float | None, stream: bool = False, unfamiliar: float = 0.0, characters: int = 0,
        divided: bool = False,
    ) -> str:  # fmt: skip
        """The state for one request.

        temperature: None where it asks for none, which leaves it to the model. unfamiliar, characters: of its text as the
        classifier sees it. divided: it may be answered in parts, as no prompt was that a certificate is made on.
        """
        found, state = self.known.get(target), self.state(target)
        if state != "valid" or not isinstance(found, Certificate):
            return state
        sampling, prefix = (found.fingerprints.get(name) for name in ("sampling", "prefix"))
        # A stream that is held back is accepted by its first tokens, which is another score than that of whole answers.
        held = self.settings.holdback_tokens if stream and self.settings.mode == "holdback" else None
        same = prefix == held and sampling in (None, {"temperature": temperature})
        like = not divided and certificates.reaches(found, unfamiliar=unfamiliar, characters=characters)
        return state if same and like else UNCOVERED

    def rule(self, rule: Rule, target: str, state: str) -> Rule:
        """The rule that keeps what is promised: with a valid certificate its threshold, without one as configured."""
        found = self.known.get(target)
        if found is not None and state in ("valid", "infeasible"):
            return certificates.binding(rule, found)
        return replace(rule, threshold=certificates.ALWAYS_UP) if self.settings.without_certificate == "escalate" else rule

    def audited(self, target: str, error: bool) -> None:
        """One accepted answer was compared with the top tier's. Retires the certificate when its promise is found broken."""
        found = self.known.get(target)
        if not isinstance(found, Certificate) or found.retired:
            return
        drift = self.drift.get(target, certificates.watch(found)).update(error)
        self.drift[target] = drift
        if drift.alarmed:
            why = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}: {drift.errors} of {drift.audits} audited answers differed"
            self.known[target], self.states[target] = certificates.retire(found, why), "retired"
            log.warning("the certificate of auto:%s is retired: %s", target, why)

    def told(self) -> dict[str, Any]:
        """For the status page: each target's state, what was promised, and how the audits went."""
        return {target: self.told_of(target) for target in self.known}

    def told_of(self, target: str) -> dict[str, Any]:
        found, drift = self.known[target], self.drift.get(target)
        shown: dict[str, Any] = {"state": self.state(target)}
        if found is not None:
            shown |= {k: v for k, v in found.to_dict().items() if k not in ("kind", "fingerprints")}
        return shown | ({"audits": drift.audits, "audit_errors": drift.errors} if drift else {})
