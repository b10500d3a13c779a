"""Cost against quality: what the artefact promised, and where the traffic is now. Both are relative to always the top tier."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from classifiers import ClassifierError
from classifiers.artifact import read_manifest
from deployments.costs.figures import share
from router.config import Config

NO_ROUTER = "no router is configured (routing.artefact), so there is no curve"
NO_FIGURES = "the artefact's targets say nothing of cost and quality; make it again with `stepdown train`"


def promised(config: Config) -> dict[str, Any]:
    """The curve as far as the artefact holds one; else `why` there is none.

    points: [cost, quality] by rising cost, as shares of the top tier's. whole: from the training report, all prices of
    cost; else straight lines between the targets, and always the top tier at [1, 1].
    """
    if not config.routing.artefact:
        return nothing(NO_ROUTER)
    try:
        manifest = read_manifest(config.routing.artefact)
    except ClassifierError as error:
        return nothing(str(error))
    looked_at = config.escalation.looks
    rules = {**manifest["rules"], **(manifest.get("cascades") or {} if looked_at else {})}
    targets = [found for name, rule in rules.items() if (found := point(name, rule))]
    whole = None if looked_at else stored(Path(config.routing.artefact))
    if not targets and not whole:
        return nothing(NO_FIGURES)
    points = whole or sorted([[t["cost"], t["quality"]] for t in targets] + [[1.0, 1.0]])
    return {"points": points, "whole": whole is not None, "targets": targets, "why": ""}


def nothing(why: str) -> dict[str, Any]:
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


def live(rows: Iterable[Mapping[str, Any]], top: str) -> list[dict[str, Any]]:
    """Where each target is, and `all` of them, from the requests that were routed and answered.

    rows: sums of requests that share target, answering tier and reason; where one was routed all were.

    quality: the top tier's own answers count 1, the others the chance they were given before they were seen. Where
    answers are looked at and some are rejected, the truth is at least that.
    """
    sums: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["confident"] and row["tier"]:
            for name in ("all", row["target"]):
                add(sums.setdefault(name, dict.fromkeys(("requests", "confidence", "good", "paid", "alone"), 0.0)), row, top)
    return [told(name, of) for name, of in sorted(sums.items(), key=lambda item: (item[0] != "all", item[0]))]


def add(total: dict[str, float], row: Mapping[str, Any], top: str) -> None:
    total["requests"] += int(row["confident"])
    total["confidence"] += row["confidence"]
    total["good"] += int(row["confident"]) if row["tier"] == top else row["confidence"]
    total["paid"] += row["cost_usd"]
    total["alone"] += row["counterfactual_usd"]


def told(name: str, of: Mapping[str, float]) -> dict[str, Any]:
    return {
        "target": name,
        "requests": int(of["requests"]),
        "cost": share(of["paid"], of["alone"]),
        "quality": round(of["good"] / of["requests"], 9),
        "confidence": round(of["confidence"] / of["requests"], 9),
    }
