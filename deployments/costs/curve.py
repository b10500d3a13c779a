"""Cost against quality, relative to always using the top tier: what the artefact promised, and where the traffic is now."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from classifiers import ClassifierError
from classifiers.artifact import read_manifest
from deployments.costs.figures import share
from router.config import Config

NO_ROUTER = "no router is configured (routing.artefact), so there is no curve"
NO_FIGURES = "the artefact's targets have no cost and quality; make it again with `stepdown train`"
Row = Mapping[str, Any]


def promised(config: Config) -> dict[str, Any]:
    """The artefact's curve as far as it has one, or `why` there is none.

    points: [cost, quality] as shares of the top tier's, by rising cost. whole: the curve is the training report's; otherwise it
    is straight lines between the targets, and always using the top tier is at [1, 1].
    """
    if not config.routing.artefact:
        return no_curve(NO_ROUTER)
    try:
        manifest = read_manifest(config.routing.artefact)
    except ClassifierError as error:
        return no_curve(str(error))
    looks = config.escalation.looks
    rules = {**manifest["rules"], **(manifest.get("cascades") or {} if looks else {})}
    targets = [found for name, rule in rules.items() if (found := point(name, rule))]
    whole = None if looks else stored(Path(config.routing.artefact))
    if not targets and not whole:
        return no_curve(NO_FIGURES)
    points = whole or sorted([[t["cost"], t["quality"]] for t in targets] + [[1.0, 1.0]])
    return {"points": points, "whole": whole is not None, "targets": targets, "why": ""}


def no_curve(why: str) -> dict[str, Any]:
    return {"points": [], "whole": False, "targets": [], "why": why}


def point(name: str, rule: Mapping[str, Any]) -> dict[str, Any] | None:
    cost, quality = rule.get("expected_cost"), rule.get("expected_quality")
    if cost is None or quality is None:
        return None
    return {"target": name, "kind": rule["kind"], "cost": cost, "quality": quality, "at_least": rule.get("quality_bound")}


def stored(artefact: Path) -> list[list[float]] | None:
    """The curve in the training report beside the artefact, if there is one."""
    try:
        found = json.loads((artefact / "report" / "report.json").read_text("utf-8")).get("curve")
    except (OSError, ValueError, AttributeError):
        return None
    return [[float(cost), float(quality)] for cost, quality in found] if found else None


def live(rows: Iterable[Row], top: str) -> list[dict[str, Any]]:
    """Where each target and `all` of them together are now, by the requests that were routed and answered.

    rows: sums of requests that share target, answering tier and reason; where one was routed, all were.
    quality: the top tier's own answers count 1, others the chance they were given before they were seen. Where answers are
    looked at and some are rejected, the true quality is at least that.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row["confident"] and row["tier"]:
            groups.setdefault("all", []).append(row)
            groups.setdefault(row["target"], []).append(row)
    return [live_point(name, groups[name], top) for name in sorted(groups, key=lambda name: (name != "all", name))]


def live_point(name: str, rows: Sequence[Row], top: str) -> dict[str, Any]:
    requests = sum(int(row["confident"]) for row in rows)
    good = sum(int(row["confident"]) if row["tier"] == top else row["confidence"] for row in rows)
    return {
        "target": name,
        "requests": requests,
        "cost": share(sum(row["cost_usd"] for row in rows), sum(row["counterfactual_usd"] for row in rows)),
        "quality": round(good / requests, 9),
        "confidence": round(sum(row["confidence"] for row in rows) / requests, 9),
    }
