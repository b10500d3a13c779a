"""The pocket ladder, for the tests of a file: one Ray serves one Stepdown, so it must be gone before the next file's server."""

import pytest

from deployments.serve.background import served
from router.config import SHIPPED


@pytest.fixture(scope="module")
def ladder(tmp_path_factory):
    """(url up to /v1, key). The shipped configuration, with delegation by a tool call as well."""
    text = (SHIPPED / "pocket.yaml").read_text().replace("../pocket", str(SHIPPED.parent / "pocket"))
    file = tmp_path_factory.mktemp("pocket") / "pocket.yaml"
    file.write_text(text.replace("  mode: plan\n", "  mode: auto\n"))
    with served(str(file), timeout_s=900) as found:
        yield found
