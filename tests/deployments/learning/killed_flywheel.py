"""The flywheel's process, with routers that need no training: `killed_flywheel.py FILE`. FILE: says which events were written.

Its first line of input is the configuration, as for `deployments.learning.process`.
"""

import sys
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from life import Always

from deployments.learning import flywheel, process
from deployments.learning.steps import work

flywheel.PACE_S = 0.0
process.BUSY_S = process.PACE_S = 0.05


class Slow(Always):
    """Takes so long that it is killed at work, too."""

    def train(self, asked):
        time.sleep(0.2)
        return super().train(asked)


def wrote(file, what):
    with open(file, "a") as said:
        said.write(what + "\n")


if __name__ == "__main__":
    made = flywheel.Flywheel
    process.Flywheel = partial(made, parts=Slow(), wrote=partial(wrote, sys.argv.pop()))
    assert work.PACE_S
    process.main()
