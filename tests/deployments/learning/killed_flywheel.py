"""The flywheel's process, with parts that need no training: `killed_flywheel.py FILE [student]`. FILE: says which events were
written. student: also of a student's run.

Its first line of input is the configuration, as for `deployments.learning.process`.
"""

import os
import sys
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from life import Always
from student_life import StudentParts

from deployments.learning import flywheel, process
from deployments.learning.steps import work

flywheel.PACE_S = 0.0
process.BUSY_S = process.PACE_S = 0.05


class Slow(Always):
    """Takes so long that it is killed at work, too."""

    def train(self, asked):
        time.sleep(0.2)
        return super().train(asked)


class SlowStudent(StudentParts):
    """Each step of its training takes a while."""

    def __init__(self, store):
        super().__init__(store)
        self.student.hooks = dict.fromkeys(("data", "train", "gates", "answers", "router"), lambda: time.sleep(0.2))


def wrote(file, what):
    with open(file, "a") as said:
        said.write(what + "\n")


if __name__ == "__main__":
    made = flywheel.Flywheel
    parts = SlowStudent(Path(os.environ["WEIGHTS"])) if sys.argv[-1] == "student" and sys.argv.pop() else Slow()
    process.Flywheel = partial(made, parts=parts, wrote=partial(wrote, sys.argv.pop()))
    assert work.PACE_S
    process.main()
