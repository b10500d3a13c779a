"""Prompts and answers are kept as the settings say, and as the hook left them."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from made import opened, rows_of, trace

from deployments.ledger.kept_texts import KeptTexts
from deployments.ledger.ledger import Ledger
from deployments.ledger.schema import traces
from router import config
from router.errors import BadConfig


def shout(text: str) -> Any:
    """A hook that does all that a hook may do, and what it may not."""
    if text == "raise":
        raise RuntimeError(text)
    return {"nothing": None, "number": 7}.get(text, text.upper())


def kept(prompt: str | None, **settings: Any) -> tuple[str | None, str | None, int]:
    texts = KeptTexts(config.Ledger(**settings))
    found = texts.kept(trace("t1", prompt=prompt, answer="an answer"))
    return found.prompt, found.answer, texts.failures


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return "test_kept_texts:shout"


def test_store_says_what_is_kept() -> None:
    assert kept("a prompt") == (None, None, 0)
    assert kept("a prompt", store="prompts") == ("a prompt", None, 0)
    assert kept("a prompt", store="all") == ("a prompt", "an answer", 0)


def test_the_hook_changes_or_drops_a_text(hook: str) -> None:
    assert kept("a prompt", store="all", redact=hook) == ("A PROMPT", "AN ANSWER", 0)
    assert kept("nothing", store="prompts", redact=hook) == (None, None, 0)
    assert kept(None, store="prompts", redact=hook) == (None, None, 0)


@pytest.mark.parametrize("prompt", ["raise", "number"])
def test_a_hook_that_fails_keeps_nothing_and_is_counted(hook: str, prompt: str) -> None:
    assert kept(prompt, store="all", redact=hook) == (None, "AN ANSWER", 1)


@pytest.mark.parametrize("name", ["no_such_module:f", "json:no_such_function", "json:__name__"])
def test_a_wrong_hook_stops_the_start(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadConfig, match="ledger.redact"):
        asyncio.run(Ledger(config.Ledger(url=f"sqlite:///{tmp_path}/a.db", redact=name)).open())


def test_no_text_reaches_the_disk_unless_it_is_kept(tmp_path: Path) -> None:
    async def go() -> None:
        async with opened(f"sqlite:///{tmp_path}/a.db") as ledger:
            await ledger.record(trace("t1", prompt="a secret", answer="another secret"))
            assert [(row["prompt"], row["answer"]) for row in rows_of(ledger.engine, traces)] == [(None, None)]

    asyncio.run(go())
    assert not any(b"secret" in path.read_bytes() for path in tmp_path.glob("a.db*") if path.is_file())
