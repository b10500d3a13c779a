"""Decides which prompts and answers are kept, by `ledger.store`, and redacts them with the operator's hook."""

import dataclasses
import logging

from router import config
from router.entry_points import load_function
from router.errors import BadConfig
from router.trace import Trace

log = logging.getLogger(__name__)


class KeptTexts:
    """Applies the settings `store` and `redact`."""

    def __init__(self, settings: config.Ledger) -> None:
        """Raises BadConfig where the hook cannot be loaded."""
        self.store = settings.store
        self.hook = load_function(settings.redact, "ledger.redact", BadConfig) if settings.redact else None
        self.failures = 0
        """texts dropped because the hook failed"""

    def kept(self, trace: Trace) -> Trace:
        """The trace with only the texts that may be stored."""
        prompt = self.redacted(trace.prompt) if self.store != "nothing" else None
        answer = self.redacted(trace.answer) if self.store == "all" else None
        return dataclasses.replace(trace, prompt=prompt, answer=answer)

    def redacted(self, text: str | None) -> str | None:
        if text is None or self.hook is None:
            return text
        try:
            found = self.hook(text)
            if found is not None and not isinstance(found, str):
                raise TypeError(f"it returned a {type(found).__name__}, expected a text or None")
            return found
        except Exception as error:  # noqa: BLE001 the hook is not ours, and an unredacted text must not be kept
            self.failures += 1
            log.error("a text was not kept: ledger.redact raised %s", type(error).__name__)
            return None
