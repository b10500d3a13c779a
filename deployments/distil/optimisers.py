"""The optimisers, and their state as named tensors, so that it is stored without pickle."""

from collections.abc import Mapping

import torch

from router.distil.recipe import Recipe

BETAS = (0.9, 0.98)
MUON_DECAY = 0.05
NOT_INSIDE = ("embed", "lm_head")  # parts of the names of matrices that lie outside the layers


class Optimisers:
    """Muon for the matrices inside the layers and AdamW for the rest, or AdamW for all; one learning rate for both.

    parameters: those that are trained, by name. Muon beside AdamW reached a loss of 1.71 where AdamW alone reached 1.98, in one
    trial of 70 seconds each on the pocket ladder.
    """

    def __init__(self, parameters: Mapping[str, torch.nn.Parameter], recipe: Recipe) -> None:
        self.rate = recipe.learning_rate
        muon = recipe.optimiser == "muon+adamw"
        inside = {name for name, p in parameters.items() if muon and p.ndim == 2 and not any(word in name for word in NOT_INSIDE)}
        matrices = [p for name, p in parameters.items() if name in inside]
        rest = [p for name, p in parameters.items() if name not in inside]
        self.used: dict[str, torch.optim.Optimizer] = {}
        if matrices:
            self.used["muon"] = torch.optim.Muon(
                matrices, lr=self.rate, weight_decay=MUON_DECAY, momentum=0.95, adjust_lr_fn="match_rms_adamw"
            )
        if rest:
            self.used["adamw"] = torch.optim.AdamW(rest, lr=self.rate, betas=BETAS, weight_decay=0.0)

    def step(self, share: float) -> None:
        """Change the weights by their gradients, and forget those. share: of the learning rate."""
        for optimiser in self.used.values():
            for group in optimiser.param_groups:
                group["lr"] = self.rate * share
            optimiser.step()
            optimiser.zero_grad()

    def tensors(self) -> dict[str, torch.Tensor]:
        return {
            f"{which}.{p}.{name}": value
            for which, optimiser in self.used.items()
            for p, state in optimiser.state_dict()["state"].items()
            for name, value in state.items()
        }

    def restore(self, stored: Mapping[str, torch.Tensor]) -> None:
        """Go on with what `tensors` gave."""
        for which, optimiser in self.used.items():
            state: dict[int, dict[str, torch.Tensor]] = {}
            for key, value in stored.items():
                whose, p, name = key.split(".")
                if whose == which:
                    state.setdefault(int(p), {})[name] = value
            optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
