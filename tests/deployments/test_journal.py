"""The journal of a proof: what is done is not done again, what has changed is, and the run says why."""

import pytest

from deployments.journal import JOURNAL, Steps
from router.errors import BadInput


class Work:
    """A step that leaves a file."""

    def __init__(self, folder):
        self.folder, self.times = folder, 0

    def __call__(self):
        self.times += 1
        (self.folder / "made").write_text(f"{self.times}")
        return {"times": self.times}


@pytest.fixture
def said():
    return []


def run(folder, said, work, **inputs):
    with Steps(folder, said.append) as steps:
        return steps.run("label", {"the prompts": 1} | inputs, ["made"], work)


def test_a_finished_step_is_not_done_again(tmp_path, said):
    work = Work(tmp_path)
    assert run(tmp_path, said, work) == run(tmp_path, said, work) == {"times": 1}
    assert said == ["label: done before"]


def test_a_changed_input_is_noticed_and_named(tmp_path, said):
    work = Work(tmp_path)
    run(tmp_path, said, work)
    assert run(tmp_path, said, work, **{"the prompts": 2}) == {"times": 2}
    assert said == ["label: done again, for the prompts changed since"]


def test_a_file_that_is_gone_or_changed_is_made_again(tmp_path, said):
    work = Work(tmp_path)
    run(tmp_path, said, work)
    (tmp_path / "made").write_text("by somebody else")
    assert run(tmp_path, said, work) == {"times": 2}
    (tmp_path / "made").unlink()
    assert run(tmp_path, said, work) == {"times": 3}
    assert said == ["label: done again, for made changed since"] * 2


def test_a_step_that_fails_is_not_done(tmp_path, said):
    def fails():
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        run(tmp_path, said, fails)
    assert run(tmp_path, said, Work(tmp_path)) == {"times": 1}


def test_two_runs_do_not_share_a_folder(tmp_path, said):
    with Steps(tmp_path, said.append), pytest.raises(BadInput, match="another run works there"), Steps(tmp_path, said.append):
        pass


def test_a_damaged_journal_means_that_nothing_is_done(tmp_path, said):
    run(tmp_path, said, Work(tmp_path))
    (tmp_path / JOURNAL).write_text("{")
    assert run(tmp_path, said, Work(tmp_path)) == {"times": 1}
