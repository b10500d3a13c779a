"""Answers of the Responses protocol in the memory of the exchange, for any ingress of this server."""

from deployments.endpoint.ingresses.exchange import RESPONSES, Meeting
from deployments.endpoint.spoken.response_states import Kept, unpacked


class InExchange:
    """As `InMemory`; where the exchange does not answer, nothing is kept, and what was kept is not found."""

    def __init__(self, meeting: Meeting) -> None:
        self.meeting = meeting

    async def get(self, name: str, key_id: str) -> Kept | None:
        raw = await self.meeting.get(RESPONSES, place(name, key_id))
        return None if raw is None else unpacked(raw)

    async def put(self, name: str, key_id: str, kept: Kept) -> None:
        await self.meeting.put(RESPONSES, place(name, key_id), kept.packed())

    async def delete(self, name: str, key_id: str) -> None:
        await self.meeting.drop(RESPONSES, place(name, key_id))


def place(name: str, key_id: str) -> str:
    return f"{key_id} {name}"
