"""The whole matrix of consent: operator, key, request."""

import pytest

from router.limits.consent import CONSENTS, kept_by


@pytest.mark.parametrize(
    "operator, key, store, expected",
    [
        ("off", "never", None, ("", "operator")),
        ("off", "never", True, ("", "operator")),
        ("off", "never", False, ("", "request")),
        ("off", "marked", None, ("", "operator")),
        ("off", "marked", True, ("", "operator")),
        ("off", "marked", False, ("", "request")),
        ("off", "all", None, ("", "operator")),
        ("off", "all", True, ("", "operator")),
        ("off", "all", False, ("", "request")),
        ("consented", "never", None, ("", "key")),
        ("consented", "never", True, ("", "key")),
        ("consented", "never", False, ("", "request")),
        ("consented", "marked", None, ("", "request")),
        ("consented", "marked", True, ("marked", "")),
        ("consented", "marked", False, ("", "request")),
        ("consented", "all", None, ("all", "")),
        ("consented", "all", True, ("marked", "")),
        ("consented", "all", False, ("", "request")),
    ],
)
def test_the_least_of_the_three_decides(operator, key, store, expected):
    assert kept_by(operator, key, store) == expected


@pytest.mark.parametrize("operator", ["off", "consented"])
@pytest.mark.parametrize("key", CONSENTS)
def test_store_false_always_wins(operator, key):
    assert kept_by(operator, key, False) == ("", "request")


@pytest.mark.parametrize("operator", ["off", "consented"])
@pytest.mark.parametrize("key", CONSENTS)
@pytest.mark.parametrize("store", [None, True, False])
def test_it_is_kept_or_somebody_forbids_it(operator, key, store):
    kept, why = kept_by(operator, key, store)
    assert bool(kept) != bool(why)
