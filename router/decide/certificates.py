"""Certificates: an upper bound on how often a smaller tier's answer is returned though the top tier's was better.

Learn-then-Test (arXiv 2110.01052) on the risk over all traffic, R(t) = P(a smaller tier's answer had chance >= t, was
returned, and was worse than the top tier's). R only grows as t falls, so thresholds are tried from strict to lax in a
fixed order, each by an exact binomial test, up to the first that fails. Then R(threshold) <= alpha with confidence
1 - delta, however well the chances are calibrated. The risk given acceptance has no such order and is not promised.

A certificate holds while traffic stays the same. Audits (accepted answers that the top tier is asked for as well) feed its
alarm, see drift.py: while the promise holds, the chance that it ever goes off is at most 0.1.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from classifiers.choose import Floats, Rule
from router.decide.drift import BOUND_ERROR, Audited, Drift, alarm_of

CertificateState = Literal["valid", "stale", "retired", "infeasible", "none"]
ALWAYS_UP = 2.0  # a threshold that no chance reaches
# Fixed before any row is seen; finest near 1, where most chances are.
THRESHOLDS = np.concatenate([1 - np.geomspace(1e-4, 0.1, 40), np.linspace(0.895, 0.0, 180)])
HOLDBACK = ":holdback"  # suffix of a target's name: its certificate for streams, which are accepted by their first tokens
REACH = 0.99  # quantile of the certificate's own prompts that bounds the requests it covers; beyond it they are too few


@dataclass(frozen=True, slots=True)
class Certificate:
    """R(threshold) <= alpha with confidence 1 - delta, from k losses among n prompts."""

    threshold: float
    """least chance at which a smaller tier's answer is accepted, in [0, 1]"""
    alpha: float
    delta: float
    n: int
    k: int
    coverage: float
    """share of the n prompts on which a smaller tier's answer was returned"""
    bound: float
    """upper bound of the risk, at most alpha"""
    rule: str = ""
    """its target, `balanced`, or that target's streams under holdback, `balanced:holdback`"""
    fingerprints: Mapping[str, Any] = field(default_factory=dict)
    """what it depends on: `models`, `templates`, `sampling`, `score`; for streams also `prefix`, the tokens looked at"""
    created: str = ""
    """UTC, ISO 8601"""
    retired: str = ""
    """when and why its promise was found broken; empty: it is not retired"""
    reach: Mapping[str, float] = field(default_factory=dict)
    """upper bounds of `unfamiliar` and `characters`, by `reach_of`; a request beyond them is not covered"""
    comparable: float = 0.0
    """share of the n prompts on which a smaller tier's answer was returned and could be compared with the top tier's"""
    harmless: float | None = None
    """upper bound of the share of those on which the two answers differed and the top tier's was not better; None: never
    measured, then the alarm takes every difference for a worse answer"""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"kind": "certificate", **asdict(self), "fingerprints": dict(self.fingerprints), "reach": dict(self.reach)}


@dataclass(frozen=True, slots=True)
class Infeasible:
    """No certificate is possible, so every request goes to the top tier."""

    alpha: float
    delta: float
    n: int
    reason: str
    base_risk: float = math.nan
    """risk of returning every answer that the rule alone would"""
    rule: str = ""
    created: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; NaN (not known) becomes None."""
        return {"kind": "infeasible", **asdict(self), "base_risk": None if math.isnan(self.base_risk) else self.base_risk}


@dataclass(frozen=True, slots=True)
class Point:
    """One threshold of the feasible region: its coverage, its k losses and their share, and the bound that decides."""

    threshold: float
    coverage: float
    k: int
    risk: float
    bound: float


def from_dict(data: Mapping[str, Any]) -> Certificate | Infeasible:
    """What to_dict gave."""
    rest = {key: value for key, value in data.items() if key != "kind"}
    if data["kind"] == "infeasible":
        return Infeasible(**{**rest, "base_risk": math.nan if rest["base_risk"] is None else rest["base_risk"]})
    return Certificate(**rest)


def find_certificate(manifest: Mapping[str, Any], rule: str) -> Certificate | Infeasible | None:
    """The certificate of that name (`balanced`, `balanced:holdback`) in an artefact's manifest."""
    found = manifest.get("certificates", {}).get(rule)
    return None if found is None else from_dict(found)


