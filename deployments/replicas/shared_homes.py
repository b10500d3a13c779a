"""Which replica a conversation has moved to, told from the process's choice of replicas to whoever tells the other ingresses."""

from collections.abc import Callable
from dataclasses import dataclass, field

from router.traffic.affinity import Affinity

Told = Callable[[str, str], None]
"""takes `DEPLOYMENT CONVERSATION` and the replica"""


@dataclass(slots=True)
class Homes:
    """remember: by deployment, takes a conversation and its replica. tell: None while nobody wants to know."""

    remember: dict[str, Told] = field(default_factory=dict)
    tell: Told | None = None

    def know(self, deployment: str, affinity: Affinity, remember: Told) -> None:
        """affinity: what this process remembers of the deployment's conversations."""
        self.remember[deployment] = remember
        affinity.moved = lambda conversation, replica: self.moved(f"{deployment} {conversation}", replica)

    def moved(self, place: str, replica: str) -> None:
        if self.tell:
            self.tell(place, replica)

    def heard(self, place: str, replica: str) -> None:
        """Another ingress has moved a conversation."""
        deployment, _, conversation = place.rpartition(" ")
        if remember := self.remember.get(deployment):
            remember(conversation, replica)


HOMES = Homes()
"""A global, as both parts of the process must find the same object and Serve constructs one of them without our arguments."""
