"""A promotion replaces what decides and keeps it ready; a rollback brings it back; either is one transaction."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine

from deployments.learning.live import bundles
from deployments.learning.live.bundles import Bundle
from deployments.ledger.database import writing

pytestmark = pytest.mark.slow
OLD = "0" * 64
NEW = "1" * 64
NEXT = "2" * 64


def wrote(engine: Engine, action: Callable[..., Any], *given: Any) -> Any:
    with writing(engine) as connection:
        return action(connection, *given)


def found(engine: Engine) -> dict[str, str]:
    """Slot -> digest."""
    with engine.connect() as connection:
        return {slot: bundle.digest for slot, bundle in bundles.read(connection).items()}


def test_at_first_nothing_is_promoted_and_nothing_can_be_taken_back(either):
    assert found(either) == {}
    assert wrote(either, bundles.rollback, "somebody", 1.0) is None


def test_a_canary_is_put_replaced_and_cleared(either):
    canary = Bundle("canary", NEW, "run", 0.05, 10.0, OLD, "host:1")
    wrote(either, bundles.put, canary)
    wrote(either, bundles.put, Bundle("canary", NEXT, "run", 0.1, 11.0, OLD, "host:1"))
    wrote(either, bundles.put, canary)
    with either.connect() as connection:
        assert bundles.read(connection) == {"canary": canary}
    wrote(either, bundles.clear, "canary")
    assert found(either) == {}


def test_a_promotion_ends_the_canary_and_keeps_what_it_replaces(either):
    wrote(either, bundles.put, Bundle("canary", NEW, "run"))
    wrote(either, bundles.promote, NEW, "run", OLD, "host:1", 20.0)
    assert found(either) == {"promoted": NEW, "previous": ""}  # before it the configured one decided
    wrote(either, bundles.promote, NEXT, "later", OLD, "host:1", 30.0)
    assert found(either) == {"promoted": NEXT, "previous": NEW}
    with either.connect() as connection:
        promoted = bundles.read(connection)["promoted"]
    assert promoted == Bundle("promoted", NEXT, "later", 1.0, 30.0, OLD, "host:1")


def test_a_run_that_goes_on_after_a_crash_promotes_once(either):
    wrote(either, bundles.promote, NEW, "run", OLD, "host:1", 20.0)
    wrote(either, bundles.promote, NEW, "run", OLD, "host:2", 25.0)
    assert found(either) == {"promoted": NEW, "previous": ""}


def test_a_rollback_brings_the_previous_one_back_once(either):
    wrote(either, bundles.promote, NEW, "run", OLD, "host:1", 20.0)
    wrote(either, bundles.promote, NEXT, "later", OLD, "host:1", 30.0)
    wrote(either, bundles.put, Bundle("canary", OLD, "third"))
    back = wrote(either, bundles.rollback, "somebody", 40.0)
    assert back == Bundle("promoted", NEW, "run", 1.0, 40.0, OLD, "somebody")
    assert found(either) == {"promoted": NEW}
    assert wrote(either, bundles.rollback, "somebody", 50.0) is None
    assert found(either) == {"promoted": NEW}


def test_a_rollback_may_lead_to_the_configured_artefact(either):
    wrote(either, bundles.promote, NEW, "run", OLD, "host:1", 20.0)
    assert wrote(either, bundles.rollback, "somebody", 40.0).digest == ""
    assert found(either) == {"promoted": ""}


def test_what_was_promoted_over_another_configured_artefact_is_not_kept_as_previous(either):
    wrote(either, bundles.promote, NEW, "run", OLD, "host:1", 20.0)
    wrote(either, bundles.promote, NEXT, "later", "another", "host:1", 30.0)  # the operator changed it meanwhile
    assert found(either) == {"promoted": NEXT, "previous": ""}


def test_a_promotion_that_fails_half_way_changes_nothing(either):
    wrote(either, bundles.put, Bundle("canary", NEW, "run"))
    with pytest.raises(RuntimeError), writing(either) as connection:
        bundles.promote(connection, NEW, "run", OLD, "host:1", 20.0)
        raise RuntimeError("killed")
    assert found(either) == {"canary": NEW}
