"""A service behind any URL that answers as vLLM, OpenAI, Jina or Cohere do."""

from deployments.beside_loop import by_size
from deployments.services.service import Service
from deployments.tiers.upstream import UpstreamClient
from router.service_settings import RemoteService as Settings
from router.services.body import ServiceRequest

DOCUMENT_BYTES = 1_000_000  # of an answer without its vectors, and the documents that it may give back
VECTOR_BYTES = 500_000  # of one vector: 16,384 numbers of 30 digits


class RemoteService(UpstreamClient, Service):
    """silence_s: seconds without a byte of the answer after which it is given up."""

    def __init__(self, settings: Settings, silence_s: float) -> None:
        super().__init__(settings.name, settings, [settings.kind])
        self.model, self.silence_s = settings.model, silence_s

    async def ask(self, asked: ServiceRequest, call_id: str = "") -> bytes:
        raw = await by_size(asked.named, self.model)
        most = DOCUMENT_BYTES + 8 * len(asked.raw) + VECTOR_BYTES * asked.inputs
        async with await self.post(asked.kind, raw, self.silence_s, call_id) as response:
            return await self.document(response, most)
