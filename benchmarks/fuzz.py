"""Sends N generated requests to the wire parser, the flows and the endpoint, and answers to the check of what tiers say.

Prints one JSON line: `make fuzz`. Cases are spread evenly over the fuzz tests; pytest prints a failure with its input.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = (
    "tests/router/request/test_wire_fuzz.py",
    "tests/deployments/tiers/test_tier_answer_fuzz.py",
    "tests/deployments/endpoint/test_openapi_fuzz.py",
    "tests/deployments/endpoint/test_protocols_fuzz.py",
    "tests/deployments/endpoint/test_upstream_fuzz.py",
)
TESTS = 16  # of hypothesis's own and operations that take anything, which share the cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000)
    asked = parser.parse_args()
    os.environ["STEPDOWN_FUZZ_CASES"] = str(-(-asked.cases // TESTS))
    began = time.monotonic()
    sys.path.insert(0, str(ROOT / "tests"))  # as tests/conftest.py does; both must see the same counts
    status = pytest.main(["--hypothesis-profile", "thorough", "-p", "no:cacheprovider", *(str(ROOT / file) for file in FILES)])
    from fuzzing import cases

    took = time.monotonic() - began
    counts = {"cases": sum(cases.values()), "failed": int(status != 0), "by_test": dict(cases)}
    print(json.dumps({"bench": "fuzz", **counts, "s": round(took, 1)}))
    sys.exit(int(status))


if __name__ == "__main__":
    main()
