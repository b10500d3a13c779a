"""Helpers that several folders of tests share are importable: this folder is put on the path."""

import os
import sys
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))
# No test writes into the ledger of the person who runs it.
os.environ["STEPDOWN_STATE_DIR"] = tempfile.mkdtemp(prefix="stepdown-tests-")

# Fuzz tests take their number of cases from here: few and always the same ones by default, many and new ones in `make fuzz`.
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
COMMON = settings(deadline=None, database=None, suppress_health_check=SLOW)
CASES = int(os.environ.get("STEPDOWN_FUZZ_CASES", "25000"))
settings.register_profile("quick", COMMON, max_examples=100, derandomize=True)
settings.register_profile("thorough", COMMON, max_examples=CASES, print_blob=True)
settings.load_profile("quick")


def pytest_collection_modifyitems(items):
    from shared_ladder import in_order

    in_order(items)


def pytest_runtest_setup(item):
    from shared_ladder import make_room

    make_room(item)
