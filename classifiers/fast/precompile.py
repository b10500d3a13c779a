"""Compiles a trained classifier, which is needed once per machine: `python -m classifiers.fast.precompile FOLDER`."""

import logging
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from classifiers.artifact import load
from classifiers.models.base import Classifier
from classifiers.models.ensemble import Ensemble
from classifiers.sufficiency import Sufficiency

LIMIT_S = 300.0  # for the child process; a machine that is busy takes ten times as long as an idle one
log = logging.getLogger("stepdown")


def compilable(model: Classifier) -> bool:
    """Whether `precompile` supports this kind of classifier and numba is installed."""
    return isinstance(model, Sufficiency) and type(model.inner_) is Ensemble and find_spec("numba") is not None


def precompile(model: Classifier, folder: str = "") -> bool:
    """Compile `model.assess_one`: 15 s the first time on a machine, then a second. False: it is not `compilable`, or was not
    compiled in time; the model then decides too, ten times slower.

    folder: where the artefact is stored; a child process then compiles the first time. Empty: this process compiles.
    """
    if not compilable(model):
        return False
    from classifiers.fast.one_text import Compiled  # late: numba takes 70 MB, and only a server needs it

    if folder and not compile_apart(folder):
        return False
    model.compiled = Compiled(model)
    return True


def is_kept() -> bool:
    """Whether there is compiled code on disk; it may be of an older version."""
    from classifiers.fast.loops import assess

    folder = getattr(getattr(assess, "_cache", None), "cache_path", "")
    return bool(folder) and any(Path(folder).glob("loops.assess*.nbi"))


def compile_apart(folder: str) -> bool:
    """Compile for the artefact in `folder` in a child process, unless there is compiled code already. False: it took too long.

    In this process the compiler would hold the interpreter's lock for 15 s and keep 100 MB for good.
    """
    if is_kept():
        return True
    try:
        subprocess.run([sys.executable, "-m", "classifiers.fast.precompile", folder], check=False, timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        log.warning("the classifier was not compiled within %.0f s, so deciding stays slower until the next start", LIMIT_S)
        return False
    return True


if __name__ == "__main__":
    precompile(load(sys.argv[1]).model)
