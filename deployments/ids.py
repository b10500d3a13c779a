"""Ids that are unique and no secrets.

`uuid.uuid4` asks the kernel, and Python lets go of its lock for that: in a process with other threads the event loop then waits
for it behind them. A generator that was seeded by the kernel once costs no such wait (docs/speed.md).
"""

import random
import secrets

GENERATOR = random.Random(secrets.randbits(256))
"""of this process; others may seed the module's own"""


def fresh() -> str:
    """32 hexadecimal digits."""
    return f"{GENERATOR.getrandbits(128):032x}"
