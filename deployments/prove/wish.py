"""What a proof is asked to be made of, and how."""

from dataclasses import dataclass
from pathlib import Path

from deployments.prove.inputs import Given
from router.config import Config
from router.costs.prices import per_token
from router.learn.labels.ladder_client import Price


@dataclass(frozen=True)
class Wish:
    """What a proof is to be made of, and how."""

    config: Config
    given: Given
    folder: Path
    command_config: str = "pocket"
    """the configuration as it was named"""
    url: str = ""
    """of a ladder that runs; empty: one is started"""
    api_key: str = ""
    usd: float | None = None
    """the most that may be spent; None: no limit"""
    sample: int = 600
    """most prompts that are used"""
    target: str = "balanced"
    """cheap, balanced or quality: what `auto` means"""
    alpha: float = 0.02
    delta: float = 0.10
    classifier: str = ""
    max_tokens: int = 256
    concurrency: int = 16
    """requests at once while labelling"""
    at_once: int = 2
    """requests at once while trying live"""
    seed: int = 0
    texts: bool = True
    """show prompts and answers in the page"""
    command: str = ""
    """how to repeat it"""

    @property
    def mode(self) -> str:
        """How answers are judged: as the configuration says, if it has them judged at all."""
        return self.config.escalation.mode if self.config.escalation.looks else "buffer"

    @property
    def prices(self) -> dict[str, Price]:
        """USD per million input and output tokens, as the ladder itself counts them."""
        return {tier.name: (per_token(tier)[0] * 1e6, per_token(tier)[1] * 1e6) for tier in self.config.tiers}
