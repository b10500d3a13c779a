"""The model list in Anthropic's shape."""

from router.protocols.messages import model, models

CARDS = [{"id": "auto", "object": "model", "created": 1_796_000_000, "owned_by": "stepdown"}, {"id": "small", "created": 0}]


def test_a_list():
    made = models(CARDS)
    assert made["data"][0] == {"type": "model", "id": "auto", "display_name": "auto", "created_at": "2026-11-30T00:53:20Z"}
    assert (made["has_more"], made["first_id"], made["last_id"]) == (False, "auto", "small")


def test_an_empty_list():
    assert models([]) == {"data": [], "has_more": False, "first_id": None, "last_id": None}


def test_one_model():
    assert model(CARDS[1])["created_at"] == "1970-01-01T00:00:00Z"
