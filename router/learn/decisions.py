"""Decides for tables of prompts, explains one decision, and prints an artefact's card."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from classifiers import Artifact, Rule, choose, choose_many
from classifiers.files import atomic_write
from classifiers.sufficiency import TRUSTED_UP_TO
from router.learn.tables import Table, text_of

UNFAMILIAR = "; unfamiliar, so by the tiers' means"


def decide_table(artifact: Artifact, table: Table, rule: Rule, path: Path) -> list[dict[str, Any]]:
    """For each row: id, p, tier, reason, unfamiliar, cost (guessed; the top tier's mean = 1)."""
    texts = text_of(table, path)
    guess = artifact.guess(texts)
    chosen = choose_many(guess.p, guess.cost, rule)
    ids = table.get("id", table["_line"])
    return [
        {
            "id": name,
            "p": [round(float(v), 6) for v in row],
            "tier": artifact.tiers[k],
            "reason": choose(row, cost, rule)[1] + (UNFAMILIAR if u > TRUSTED_UP_TO else ""),
            "unfamiliar": round(float(u), 4),
            "cost": [round(float(v), 6) for v in cost],
        }
        for name, row, cost, k, u in zip(ids, guess.p, guess.cost, chosen, guess.unfamiliar, strict=True)
    ]


def write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write JSONL, whole or not at all.

    In ASCII, because an id from JSON may hold half of a surrogate pair, which UTF-8 cannot encode. An id from Parquet may be
    a date; what JSON cannot express is written as text.
    """
    atomic_write(path, "".join(json.dumps(line, default=str) + "\n" for line in lines))


def explain_one(artifact: Artifact, prompt: str, rule: Rule) -> dict[str, Any]:
    """The decision on one prompt and what moved it: contributions in log-odds by tier."""
    p, cost, unfamiliar = artifact.guess_one(prompt)
    tier, reason = choose(p, cost, rule)
    by_name = artifact.model.explain(prompt)
    moved = sorted(by_name.items(), key=lambda item: -float(np.abs(item[1]).max()))[:12]
    return {
        "p": [round(float(v), 6) for v in p],
        "tier": artifact.tiers[tier],
        "reason": reason + (UNFAMILIAR if unfamiliar > TRUSTED_UP_TO else ""),
        "unfamiliar": round(unfamiliar, 4),
        "cost": [round(float(v), 6) for v in cost],
        "rule": rule.to_dict(),
        "moved": [{"what": name, "log_odds": [round(float(v), 4) for v in np.atleast_1d(by)]} for name, by in moved],
    }


def explain_text(found: Mapping[str, Any], tiers: list[str]) -> str:
    """The explanation as text."""
    chances = "  ".join(f"{tier} {p:.3f}" for tier, p in zip(tiers, found["p"], strict=True))
    lines = [f"{found['tier']}: {found['reason']}", f"chance of a good answer: {chances}", "moved most (log-odds):"]
    for item in found["moved"]:
        lines.append(
            f"  {item['what']:32} " + "  ".join(f"{tier} {v:+.2f}" for tier, v in zip(tiers, item["log_odds"], strict=True))
        )
    return "\n".join(lines)


def card(manifest: Mapping[str, Any]) -> str:
    """The manifest as text."""
    lines = [
        f"classifier {manifest.get('classifier')} for tiers {', '.join(manifest['tiers'])}",
        f"trained on {manifest.get('rows')} rows, data sha256 {str(manifest.get('data_sha256'))[:16]}",
        "cost of a request, top tier = 1: " + "  ".join(f"{c:.4g}" for c in manifest["costs"]),
    ]
    for name, rule in manifest["rules"].items():
        lines.append(f"auto:{name}  {Rule.from_dict(rule).describe(manifest['tiers'])}")
    for name, rule in manifest.get("cascades", {}).items():
        lines.append(f"auto:{name}, looking at answers  {Rule.from_dict(rule).describe(manifest['tiers'])}")
    for name, found in manifest.get("certificates", {}).items():
        alpha, sure = found["alpha"], 1 - found["delta"]
        kept = f"worse than the top tier in at most {alpha:.1%}, with confidence {sure:.0%}"
        lines.append(f"auto:{name}, certified  {kept if found['kind'] == 'certificate' else found['reason']}")
    return "\n".join(lines)