def upper_bound(k: Any, n: int, delta: float) -> Floats:
    """Clopper-Pearson bound: the risk at which k or fewer losses among n have probability delta. k: any shape."""
    k = np.asarray(k)
    return np.where(k >= n, 1.0, beta.ppf(1 - delta, np.minimum(k, n - 1) + 1, n - np.minimum(k, n - 1)))


def region(scores: Floats, loss: Floats, delta: float, thresholds: Floats = THRESHOLDS) -> list[Point]:
    """A point for every threshold, from strict to lax. scores, loss: (n,), see certify."""
    n = len(scores)
    order = np.argsort(-scores, kind="stable")
    falling, lost = -scores[order], np.concatenate([[0], np.cumsum(loss[order])])
    accepted = np.searchsorted(falling, -thresholds, side="right")
    k = lost[accepted].astype(int)
    bounds = upper_bound(k, n, delta)
    columns = zip(thresholds.tolist(), accepted.tolist(), k.tolist(), bounds.tolist(), strict=True)
    return [Point(t, a / n, b, b / n, u) for t, a, b, u in columns]


def certify(
    scores: Floats, loss: Floats, alpha: float, delta: float, rule: str = "", differs: Floats | None = None
) -> Certificate | Infeasible:
    """The laxest threshold that keeps the promise.

    scores: (n,) chance of the smaller tier's answer that the rule would return, -inf where it asked the top tier itself.
    loss: (n,) 1 where that answer was worse than the top tier's, else 0. No row may have been trained on.
    differs: (n,) 1 where it differed from the top tier's, 0 where it did not, NaN where they cannot be compared. None: not known.
    """
    n, known = len(scores), np.isfinite(scores)
    mu = float((loss * known).mean()) if n else math.nan
    fewest = fewest_rows(alpha, delta)
    if n < fewest:
        return Infeasible(alpha, delta, n, f"{n} rows; even without a loss {fewest} are needed", mu, rule)
    last: Point | None = None
    for point in region(scores, loss * known, delta):
        if point.bound > alpha:
            break
        last = point
    if last is None or not last.coverage:
        return Infeasible(alpha, delta, n, "no threshold keeps the promise and lets a smaller tier answer", mu, rule)
    found = Certificate(last.threshold, alpha, delta, n, last.k, last.coverage, last.bound, rule)
    return found if differs is None else measured(found, scores >= last.threshold, loss, differs)


def measured(found: Certificate, accepted: NDArray[np.bool_], loss: Floats, differs: Floats) -> Certificate:
    """The certificate with what its alarm needs to know of the accepted answers (n,), if any of them can be compared."""
    compared = accepted & np.isfinite(differs)
    m = int(compared.sum())
    if not m:
        return found
    k = int((compared & (differs > 0) & ~(loss > 0)).sum())
    return replace(found, comparable=m / len(accepted), harmless=float(upper_bound(k, m, BOUND_ERROR)))


def reach_of(unfamiliar: Floats, texts: Sequence[str]) -> dict[str, float]:
    """The bounds that a certificate made on these prompts covers. unfamiliar: (n,) by the classifier."""
    seen = {"unfamiliar": unfamiliar, "characters": np.array([len(text) for text in texts], dtype=float)}
    return {name: float(np.quantile(values, REACH)) for name, values in seen.items()}


def reaches(certificate: Certificate, **request: float) -> bool:
    """Whether a request is within the certificate's bounds. A certificate without bounds covers every request."""
    return all(request[name] <= most for name, most in certificate.reach.items() if name in request)


def fewest_rows(alpha: float, delta: float) -> int:
    """Rows needed to certify anything: (1 - alpha)^n <= delta."""
    return math.ceil(math.log(delta) / math.log1p(-alpha))


def deferral(base_risk: float, alpha: float) -> float:
    """Least share of traffic that any rule must send up where returning every answer has that risk (arXiv 2606.29054)."""
    return max(0.0, (base_risk - alpha) / (1 - alpha))


def binding(rule: Rule, found: Certificate | Infeasible) -> Rule:
    """The rule with the certified threshold, or one that always goes up."""
    return replace(rule, threshold=found.threshold if isinstance(found, Certificate) else ALWAYS_UP)


