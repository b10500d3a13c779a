"""Opens a ledger for commands that read: the configuration's, or another one by its address."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine, inspect
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from deployments.ledger.database import address, connect
from router.config import Ledger
from router.errors import BadInput


@contextmanager
def open_for_reading(settings: Ledger, url: str | None = None) -> Iterator[Engine]:
    """Raises BadInput where there is no ledger; none is made."""
    chosen = settings if url is None else settings.model_copy(update={"url": url})
    place = address(chosen)
    if place.startswith("sqlite") and not Path(make_url(place).database or "").exists():
        raise BadInput(f"no ledger at {place}; `stepdown serve` makes it, or name another with --ledger")
    engine, shown = connect(chosen), make_url(place).render_as_string(hide_password=True)
    try:
        tables = inspect(engine).get_table_names()
        if "hourly_traces" not in tables:
            raise BadInput(f"{shown} holds no ledger of Stepdown; name another with --ledger")
        if "daily_machines" not in tables:
            raise BadInput(f"{shown} was made by an older version; start `stepdown serve` on it to bring it up to date")
        yield engine
    except DBAPIError as error:
        raise BadInput(f"the ledger at {shown} cannot be read ({error.orig}); name another with --ledger") from None
    finally:
        engine.dispose()
