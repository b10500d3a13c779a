"""Makes rows of what waits to be kept, writes them, and deletes those whose time is over. Used by one thread."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from sqlalchemy import Connection

from deployments.learning.kept import completion_store
from deployments.learning.kept.collected import Item, asked_of, fill_row, made, metadata_rows, row_of
from deployments.learning.kept.completion_store import Batch
from deployments.learning.kept.redaction import Redaction
from deployments.ledger.budgets import unsynced, writing_unsynced
from deployments.ledger.retention import shrink
from deployments.ledger.store import Store, rows_fault
from router.config import Learning, Tier
from router.costs.machine_time import DAY_S


class Withheld(Exception):
    """The operator's hook wants nothing of this conversation to be kept."""


class Keeper:
    """Redacts, writes and deletes. Its transactions are not synced to the disk one by one: a power cut may cost the last."""

    def __init__(
        self, settings: Learning, store: Store, tiers: Mapping[str, Tier], models: Mapping[str, str], clock: Callable[[], float]
    ) -> None:
        """Raises BadConfig where the hook cannot be loaded."""
        self.settings, self.store, self.tiers, self.models, self.clock = settings, store, tiers, models, clock
        self.redaction = Redaction(settings.redact if settings.collect != "off" else None)
        self.engine = unsynced(store.engine)
        self.before_s: float | None = None
        """what was kept until then has to go since there is too much; None: there is not"""

    def close(self) -> None:
        if self.engine is not self.store.engine:
            self.engine.dispose()

    def batch_of(self, item: Item) -> Batch:
        """The rows of one request, or of an audit. Raises Withheld, RedactionFailed, and others where it cannot be read."""
        batch, asked = Batch(), item.of.asked
        messages = asked.body["messages"]
        if not item.answers:
            self.redaction.whole(messages)
        for answer in item.answers:
            given = made(answer.said)
            found = self.redaction.whole([*messages, given.message])
            if found is None:
                raise Withheld
            given = replace(given, message=found[-1])
            tier, model = self.tiers[answer.tier], answer.model or self.models.get(answer.tier, "")
            row = row_of(item, answer, given, tier, model, self.expires_s(item.at_s))
            row["redaction"] = self.redaction.name
            if answer.role == "answer":
                row |= asked_of(asked, found[:-1], bool(self.redaction.hook))
                batch.metadata = metadata_rows(row, asked.metadata)
                batch.fills = [fill_row(item)] if item.chance else []
            batch.completions.append(row)
        return batch

    def expires_s(self, at_s: float) -> float | None:
        return at_s + self.settings.keep_days * DAY_S if self.settings.keep_days else None

    def write(self, parts: list[Batch]) -> int:
        """Write them in one transaction; where a row is at fault, each by itself. Returns how many were written.

        Raises the database's errors.
        """
        if not parts:
            return 0
        whole = Batch()
        for part in parts:
            whole.add(part)
        try:
            self.transact(lambda connection: completion_store.write(connection, whole))
        except Exception as error:
            if not rows_fault(error) or len(parts) == 1:
                raise
            return sum(self.written(part) for part in parts)
        return len(parts)

    def written(self, part: Batch) -> bool:
        try:
            return bool(self.write([part]))
        except Exception as error:
            if not rows_fault(error):
                raise
            return False

    def transact(self, action: Callable[[Connection], object]) -> None:
        with self.store.write_turn, writing_unsynced(self.engine) as connection:
            action(connection)

    # -- deleting --------------------------------------------------------------------------------------------------------

    def tidy(self) -> bool:
        """Delete a batch of what is old or too much. True: there may be more."""
        now_s, days = self.clock(), self.settings.keep_days
        with self.engine.connect() as connection:
            gone = completion_store.expired(connection, now_s, now_s - days * DAY_S if days else None) or self.surplus(connection)
        if gone:
            self.transact(lambda connection: completion_store.forget(connection, gone))
        freed = self.engine.dialect.name == "sqlite" and shrink(self.engine)
        return bool(gone) or freed

    def surplus(self, connection: Connection) -> list[str]:
        """A batch of the oldest requests, while there is too much."""
        if self.before_s is None and self.settings.keep_bytes is not None:
            self.before_s = completion_store.too_many(connection, self.settings.keep_bytes)
        gone = [] if self.before_s is None else completion_store.oldest(connection, self.before_s)
        self.before_s = self.before_s if gone else None
        return gone
