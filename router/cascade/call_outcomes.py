"""Keeps what became of a flow's calls, so that each outcome is reported once."""


class CallOutcomes:
    """call id -> outcome. Each outcome goes out with the next step or the end."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}
        self._new: dict[str, str] = {}

    def set(self, call: str, outcome: str) -> None:
        """A later outcome replaces the earlier one."""
        self.known[call] = self._new[call] = outcome

    def set_if_none(self, call: str, outcome: str) -> None:
        if call not in self.known:
            self.set(call, outcome)

    def new(self) -> dict[str, str]:
        """The outcomes that were set since this method was last called."""
        new, self._new = self._new, {}
        return new
