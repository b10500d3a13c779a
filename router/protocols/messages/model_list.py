"""OpenAI's model objects as Anthropic lists them."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any


def models(cards: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """cards: with `id` and `created`, Unix time. All of them are one page."""
    listed = [model(card) for card in cards]
    ends = {"first_id": listed[0]["id"], "last_id": listed[-1]["id"]} if listed else {"first_id": None, "last_id": None}
    return {"data": listed, "has_more": False, **ends}


def model(card: Mapping[str, Any]) -> dict[str, Any]:
    created = datetime.fromtimestamp(int(card.get("created") or 0), UTC)
    return {"type": "model", "id": card["id"], "display_name": card["id"], "created_at": created.strftime("%Y-%m-%dT%H:%M:%SZ")}
