"""A service with a circuit breaker and one more try around it. What it says is checked here, for every engine."""

from deployments.beside_loop import by_length
from deployments.replicas.replica_health import ReplicaHealth
from deployments.services.service import Service
from deployments.tiers.faults import of_error_event
from deployments.traffic.guarded import Guarded
from router import service_settings
from router.errors import RequestFailed, TierFailed, TierMisconfigured, WindowExceeded
from router.services import answer
from router.services.answer import ServiceAnswer
from router.services.body import ServiceRequest
from router.trace import Reading
from router.traffic.breaker import Breaker
from router.traffic.retries import Retries


class Watched(Guarded):
    """`service`, watched. Nothing answers in its place, so a lost call is sent once more, within the budget for retries."""

    def __init__(self, service: Service, settings: service_settings.Service, breaker: Breaker, retries: Retries) -> None:
        super().__init__(service.name, breaker, retries, siblings=True)
        self.service, self.context = service, settings.context

    @property
    def replica_health(self) -> ReplicaHealth | None:
        return self.service.health

    async def ask(self, asked: ServiceRequest, call_id: str) -> ServiceAnswer:
        """The answer under the `model` that was asked for. Raises RequestFailed."""

        async def once(reading: Reading | None, call_id: str) -> ServiceAnswer:
            try:
                raw = await self.service.ask(asked, call_id)
                return await by_length(raw, self.read, asked, raw)
            except RequestFailed as error:
                raise self.worded(error) from None

        self.retries.asked()
        try:
            return await self.retried(once, None, call_id)
        except RequestFailed as error:
            raise self.worded(error) from None

    def read(self, asked: ServiceRequest, raw: bytes) -> ServiceAnswer:
        """Raises RequestFailed for what is no answer."""
        try:
            found = answer.read(asked, raw, self.context)
        except ValueError as error:
            raise TierFailed(self.name, f"its answer cannot be used: {str(error)[:200]}") from None
        if isinstance(found, ServiceAnswer):
            return found
        raise of_error_event(self.name, found.error)

    def worded(self, error: RequestFailed) -> RequestFailed:
        """The error in the words of a service: connections, replicas and circuits are those of tiers, and speak of tiers."""
        ours, theirs = f"service {self.name}", f"tier {self.name}"
        if isinstance(error, WindowExceeded):
            error.param = "input"
            error.args = (f"{theirs}: an input is longer than the {self.context:,} tokens that it reads; shorten it",)
        if isinstance(error, TierMisconfigured):
            error.mend = error.mend.replace(theirs, ours, 1).replace(f"tiers.{self.name}.", f"services.{self.name}.")
        error.args = (str(error).replace(theirs, ours, 1),)
        return error
