"""A ledger to read from, for commands: the one of the configuration, or another one by its address."""

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
def opened(settings: Ledger, url: str | None = None) -> Iterator[Engine]:
    """Raises BadInput where there is no ledger: reading makes none."""
    chosen = settings if url is None else settings.model_copy(update={"url": url})
    place = address(chosen)
    if place.startswith("sqlite") and not Path(make_url(place).database or "").exists():
        raise BadInput(f"no ledger at {place}; a running `stepdown serve` makes it, or name another with --ledger")
    engine = connect(chosen)
    try:
        tables = inspect(engine).get_table_names()
        if "hourly_traces" not in tables:
            raise BadInput(f"{shown(place)} holds no ledger of Stepdown's; name another with --ledger")
        if "daily_machines" not in tables:
            raise BadInput(f"{shown(place)} is of an older version; a start of `stepdown serve` on it brings it up to date")
        yield engine
    except DBAPIError as error:
        raise BadInput(f"the ledger at {shown(place)} cannot be read ({error.orig}); name another with --ledger") from None
    finally:
        engine.dispose()


def shown(place: str) -> str:
    """Without its password."""
    return make_url(place).render_as_string(hide_password=True)
