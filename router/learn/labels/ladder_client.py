"""Asks a running ladder, for `stepdown label`: waits for a busy one, and tells a request's own fault from the ladder's.

A request's own fault costs that row its score, and the run goes on: `Refused`. The ladder's fault (it is down, the key is
refused, a tier is unknown) would be every row's, so it ends the run: BadInput.
"""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from router.errors import BadInput
from router.learn.chats import is_whole

Row = dict[str, Any]
Price = tuple[float, float]  # USD per million input and output tokens
CHAT = "/v1/chat/completions"
ATTEMPTS = 6
LONGEST_WAIT_S = 60.0  # a ladder that asks for more is not waited for
OWN_FAULTS = (400, 413, 414, 422, 451)  # statuses by which a request's own content is refused
PASSING = (408, 409, 425, 429, 500, 502, 503, 504)  # statuses after which the same request may succeed
HELLO: list[Row] = [{"role": "user", "content": "hello"}]


class Refused(Exception):
    """The ladder answers others, but not this request; the message says why."""


@dataclass(frozen=True)
class ServedLadder:
    """A running ladder and how to ask it. url: with or without /v1. prices: tier -> USD per million input and output tokens."""

    url: str
    api_key: str
    tiers: list[str]
    prices: Mapping[str, Price]
    max_tokens: int = 256
    concurrency: int = 16
    per_second: float = 0.0  # 0: no limit
    timeout_s: float = 120.0
    known_as: str = ""
    """what its answers are filed under in the journal, for a ladder whose address changes; empty: its address"""

    @property
    def settings(self) -> Row:
        """What of a request's body holds for all requests."""
        return {"temperature": 0, "max_tokens": self.max_tokens, "logprobs": True, "top_logprobs": 2}


def address_of(url: str) -> str:
    """The address of an endpoint without /v1 and without a slash at its end. Raises BadInput."""
    try:
        parts = urlsplit(url.strip())
        parts.port  # noqa: B018 raises where it is no number
    except ValueError as error:
        raise BadInput(f"--url {url!r}: {error}; expected http://HOST:PORT") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or not url.isprintable():
        raise BadInput(f"--url {url!r}: expected http://HOST:PORT or https://..., with or without /v1")
    path = parts.path.rstrip("/").removesuffix("/chat/completions").rstrip("/").removesuffix("/v1").rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path}"


def headers_of(api_key: str) -> dict[str, str]:
    """Raises BadInput for a key that no header can hold."""
    if not (api_key.isascii() and api_key.isprintable()) or api_key != api_key.strip():
        raise BadInput(
            "--api-key: the key holds characters that no HTTP header may; expected printable ASCII without spaces around"
        )
    return {"authorization": f"Bearer {api_key}"} if api_key else {}


