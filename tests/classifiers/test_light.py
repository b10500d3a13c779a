"""What is imported, and what is shipped: no heavy module that a process does not need, and every data file."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from classifiers.light import import_blocked


def test_a_module_is_away_for_a_while():
    sys.modules.pop("colorsys", None)
    with import_blocked("colorsys"), pytest.raises(ImportError):
        import colorsys
    import colorsys

    with import_blocked("colorsys"):  # what is there already stays
        assert sys.modules["colorsys"] is colorsys


@pytest.mark.slow
def test_a_router_is_loaded_without_pytorch():
    code = """if True:
        import sys
        from classifiers import load
        load("deployments/pocket/router")
        print("torch" in sys.modules)
        import sklearn.externals.array_api_compat.torch
        print("torch" in sys.modules)"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert said == ["False", "True"]


@pytest.mark.slow
def test_the_package_itself_imports_neither_scikit_learn_nor_numba():
    code = "import sys, classifiers; print(*({'sklearn', 'scipy', 'numba', 'skops'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []


def test_every_data_file_is_shipped():
    declared = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    shipped = {
        file for package, patterns in declared.items() for name in patterns for file in Path(package.replace(".", "/")).glob(name)
    }
    data = {file for file in Path("classifiers").rglob("*") if file.suffix in (".json", ".toml")}
    assert data and data <= shipped
