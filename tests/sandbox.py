"""Stands for an operator's sandbox in tests of `escalation.tests`: real code is run, in a process of its own."""

import re
import subprocess
import sys
import time

FENCED = re.compile(r"```(?:python)?\n(.*?)```", re.S)


def passes(answer: str, tests: str) -> bool | None:
    """None: there is no code in the answer."""
    found = FENCED.search(answer)
    if not found:
        return None
    return subprocess.run([sys.executable, "-I", "-c", f"{found[1]}\n{tests}"], timeout=20, capture_output=True).returncode == 0


def slow(answer: str, tests: str) -> bool:
    time.sleep(1)
    return False


def broken(answer: str, tests: str) -> bool:
    raise RuntimeError("no sandbox today")


NOT_A_FUNCTION = 1
