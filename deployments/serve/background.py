"""`stepdown serve` as a child process: for the demo, the benchmarks and the tests that need the real server."""

import ctypes
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import MappingProxyType

from deployments import OWN_PROBE
from deployments.ports import free_port
from router.errors import BadInput

PR_SET_PDEATHSIG = 1  # of Linux


def end_with_parent() -> None:
    """In the child: have the kernel send Ctrl-C when the thread that started it ends, however it ends."""
    with suppress(OSError, AttributeError):  # not on Linux
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT)


@contextmanager
def served(config: str, timeout_s: float = 600.0, env: Mapping[str, str] = MappingProxyType({})) -> Iterator[tuple[str, str]]:
    """Start it on a free port with a key of its own; yield (url up to /v1, key); stop it, also when this process is killed.

    env: further environment variables. Raises BadInput.
    """
    import httpx

    key, port = f"sk-{secrets.token_hex(8)}", free_port()
    variables = {**os.environ, **env, "STEPDOWN_API_KEY": key, "STEPDOWN_PORT": str(port)}
    command = [sys.executable, "-m", "deployments", "serve", config, "--dashboard-port", str(free_port())]
    process = subprocess.Popen(
        command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=end_with_parent
    )
    try:
        wait_until_ready(process, timeout_s)
        url = f"http://127.0.0.1:{port}"
        httpx.get(f"{url}/readyz", headers={"user-agent": OWN_PROBE}, timeout=30).raise_for_status()
        yield f"{url}/v1", key
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(120)
        except subprocess.TimeoutExpired:
            process.kill()


def wait_until_ready(process: "subprocess.Popen[str]", timeout_s: float) -> None:
    """Read its output until it says that it is ready. Raises BadInput with its last lines if it stops before that."""
    lines, until = [], time.monotonic() + timeout_s
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if "Stepdown is ready" in line:
            return
        if time.monotonic() > until:
            break
    raise BadInput("stepdown serve did not become ready:\n" + "".join(lines[-30:]))
