"""Opens a ledger for commands that read: the configuration's, or another one by its address."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import Engine, inspect
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from deployments.ledger.database import address, connect, migrate
from router.config import Ledger
from router.errors import BadInput


@contextmanager
def open_for_reading(settings: Ledger, url: str | None = None) -> Iterator[Engine]:
    """Raises BadInput where there is no ledger; none is made. A file of an older version is read in a copy of today's form."""
    chosen = settings if url is None else settings.model_copy(update={"url": url})
    place = address(chosen)
    file = Path(make_url(place).database or "") if place.startswith("sqlite") else None
    if file and not file.exists():
        raise BadInput(f"no ledger at {place}; `stepdown serve` makes it, or name another with --ledger")
    engine, shown = connect(chosen), make_url(place).render_as_string(hide_password=True)
    try:
        tables = inspect(engine).get_table_names()
        if "hourly_traces" not in tables:
            raise BadInput(f"{shown} holds no ledger of Stepdown; name another with --ledger")
        sums = {column["name"] for column in inspect(engine).get_columns("hourly")}
        if "daily_machines" in tables and "thought_tokens" in sums:
            yield engine
        elif file and "daily_machines" in tables:
            with brought_up_to_date(file) as copy:
                yield copy
        else:
            raise BadInput(f"{shown} was made by an older version; start `stepdown serve` on it to bring it up to date")
    except DBAPIError as error:
        raise BadInput(f"the ledger at {shown} cannot be read ({error.orig}); name another with --ledger") from None
    finally:
        engine.dispose()


@contextmanager
def brought_up_to_date(file: Path) -> Iterator[Engine]:
    """A copy of a ledger in today's form, for as long as it is read: commands that read change nothing."""
    with TemporaryDirectory(prefix="stepdown-ledger-") as folder:
        copy = Path(folder) / "ledger.db"
        with closing(sqlite3.connect(file)) as old, closing(sqlite3.connect(copy)) as new:
            old.backup(new)
        engine = connect(Ledger(url=f"sqlite:///{copy}"))
        try:
            migrate(engine)
            yield engine
        finally:
            engine.dispose()
