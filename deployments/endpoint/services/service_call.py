"""One request to a service, from its admission to its ledger row."""

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field

from deployments.endpoint.accounts import Accounts
from deployments.endpoint.ongoing_request import LEFT
from deployments.ids import current
from deployments.keys.admission import Grant
from router.errors import DeadlineExceeded, RequestFailed
from router.limits.key_limits import Key
from router.limits.reservation import Size
from router.service_settings import Kind, Service
from router.services.answer import ServiceAnswer
from router.services.body import ServiceRequest
from router.trace import CallRow, Trace
from router.types import Role

ROLES: dict[Kind, Role] = {"embeddings": "embedding", "rerank": "rerank", "score": "score"}


@dataclass(slots=True)
class ServiceCall:
    """The one call of a request. To be ended once, by `finish` or `left`."""

    accounts: Accounts
    key: Key
    service: Service
    asked: ServiceRequest
    limit_s: float
    """that the whole request may take"""
    id: str = field(default_factory=current)
    at_s: float = field(default_factory=time.time)
    began: float = field(default_factory=time.monotonic)
    grant: Grant | None = None
    tokens: int = 0
    estimated: bool = False
    outcome: str = ""
    done: bool = False

    @property
    def call_id(self) -> str:
        return f"{self.id}/{ROLES[self.service.kind]}"

    @property
    def took_s(self) -> float:
        return time.monotonic() - self.began

    @property
    def cost_usd(self) -> float:
        return self.usd(self.tokens)

    def usd(self, tokens: int) -> float:
        return tokens * self.service.price.usd_per_1m_input / 1e6

    async def admit(self, most_tokens: int) -> None:
        """Reserve what the request may cost. Raises RateLimited, BudgetSpent, LedgerDown."""
        size = Size(most_tokens, 0)
        self.grant = await self.accounts.keys.admit(self.key, self.id, size, self.usd(most_tokens), self.at_s)

    async def answered(self, answering: Awaitable[ServiceAnswer]) -> ServiceAnswer:
        """The service's answer, with its tokens counted. Raises RequestFailed."""
        limit = asyncio.timeout(self.limit_s - self.took_s)
        try:
            async with limit:
                found = await answering
        except RequestFailed as error:
            self.outcome = error.outcome
            raise
        except BaseException:
            self.count(None, "cancelled")
            if limit.expired():
                raise DeadlineExceeded(self.limit_s) from None
            raise
        self.count(found.tokens, "answered")
        return found

    def count(self, tokens: int | None, outcome: str) -> None:
        """tokens: as the service reports them; None: it does not, so they are estimated."""
        self.estimated = tokens is None
        self.tokens = self.asked.usual_tokens() if tokens is None else tokens
        self.outcome = outcome

    async def finish(self, status: int = 200, error: RequestFailed | None = None) -> None:
        """Write the request down. Raises LedgerDown."""
        if not self.done:
            self.done = True
            await self.accounts.finish(self.trace(status, error), self.grant)

    def left(self, status: int = LEFT) -> None:
        """Write down a request that ended without an answer, with what it cost."""
        if not self.done:
            self.accounts.later(self.finish(status))

    def trace(self, status: int, error: RequestFailed | None) -> Trace:
        """Without a counterfactual: no tier could have answered. Its texts are never kept."""
        return Trace(
            id=self.id,
            key_id=self.key.id,
            began_s=self.at_s,
            took_s=self.took_s,
            path=self.asked.kind,
            wanted=self.asked.wanted[:128],
            status=status,
            tier=self.service.name if status == 200 else "",
            reason="asked for",
            flow="service",
            error=error.code if error else "",
            calls=(self.row(),) if self.outcome else (),
        )

    def row(self) -> CallRow:
        return CallRow(
            id=self.call_id,
            trace_id=self.id,
            key_id=self.key.id,
            role=ROLES[self.service.kind],
            tier=self.service.name,
            outcome=self.outcome[:64],
            began_s=self.at_s,
            took_s=self.took_s,
            input_tokens=self.tokens,
            estimated=self.estimated,
            cost_usd=self.cost_usd,
            model=self.accounts.models.get(self.service.name, ""),
        )