def state_of(certificate: Certificate | Infeasible | None, fingerprints: Mapping[str, Any]) -> CertificateState:
    """Whether a certificate is valid on a ladder with these fingerprints."""
    if certificate is None:
        return "none"
    if isinstance(certificate, Infeasible):
        return "infeasible"
    if certificate.retired:
        return "retired"
    return "stale" if why_stale(certificate, fingerprints) else "valid"


def why_stale(certificate: Certificate, fingerprints: Mapping[str, Any]) -> str:
    """Why a certificate does not fit a ladder with these fingerprints, and how to mend it; empty: it fits.

    A fingerprint that one side lacks is not compared, except that a certificate has to know its models. One that knows them
    only by the form before FORM is compared with the ladder's fingerprints of that form, which stand under `before`.
    """
    made, mend = certificate.fingerprints, "calibrate again on answers of this ladder, with --config"
    if "models" in fingerprints and "models" not in made:
        return f"made without --config, so it does not know for which models; {mend}"
    here = fingerprints
    if "models" in made and made.get("form") != fingerprints.get("form"):
        here = {**fingerprints, **fingerprints.get("before", {}), "form": made.get("form")}
    changed = [key for key, value in made.items() if key in here and here[key] != value]
    return f"made for other {', '.join(map(of_which, changed))}; {mend}" if changed else ""


def of_which(fingerprint: str) -> str:
    """A fingerprint's name, as shown to people."""
    return {"score": "scores (the router was trained or its target set anew)", "engines": "engine versions"}.get(
        fingerprint, fingerprint
    )


def digest(certificate: Certificate) -> str:
    """Identifies a certificate by its content, whether or not it is retired. A new calibration makes another."""
    plain = {f.name: f.default for f in fields(certificate) if f.default is not MISSING}
    said = {key: value for key, value in certificate.to_dict().items() if key != "retired" and value != plain.get(key, MISSING)}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32]


def retire(certificate: Certificate, why: str) -> Certificate:
    """The same certificate, marked as broken."""
    return replace(certificate, retired=why)


def score_fingerprint(manifest: Mapping[str, Any], rule: str, prefix: int | None = None) -> str:
    """Identifies the score that is certified: the classifier, its answer heads, and the target's price of cost.

    rule: the target. prefix: tokens looked at; None: the whole answer.
    """
    price = manifest.get("cascades", {}).get(rule, {}).get("value")
    seen = () if prefix is None else ("prefix", prefix)
    parts = (manifest.get("model_sha256"), manifest.get("answers_sha256"), rule, price, *seen)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def watch(certificate: Certificate) -> Drift:
    """The alarm of a certificate, which detects twice the promised rate of worse answers."""
    audited = certificate.coverage if certificate.harmless is None else certificate.comparable
    return alarm_of(certificate.alpha / max(audited, 1e-9), certificate.harmless)


def count(certificate: Certificate, before: Audited, differs: bool) -> Audited:
    """What audits have found after one more, and whether the alarm went off. What is retired stays as it is."""
    if before.retired:
        return before
    drift = watch(certificate).counted(before.audits + 1, before.errors + differs)
    why = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}: {drift.errors} of {drift.audits} audited answers differed"
    allowed = f"; a kept promise allows {drift.p0:.1%}"
    return Audited(drift.audits, drift.errors, why + allowed if drift.alarmed else "")


def region_text(points: list[Point], alpha: float, shown: int = 12) -> str:
    """The feasible region as a table of a dozen thresholds, the last that passes among them."""
    passing = next((i for i, point in enumerate(points) if point.bound > alpha), len(points))
    wanted = {*np.linspace(0, len(points) - 1, shown).astype(int).tolist(), passing - 1, min(passing, len(points) - 1)}
    lines = ["threshold  small answers  losses   risk  bound"]
    for i in sorted(wanted - {-1}):
        p = points[i]
        mark = "" if i < passing else ("  fails" if i == passing else "  not tried")
        lines.append(f"{p.threshold:9.4f}  {p.coverage:13.3f}  {p.k:6d}  {p.risk:5.3f}  {p.bound:5.3f}{mark}")
    return "\n".join(lines)