class LadderClient:
    """Sends chat requests, at most `concurrency` at once and `per_second` a second, and retries while a tier is busy."""

    def __init__(self, client: Any, ladder: ServedLadder) -> None:
        """client: an httpx.AsyncClient."""
        self.client = client
        self.ladder = ladder
        self.slots = asyncio.Semaphore(ladder.concurrency)
        self.next_start = 0.0
        self.has_answered = False
        self.proved: set[str] = set()
        """tiers that have answered a request since one was last refused"""

    async def check(self) -> None:
        """Ask for the list of models, which costs nothing. Raises BadInput where it shows that labelling cannot work.

        An endpoint without such a list may still be one.
        """
        import httpx

        try:
            reply = await self.client.get("/v1/models")
        except httpx.RequestError as error:
            raise self.down(error) from None
        if reply.status_code in (401, 403):
            raise BadInput(f"{self.ladder.url}: {self.key_refused(reply)}")
        names = _models_in(reply) if reply.status_code == 200 else []
        missing = [tier for tier in self.ladder.tiers if names and tier not in names]
        if missing:
            raise BadInput(
                f"{self.ladder.url}: no tier {missing[0]!r} there; it has {', '.join(names):.300}; correct --tiers or --config"
            )

    async def ask(self, tier: str, messages: Sequence[Row], max_tokens: int) -> Row:
        """The reply of one tier, as JSON with a text at choices[0].message.content. Raises Refused, BadInput."""
        body = {"model": tier, "messages": list(messages), **self.ladder.settings, "max_tokens": max_tokens}
        if not is_whole(body):
            raise Refused("the prompt holds half of a character (a lone surrogate), which no request can carry")
        async with self.slots:
            reply = await self.sent(tier, body)
            if isinstance(reply, str):
                if tier not in self.proved:
                    await self.check_alive(tier, reply)
                self.proved.discard(tier)
                raise Refused(reply)
            self.proved.add(tier)
            return reply

    async def sent(self, tier: str, body: Row) -> Row | str:
        """The reply, or why there is none, which may be the request's fault or the ladder's. Raises BadInput where it is the
        ladder's for sure.
        """
        import httpx

        why, wait_s = "", 0.0
        for attempt in range(ATTEMPTS):
            await asyncio.sleep(wait_s)
            await self._wait_turn()
            wait_s = 2.0**attempt / 4
            try:
                reply = await self.client.post(CHAT, json=body)
            except httpx.TimeoutException:
                why = f"tier {tier!r} gave no answer within {self.ladder.timeout_s:g} s"
                if attempt:
                    break
                continue
            except httpx.RequestError as error:
                if not self.has_answered:
                    raise self.down(error) from None
                why = f"no answer ({error or type(error).__name__})"
                continue
            if reply.status_code == 200:
                found = answer_in(reply)
                if found is not None:
                    self.has_answered = True
                    return found
                why = f"tier {tier!r} gave no chat completion: {reply.text[:200]!r}"
                continue
            why = f"tier {tier!r} answered HTTP {reply.status_code}: {reason_in(reply)}"
            if reply.status_code in OWN_FAULTS:
                break
            self.check_status(reply, why)
            wait_s = _told_to_wait(reply, wait_s)
            if wait_s > LONGEST_WAIT_S:
                raise BadInput(f"{why}; it asks to wait {wait_s:.0f} s; run the same command again then")
        return why

    def check_status(self, reply: Any, why: str) -> None:
        """Raises BadInput for what would be every row's fault. Returns where another attempt may succeed."""
        if reply.status_code in (401, 403):
            raise BadInput(f"{self.ladder.url}: {self.key_refused(reply)}")
        if reply.status_code not in PASSING:
            raise BadInput(f"{self.ladder.url}: {why}; check --url and --tiers")

    def key_refused(self, reply: Any) -> str:
        return (
            f"the key is refused (HTTP {reply.status_code}: {reason_in(reply)}); give another with --api-key or STEPDOWN_API_KEY"
        )

    def down(self, error: object) -> BadInput:
        return BadInput(f"{self.ladder.url}: no answer ({error or type(error).__name__}); is it running?")

    async def check_alive(self, tier: str, why: str) -> None:
        """Raises BadInput where the tier does not even answer a greeting, so that the failed request is not to blame.

        It asks for one token, with all other settings.
        """
        import httpx

        body = {"model": tier, "messages": HELLO, **self.ladder.settings, "max_tokens": 1}
        try:
            reply = await self.client.post(CHAT, json=body)
        except httpx.RequestError as error:
            raise self.down(error) from None
        if reply.status_code != 200 or answer_in(reply) is None:
            raise BadInput(
                f"{self.ladder.url}: {why}; it does not answer a greeting either; run the same command again when it does"
            )

    async def _wait_turn(self) -> None:
        if self.ladder.per_second:
            now = time.monotonic()
            start = max(now, self.next_start)
            self.next_start = start + 1 / self.ladder.per_second
            await asyncio.sleep(start - now)


def _json_of(reply: Any) -> Any:
    """None: it is no JSON."""
    try:
        return json.loads(reply.content)
    except (ValueError, RecursionError):
        return None


def answer_in(reply: Any) -> Row | None:
    """The reply, if it holds an answer: a text or nothing at choices[0].message.content."""
    found = _json_of(reply)
    try:
        content = found["choices"][0]["message"].get("content")
    except (TypeError, KeyError, IndexError, AttributeError):
        return None
    return found if content is None or isinstance(content, str) else None


def reason_in(reply: Any) -> str:
    """The message of an error body of OpenAI's form or an older one, else its first characters."""
    found = _json_of(reply)
    error = found.get("error", found) if isinstance(found, dict) else None
    message = error.get("message") or error.get("detail") if isinstance(error, dict) else error
    return (message if isinstance(message, str) else reply.text)[:200]


def _models_in(reply: Any) -> list[str]:
    found = _json_of(reply)
    data = found.get("data") if isinstance(found, dict) else None
    return [str(model.get("id")) for model in data if isinstance(model, dict)] if isinstance(data, list) else []


def _told_to_wait(reply: Any, usual_s: float) -> float:
    """Seconds of Retry-After; a date, or nothing, is as usual."""
    try:
        told = float(reply.headers.get("retry-after", usual_s))
    except ValueError:
        return usual_s
    return told if 0 <= told < float("inf") else usual_s
