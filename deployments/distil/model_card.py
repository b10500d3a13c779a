"""The card of a trained model: what it was made from, how, and what it may be used for."""

from collections.abc import Mapping
from typing import Any


def card(manifest: Mapping[str, Any]) -> str:
    """Markdown, from a run's manifest."""
    recipe, dev, base = manifest["recipe"], manifest["dev"], manifest["base"]
    licences = ", ".join(manifest["licences"]) or "not said"
    how = (
        "all weights"
        if recipe["rank"] is None
        else f"LoRA adapters of rank {recipe['rank']} (alpha {recipe['alpha']}), also merged"
    )
    lines = [
        "# A model trained by `stepdown distil train`",
        "",
        f"- Base: {base['name']}, {base['parameters']:,} parameters, digest `{base['sha256']}`",
        f"- Trained: {how}, {recipe['loss']} loss, {manifest['tokens']:,} tokens in {manifest['steps']:,} steps, "
        f"{manifest['seconds']:.0f} s on {manifest['device']}",
        f"- Rows: {manifest['rows']:,} to learn, {manifest['dev_rows']:,} to look at; dataset `{manifest['dataset_sha256']}`",
        f"- Seed: {recipe['seed']}",
        f"- Licences of the answers learned from: {licences}",
        f"- Digest of the trained model: `{manifest['model_sha256']}`",
    ]
    if dev:
        right = manifest["dev_right"]
        lines.append(f"- Dev rows that a greedy answer gets right: {right[0]:.3f} before, {max(right):.3f} in what was kept")
    if manifest["ended_early"]:
        lines.append("- It ended early: dev rows did not go any better")
    for reason, rows in manifest["left_out"].items():
        lines.append(f"- Left out: {rows:,} rows, because {reason}")
    lines += [
        "",
        "The weights remember rows that they were trained on, and forgetting a row later does not change them. A model made",
        "from others' answers may be bound by their licences and naming rules. It answers as its teacher does on prompts like",
        "the rows; elsewhere it may have become worse, which `stepdown distil evaluate` measures.",
        "",
    ]
    return "\n".join(lines)
