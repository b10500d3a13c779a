"""The log that a replica writes: our messages are in Serve's file, tracebacks can be read, lines carry the trace id."""

import os
import subprocess
import sys
import textwrap

import pytest

SET_UP = """
    import logging.config, os, sys
    from types import SimpleNamespace
    import ray
    from ray import serve
    from ray.serve._private import logging_utils
    from ray.serve._private.common import ServeComponentType
    from ray.serve._private.logging_utils import configure_component_logger
    from ray.serve.schema import LoggingConfig
    from deployments.ids import CURRENT
    from deployments.replicas.replica_log import write_to_file

    config = LoggingConfig(log_level="WARNING", enable_access_log=False, logs_dir=sys.argv[1], encoding=sys.argv[2])
    about = dict(component_name="app_ingress", component_id="r1", component_type=ServeComponentType.REPLICA)
    node = SimpleNamespace(max_bytes=1_000_000, backup_count=1)
    ray._private.worker._global_node = node
    logging_utils.get_serve_logs_dir = lambda: sys.argv[1]
    replica = SimpleNamespace(app_name="app", deployment="ingress", replica_id=SimpleNamespace(unique_id="r1"))
    serve.get_replica_context = lambda: replica
    configure_component_logger(**about, logging_config=config, max_bytes=1_000_000, backup_count=1, buffer_size=1000)
    if sys.argv[3] == "vllm":
        logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})  # as vLLM does while it is imported
    write_to_file()
    if sys.argv[3] == "engine":  # something that an engine may do while it starts
        logging.config.dictConfig({"version": 1})
        write_to_file(again=True)
        logging.getLogger("deployments.ledger.spool").disabled = False
"""
FAILS = """
    def failing():
        raise KeyError("what was missing")

    CURRENT.set("0123abcd")
    for name in ("stepdown", "deployments.ledger.spool", "ray.serve"):
        try:
            failing()
        except KeyError:
            logging.getLogger(name).exception("unexpected error of %s", name)
    CURRENT.set("")
    logging.getLogger("stepdown").warning("outside of requests")
    logging.getLogger("stepdown").info("too small to keep")
    os._exit(0)  # without a chance to write what was kept back
"""

pytestmark = pytest.mark.slow  # each starts a process that imports Ray, whose set-up replaces print and standard output


FAST = "RAY_SERVE_THROUGHPUT_OPTIMIZED"  # as with HAProxy: Serve then takes over print and standard output


def written(tmp_path, code: str, encoding: str = "TEXT", fast: str = "1", imported: str = "") -> str:
    command = [sys.executable, "-c", textwrap.dedent(SET_UP) + textwrap.dedent(code), str(tmp_path), encoding, imported]
    subprocess.run(command, check=True, capture_output=True, timeout=120, env={**os.environ, FAST: fast})
    return "".join(file.read_text() for file in tmp_path.glob("*.log"))


@pytest.mark.parametrize("imported", ["", "vllm", "engine"])
@pytest.mark.parametrize("fast", ["1", "0"])
def test_a_failure_is_found_by_its_trace_id_and_its_traceback_can_be_read(tmp_path, fast, imported):
    text = written(tmp_path, FAILS, fast=fast, imported=imported)
    for name in ("stepdown", "deployments.ledger.spool", "ray.serve"):
        (line,) = [line for line in text.splitlines() if f"unexpected error of {name}" in line]
        assert "0123abcd" in line and line.startswith("ERROR")
    assert text.count("Traceback (most recent call last):\n") == text.count("KeyError: 'what was missing'\n") == 3
    assert "('" not in text and "too small" not in text
    (outside,) = [line for line in text.splitlines() if "outside of requests" in line]
    assert "0123abcd" not in outside


def test_lines_in_json_carry_the_trace_id_too(tmp_path):
    lines = [line for line in written(tmp_path, FAILS, "JSON").splitlines() if "unexpected error" in line]
    assert len(lines) == 3 and all('"request_id": "0123abcd"' in line and "('" not in line for line in lines)


def test_print_works_as_it_is_documented(tmp_path):
    code = """
    import io
    file = io.StringIO()
    print("a", 1, file=file)
    print("a", 1, sep="-", end="!", file=file, flush=True)
    print(file=file)
    print("to standard output")
    print("and", "error", file=sys.stderr)
    assert file.getvalue() == "a 1\\na-1!\\n", file.getvalue()
    """
    written(tmp_path, code)


def test_without_serve_nothing_is_changed():
    import builtins

    from deployments.replicas.replica_log import write_to_file

    before = builtins.print
    write_to_file()
    assert builtins.print is before
