"""What may be promised of a request here and now: each target's certificate, whether it covers the request, its alarm."""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from classifiers import Artifact, Rule
from router import certificates
from router.certificates import Certificate, Drift
from router.config import Escalation
from router.judging import never

log = logging.getLogger("stepdown")
UNCOVERED = "uncovered"  # a valid certificate, but the request samples otherwise than it was made with


class Promises:
    """The certificates of one artefact on one ladder. Changed by `audited` alone.

    fingerprints: `models` and `templates` of the ladder that is served.
    """

    def __init__(self, artefact: Artifact | None, settings: Escalation, fingerprints: Mapping[str, Any]) -> None:
        self.artefact, self.settings = artefact, settings
        self.fingerprints = dict(fingerprints)
        self.drift: dict[str, Drift] = {}
        targets = artefact.cascades if artefact else {}
        self.known = {target: certificates.of(artefact.manifest, target) for target in targets} if artefact else {}

    def state(self, target: str) -> str:
        """`valid`, `stale`, `retired`, `infeasible` or `none`."""
        if self.artefact is None:
            return "none"
        here = {**self.fingerprints, "score": certificates.score_fingerprint(self.artefact.manifest, target)}
        return certificates.state(self.known.get(target), here)

    def covering(self, target: str, temperature: float | None) -> str:
        """The state for one request. temperature: None where it asks for none, which leaves it to the model."""
        found, state = self.known.get(target), self.state(target)
        made = found.fingerprints.get("sampling") if isinstance(found, Certificate) else None
        if state == "valid" and made is not None and made != {"temperature": temperature}:
            return UNCOVERED
        return state

    def rule(self, rule: Rule, target: str, state: str) -> Rule:
        """The rule that keeps what is promised: with a valid certificate its threshold, without one as configured."""
        found = self.known.get(target)
        if found is not None and state in ("valid", "infeasible"):
            return certificates.binding(rule, found)
        return never(rule) if self.settings.without_certificate == "escalate" else rule

    def audited(self, target: str, error: bool) -> None:
        """One accepted answer was compared with the top tier's. Retires the certificate when its promise is found broken."""
        found = self.known.get(target)
        if not isinstance(found, Certificate) or found.retired:
            return
        drift = self.drift.get(target, certificates.watch(found)).update(error)
        self.drift[target] = drift
        if drift.alarmed:
            why = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}: {drift.errors} of {drift.audits} audited answers differed"
            self.known[target] = certificates.retire(found, why)
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
