"""Headers and JSON by which a client sees a decision, the end of a flow, and an error."""

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

from deployments.endpoint.accounts import STORED
from deployments.endpoint.flow_driver import FlowDriver
from deployments.endpoint.ongoing_request import OngoingRequest
from deployments.endpoint.spoken.protocol import failure
from router.errors import StepdownError, TooLarge, TooSlow
from router.protocols.edge import Failure
from router.types import Decision, End


class FailureResponse(JSONResponse):
    """An error as the client gets it. error: what it says."""

    def __init__(self, error: StepdownError, failed: Failure, headers: Mapping[str, str]) -> None:
        super().__init__(failed.body, failed.status, headers)
        self.error = error


def error_response(error: StepdownError, shown: Mapping[str, str] | None = None) -> FailureResponse:
    """The error as the client's protocol words it; an unexpected one reveals nothing about itself. shown: further headers."""
    failed = failure(error)
    headers = dict(failed.headers)
    if isinstance(error, TooLarge | TooSlow):  # the rest of the body is not read
        headers["connection"] = "close"
    headers |= {name: value for name, value in (shown or {}).items() if name != STORED}  # a failure is not kept
    return FailureResponse(error, failed, headers)


def end_headers(driver: FlowDriver, end: End) -> dict[str, str]:
    """Headers that report how a flow ended."""
    shown = {f"x-stepdown-{name}": str(end.report[name]) for name in ("escalations", "delegation", "state") if name in end.report}
    tier = driver.answered_by(end)
    if degraded := driver.ongoing.degraded_by():
        shown["x-stepdown-degraded"] = degraded
    shown |= {"x-stepdown-tier": tier} if tier else {}
    return shown | certificate_header(driver.ongoing) | {"x-stepdown-calls": str(len(driver.records))}


def cost_header(ongoing: OngoingRequest) -> dict[str, str]:
    """The token price of all calls; a stream reports it in its usage."""
    return {"x-stepdown-cost-usd": f"{ongoing.cost_usd():.9g}"}


def certificate_header(ongoing: OngoingRequest) -> dict[str, str]:
    """What is promised of the answer, as it came about."""
    return {"x-stepdown-certificate": state} if (state := ongoing.certificate) else {}


def decision_json(decided: Decision) -> dict[str, Any]:
    """A decision with every step that led to it."""
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
        "delegation": decided.considered.as_json() if decided.considered else None,
    }


def decision_headers(decided: Decision, took_ms: float, trace_id: str) -> dict[str, str]:
    """Headers that report the decision."""
    shown = {
        "x-stepdown-tier": decided.tier,
        "x-stepdown-reason": decided.reason,
        "x-stepdown-decision-ms": f"{took_ms:.3f}",
        "x-stepdown-trace-id": trace_id,
    }
    if decided.degraded:
        shown["x-stepdown-degraded"] = decided.degraded
    if decided.certificate:
        shown["x-stepdown-certificate"] = decided.certificate
    if decided.considered and decided.considered.state:  # a no; the outcome of a yes is reported at the end
        shown["x-stepdown-delegation"] = decided.considered.state
    if decided.confidence is not None:
        shown["x-stepdown-confidence"] = f"{decided.confidence:.4f}"
    return shown
