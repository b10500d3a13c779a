"""What a client sees of a decision and of an error."""

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse, Response

from deployments.endpoint.flow_driver import Driver
from deployments.endpoint.ongoing_request import OngoingRequest
from router.errors import NoReplica, RequestFailed, StepdownError, TierCold, TierFailed, TooLarge, TooSlow
from router.types import Decision, End

MISSED = {NoReplica.code, TierCold.code, TierFailed.code}  # outcomes of a call for which another tier's answer stands


def error_response(error: StepdownError, shown: Mapping[str, str] | None = None) -> Response:
    """OpenAI's error body; anything we did not expect says no more than that. shown: headers besides."""
    known = error if isinstance(error, RequestFailed) else RequestFailed("internal error; the server's log has more")
    headers = known.headers()
    if isinstance(known, TooLarge | TooSlow):  # what is still to come of the body is not read
        headers["connection"] = "close"
    return JSONResponse(known.body(), known.status, headers | dict(shown or {}))


def ended(driver: Driver, end: End) -> dict[str, str]:
    """Headers of what a flow came to."""
    shown = {f"x-stepdown-{name}": str(end.told[name]) for name in ("escalations", "delegation", "state") if name in end.told}
    tier = driver.answered_by(end)
    if missed := next((r for r in reversed(driver.records.values()) if r.outcome in MISSED), None):
        shown["x-stepdown-degraded"] = f"{missed.call.tier} {missed.outcome}"
    return shown | ({"x-stepdown-tier": tier} if tier else {}) | {"x-stepdown-calls": str(len(driver.records))}


def cost_header(ongoing: OngoingRequest) -> dict[str, str]:
    """Token price of all calls; a stream says it in its usage."""
    return {"x-stepdown-cost-usd": f"{ongoing.cost_usd():.9g}"}


def told(decided: Decision) -> dict[str, Any]:
    """A decision with every step."""
    return {
        "tier": decided.tier,
        "reason": decided.reason,
        "target": decided.target,
        "confidence": decided.confidence,
        "unfamiliar": decided.unfamiliar,
        "p": dict(decided.p),
        "excluded": dict(decided.excluded),
        "first": list(decided.first) or [decided.tier],
        "certificate": decided.certificate or None,
        "delegation": decided.considered.told() if decided.considered else None,
    }


def headers(decided: Decision, took_ms: float, trace_id: str) -> dict[str, str]:
    """What the client sees of the decision."""
    shown = {
        "x-stepdown-tier": decided.tier,
        "x-stepdown-reason": decided.reason,
        "x-stepdown-decision-ms": f"{took_ms:.3f}",
        "x-stepdown-trace-id": trace_id,
    }
    if decided.certificate:
        shown["x-stepdown-certificate"] = decided.certificate
    if decided.considered and decided.considered.state:  # a no; what comes of a yes is told at the end
        shown["x-stepdown-delegation"] = decided.considered.state
    if decided.confidence is not None:
        shown["x-stepdown-confidence"] = f"{decided.confidence:.4f}"
    return shown
