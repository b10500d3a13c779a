"""The ladder that the clients' tests share: started when the first of them needs it."""

import pytest

from tests.clients.ladder import ladder


@pytest.fixture(scope="session")
def shared_ladder(tmp_path_factory):
    with ladder(tmp_path_factory.mktemp("ladder")) as served:
        yield served


@pytest.fixture
def served(shared_ladder):
    """A ladder that remembers nothing of other tests."""
    shared_ladder.forget()
    return shared_ladder
