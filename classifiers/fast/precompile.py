"""Compiles a trained classifier's decision about one text, once a machine: `python -m classifiers.fast.precompile FOLDER`."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from classifiers.artifact import load
from classifiers.models.base import Classifier
from classifiers.models.ensemble import Ensemble
from classifiers.sufficiency import Sufficiency


def compilable(model: Classifier) -> bool:
    """Whether `precompile` knows this kind of classifier, and numba is installed."""
    return isinstance(model, Sufficiency) and type(model.inner_) is Ensemble and find_spec("numba") is not None


def precompile(model: Classifier, folder: str = "") -> bool:
    """Compile `model.assess_one`: 15 s the first time on a machine, a second later. False: not `compilable`.

    folder: where the artefact is stored, for a process of its own to do that first time; empty: this process does.
    """
    if not compilable(model):
        return False
    from classifiers.fast.one_text import Compiled  # late: numba takes 70 MB, which only a server needs

    if folder:
        compile_apart(folder)
    model.compiled = Compiled(model)
    return True


def is_kept() -> bool:
    """Whether something compiled lies on disk; it may be of an older version."""
    from classifiers.fast.loops import assess

    folder = getattr(getattr(assess, "_cache", None), "cache_path", "")
    return bool(folder) and any(Path(folder).glob("loops.assess*.nbi"))


def compile_apart(folder: str) -> None:
    """Compile for the artefact in `folder` in a process of its own, where nothing is kept yet.

    The compiler would hold this one's lock for 15 s, and 100 MB for good.
    """
    if not is_kept():
        subprocess.run([sys.executable, "-m", "classifiers.fast.precompile", folder], check=False, timeout=300)


if __name__ == "__main__":
    precompile(load(sys.argv[1]).model)
