import inspect
import re

from router import errors


def test_the_tree_in_the_docstring_is_the_tree():
    drawn = re.findall(r"^[│├└─ ]*([A-Z]\w+)", errors.__doc__.split("\n\n", 1)[1], re.MULTILINE)
    written = [n for n, c in vars(errors).items() if inspect.isclass(c) and issubclass(c, errors.StepdownError)]
    assert sorted(drawn) == sorted(written)


def test_a_tiers_own_error_is_kept_only_for_faults_of_the_request():
    theirs = {"error": {"message": "no"}}
    assert errors.TierFailed("t", "no", 422, theirs).body() == theirs
    assert errors.TierFailed("t", "no", 500, theirs).body()["error"]["code"] == "tier_failed"
    assert errors.TierFailed("t", "no", 500).status == 502
