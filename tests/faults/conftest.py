"""The faults of docs/operations.md, each a test by its name. Servers, tiers and clients are those of tests/deployments."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "deployments"))
sys.path.insert(0, str(Path(__file__).parent))
