"""What a server knows of a conversation that goes on, whichever ingress saw it: which tier answers it, and its hidden turns."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from deployments.beside_loop import by_size
from deployments.endpoint.ingresses.exchange import HIDDEN, Meeting
from deployments.endpoint.ingresses.news import News
from router.decide.sessions import Sessions, digest
from router.delegate.hidden_turns import HiddenTurns
from router.types import Request

SESSION = "session"
GOES_ON = ("assistant", "tool", "function")
"""roles of messages that only a conversation that goes on has"""
MOST_TURNS = 64  # hidden turns that one request fetches; a client may make up as many names as it likes


class Conversations:
    """sessions, hidden: of this ingress. Until `meet` no other ingress exists."""

    def __init__(self, sessions: Sessions, hidden: HiddenTurns) -> None:
        self.sessions, self.hidden = sessions, hidden
        self.meeting: Meeting | None = None
        self.news: News | None = None

    def meet(self, meeting: Meeting, news: News) -> None:
        self.meeting, self.news = meeting, news
        news.hear[SESSION] = self.sessions.remember

    async def learn(self, owner: str, asked: Request, session: str | None, named: bool) -> None:
        """Learn what other ingresses know of a request's conversation. named: the client names it. Never raises.

        What begins a conversation waits for nothing.
        """
        if self.news is None or self.meeting is None:
            return
        if session and (named or goes_on(asked.body)):
            await self.news.fresh()
        missing = (await by_size(self.hidden.missing, owner, asked.body))[-MOST_TURNS:]
        texts = await asyncio.gather(*(self.meeting.get(HIDDEN, digest(owner, key)) for key in missing))
        for key, text in zip(missing, texts, strict=True):
            if text:
                self.hidden.put(owner, key, *json.loads(text))

    def remember(self, session: str | None, tier: str) -> None:
        self.sessions.remember(session, tier)
        if self.news and session:
            self.news.tell(SESSION, session, tier)

    def keep(
        self, owner: str, messages: Sequence[Mapping[str, Any]], splices: Mapping[str, str], tier: str
    ) -> tuple[str, "asyncio.Task[None] | None"]:
        """Keep a hidden turn. Returns its name, and what must have ended before the client may come back with it."""
        key = self.hidden.keep(owner, messages, splices, tier)
        if self.meeting is None:
            return key, None
        text = json.dumps([list(messages), dict(splices), tier]).encode()
        return key, asyncio.create_task(self.meeting.put(HIDDEN, digest(owner, key), text))


def goes_on(body: Mapping[str, Any]) -> bool:
    """Whether a chat has been answered before."""
    messages = body.get("messages") or ()
    return any(message.get("role") in GOES_ON for message in reversed(messages))
