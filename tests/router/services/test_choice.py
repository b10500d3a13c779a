"""Which service answers, and what a client hears that names none."""

import pytest

from router.config import Config
from router.engine import Router
from router.errors import NoService, WrongKind
from router.services.choice import service_for

TIER = {"name": "large", "engine": "echo", "context": 100, "price": {"usd_per_1m_input": 1, "usd_per_1m_output": 1}}


def config(*services: tuple[str, str]) -> Config:
    made = [{"name": n, "kind": k, "engine": "echo", "context": 9, "price": {"usd_per_1m_input": 1}} for n, k in services]
    return Config.model_validate({"tiers": [TIER], "services": made})


BOTH = config(("embed", "embeddings"), ("embed-2", "embeddings"), ("sort", "rerank"))


def test_a_service_is_asked_by_its_name():
    assert service_for(BOTH, "embeddings", "embed-2").name == "embed-2"
    assert service_for(BOTH, "rerank", "sort").kind == "rerank"


@pytest.mark.parametrize(
    ("kind", "wanted", "kind_of_error", "words"),
    [
        ("score", "embed", NoService, ["no service for score is configured", "`services`", "kind: score", "docs/services.md"]),
        ("embeddings", "gpt", NoService, ["unknown model 'gpt'", "embed, embed-2"]),
        ("embeddings", "sort", WrongKind, ["'sort' is a service for rerank", "/v1/rerank", "embed, embed-2"]),
        ("embeddings", "large", WrongKind, ["'large' answers chats", "embed, embed-2"]),
        ("embeddings", "auto:cheap", WrongKind, ["'auto:cheap' answers chats"]),
        ("rerank", "x" * 500, NoService, ["'" + "x" * 80 + "'"]),
    ],
)
def test_what_names_none_hears_which_there_are(kind, wanted, kind_of_error, words):
    with pytest.raises(kind_of_error) as refused:
        service_for(BOTH, kind, wanted)
    assert all(word in str(refused.value) for word in words)
    assert (refused.value.status, refused.value.code, refused.value.param) == (404, "model_not_found", "model")


def test_a_service_that_is_asked_for_a_chat_says_what_it_is():
    router = Router(BOTH, None, {"large": len})
    with pytest.raises(WrongKind, match="'embed' is a service for embeddings, .* chats are answered by auto, large"):
        router.target_of("embed")
    assert "embed" not in router.names and router.target_of("auto") == "balanced"
