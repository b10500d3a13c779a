import subprocess
import sys

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
