"""The card of a data folder: what it holds, in words."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

CARD = """# Data for {student}, from the answers of {teacher}

{total:,} kept requests from {since} to {until} (UTC), of {keys} keys. Seed {seed}; dataset `{dataset}`.

| side | failures | successes | corrections |
| --- | --- | --- | --- |
{sides}

Train has every request that {student} answered worse than {teacher}, and of those that it answered as well up to twice as
many, drawn by hash. Dev and test are drawn requests as they came; no conversation and no near-duplicate stands on two sides, and
train, dev and test follow each other in time. One conversation in eight is in no training.

{notes}

## Licences

{licences}

The answers are other people's requests and a model's outputs. Whether a model may be trained on them was declared in
`tiers[].licence` by whoever runs the ladder.

## Left out

{left_out}
"""


def card(manifest: Mapping[str, Any]) -> str:
    """The card's text. manifest: of the folder."""
    counts = manifest["counts"]
    sides = [
        f"| {side} | {by.get('failure', 0):,} | {by.get('success', 0):,} | {by.get('correction', 0):,} |"
        for side, by in counts.items()
    ]
    return CARD.format(
        student=manifest["student"]["tier"],
        teacher=manifest["teacher"]["tier"],
        total=sum(sum(by.values()) for by in counts.values()),
        since=day(manifest["since_s"]),
        until=day(manifest["until_s"]),
        keys=manifest["keys"],
        seed=manifest["seed"],
        dataset=manifest["dataset_sha256"],
        sides="\n".join(sides),
        notes=listed(manifest["notes"]),
        licences=listed(f"{name}: {count:,} rows" for name, count in manifest["licences"].items()),
        left_out=listed(f"{why}: {count:,}" for why, count in manifest["left_out"].items()),
    )


def day(at_s: float) -> str:
    return f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%d %H:%M}"


def listed(lines: Any) -> str:
    found = [f"- {line}" for line in lines]
    return "\n".join(found) or "- nothing"
