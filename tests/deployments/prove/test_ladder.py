"""The ladder of a proof: a copy of the configuration that is as the operator's, and a child that does not outlive its parent."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from waiting import until

from deployments.prove.ladder import COPY, copy_of, written
from router.config import load_config

ENDS = """
import subprocess, sys, time
from deployments.serve.background import end_with_parent
print(subprocess.Popen(["sleep", "600"], preexec_fn=end_with_parent).pid, flush=True)
time.sleep(600)
"""


def alive(pid):
    """Whether a process runs; one that ended and that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("name", ["pocket", "echo", "one_gpu", "pc"])
def test_the_copy_is_the_same_ladder_for_this_machine_alone(tmp_path, name):
    config = load_config(name)
    made = written(copy_of(config, tmp_path, "balanced", "buffer", None), tmp_path / COPY)
    assert made.tiers == config.tiers and made.delegation == config.delegation
    assert (made.server.host, made.server.replicas, made.learning.collect) == ("127.0.0.1", 1, "off")
    assert made.ledger.url == f"sqlite:///{tmp_path / 'ledger.db'}" and made.routing.artefact is None
    assert made.escalation.mode == "buffer"


def test_the_copy_names_the_router_by_its_whole_path(tmp_path):
    made = written(copy_of(load_config("echo"), tmp_path, "quality", "buffer", tmp_path / "router"), tmp_path / COPY)
    assert made.routing.artefact == str(tmp_path / "router") and made.routing.target == "quality"
    assert yaml.safe_load((tmp_path / COPY).read_text())["routing"]["artefact"] == str(tmp_path / "router")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel does it on Linux alone")
def test_a_ladder_ends_with_a_parent_that_was_killed():
    parent = subprocess.Popen([sys.executable, "-c", ENDS], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait(30)
    until(lambda: not alive(child), 30)
