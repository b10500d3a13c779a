"""The pocket ladder, one for all files that need nothing else: it starts once, and ends before any other server starts."""

import pytest
from shared_ladder import POCKET

from router.config import SHIPPED


@pytest.fixture(scope="module")
def ladder(tmp_path_factory):
    """(url up to /v1, key). The shipped configuration, with delegation by a tool call as well."""
    return POCKET.started(lambda: pocket_file(tmp_path_factory.mktemp("pocket") / "pocket.yaml"))


def pocket_file(file):
    text = (SHIPPED / "pocket.yaml").read_text().replace("../pocket", str(SHIPPED.parent / "pocket"))
    file.write_text(text.replace("  mode: plan\n", "  mode: auto\n"))
    return file


@pytest.fixture(scope="session", autouse=True)
def ladder_ends():
    yield
    POCKET.stop()
