"""stepdown serve: start or join Ray, run the ladder, say how to use it, stop what was started."""

import logging
import os
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

import click
import httpx

from deployments import APP, OWN_PROBE
from deployments.keys.access import Access, decide_access, with_first_key
from deployments.monitoring import grafana
from deployments.ports import check_port
from deployments.serve.farewell import say_goodbye
from deployments.serve.haproxy import environment, state_folder, uses_haproxy
from deployments.serve.haproxy_stand_in import StandIn
from deployments.serve.process_cleanup import MARK, ServerProcesses
from deployments.serve.start_checks import asked_abilities, broken_promise, limits
from router.config import Config, load_config
from router.errors import BadInput

FRONT_DOOR_S = 60.0  # how long to wait until the front door answers
WATCHDOG_S = 10.0  # how long to wait until the watchdog has ended

# What Ray puts around its own servers, in place of its `x-request-id`.
AROUND_RAY = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "deployments.endpoint.framing:middlewares"}


@click.command()
@click.argument("config", default="pocket")
@click.option("--host", default=None, help="Address to listen on.  [default: the configuration's, 127.0.0.1]")
@click.option("--port", type=click.IntRange(1, 65535), envvar="STEPDOWN_PORT", default=None, help="Port to listen on.")
@click.option("--api-key", envvar="STEPDOWN_API_KEY", default=None, help="A key with all rights, in addition to the stored ones.")
@click.option("--no-keys", is_flag=True, help="Require no key. Refused where other machines can connect.")
@click.option("--insecure", is_flag=True, help="Require no key, even where other machines can connect.")
@click.option("--dashboard-port", default=8265, show_default=True, help="Port of Ray's dashboard, if this command starts Ray.")
def serve(
    config: str, host: str | None, port: int | None, api_key: str | None, no_keys: bool, insecure: bool, dashboard_port: int
) -> None:
    """Serve CONFIG (a YAML file, or a shipped ladder by name) until Ctrl-C.

    The first start makes a key and shows it once; `stepdown keys` makes more.
    """
    from deployments.app import application, placed_file  # Ray Serve and scikit-learn take seconds; --help needs neither
    from deployments.tiers.check import check

    loaded = with_address(load_config(config), host, port)
    check(loaded)  # a wrong configuration stops here, before Ray starts
    check_port(loaded.server.host, loaded.server.port)
    opened = decide_access(loaded, api_key, no_keys, insecure)
    stop = threading.Event()
    stop_on_signals(stop)
    variables = {**environment(loaded, opened), **AROUND_RAY, MARK: secrets.token_hex(8)}
    started = start_ray(dashboard_port, variables)
    ours = ServerProcesses(variables[MARK], ray_node().get_session_dir_path()) if started else None
    watchdog = ours.watchdog() if ours else None
    stand_in = StandIn(state_folder(variables) if started else None)
    stop_on_signals(stop)  # Ray has replaced our handler by its own, which ends this process and leaves its children
    check_free(started)
    try:
        if run(application(loaded, opened.key_hash, opened.insecure, placed_file(config)), loaded, stop):
            if started:
                install_boards()
            stand_in.start()
            known = asked_abilities(loaded)
            click.echo(welcome(loaded, with_first_key(loaded, opened), dashboard_address(), started, limits(known), log_folder()))
            stop.wait()
            stop.clear()
            say_goodbye(loaded.server, hurry=stop)
    finally:
        stand_in.stop()
        shut_down(started, loaded.server.drain_s)
        stand_in.end()
        if ours and watchdog:
            clean_up(ours, watchdog)


def stop_on_signals(stop: threading.Event) -> None:
    """Ctrl-C and SIGTERM stop the server, even where a background shell has them ignored."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())


def install_boards() -> None:
    """Put the cost boards where the Grafana of a Ray that was started here finds them: Ray has just rewritten its own."""
    try:
        grafana.install(grafana.ray_folder())
    except OSError as error:
        click.echo(f"the Grafana boards could not be written ({error.strerror}); later: stepdown dashboard install")


def with_address(config: Config, host: str | None, port: int | None) -> Config:
    given = {name: value for name, value in (("host", host), ("port", port)) if value}
    return config.model_copy(update={"server": config.server.model_copy(update=given)})


def start_ray(dashboard_port: int, variables: Mapping[str, str]) -> bool:
    """Join the cluster that RAY_ADDRESS names or that runs here; else, or if it is `local`, start one. True: started here.

    variables: the environment of the processes of a Ray started here.
    """
    import ray

    for name in ("ray", "ray.serve", "ray.llm"):
        logging.getLogger(name).setLevel(logging.ERROR)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "namespace": "serve"}
    if os.environ.get("RAY_ADDRESS") == "local":
        del os.environ["RAY_ADDRESS"]  # or each process of that Ray would start one of its own
    elif joined(quiet):
        click.echo("joined the Ray cluster that is running already")
        return False
    click.echo("starting Ray ...")
    os.environ.update(variables)
    ray.init(include_dashboard=True, dashboard_host="127.0.0.1", dashboard_port=dashboard_port, **quiet)
    return True


def joined(quiet: Mapping[str, Any]) -> bool:
    """Raises BadInput if RAY_ADDRESS names a cluster that does not answer."""
    import ray

    where = os.environ.get("RAY_ADDRESS")
    try:
        ray.init(address=where or "auto", **quiet)
        return True
    except ConnectionError:
        if where:
            message = f"RAY_ADDRESS is {where}, where no Ray cluster answers; unset it, or start one"
            raise BadInput(message) from None
        return False


def check_free(started: bool) -> None:
    """Raises BadInput if the cluster serves a Stepdown already: this one would replace it, and miss its port."""
    from ray import serve as ray_serve

    from deployments.replicas.variant_apps import delete_all

    if not started and APP in ray_serve.status().applications:
        raise BadInput("this Ray cluster serves a Stepdown already; stop it, or give this one its own Ray: RAY_ADDRESS=local")
    if not started:
        with suppress(TimeoutError):  # of one that was killed: they may have other settings than this one's
            delete_all()


def run(app: Any, config: Config, stop: threading.Event) -> bool:
    """Deploy and show progress until every tier is ready. False: stopped before that. Raises BadInput."""
    from ray import serve as ray_serve

    from deployments.replicas.replica_count import details

    ray_serve.start(http_options={"host": config.server.host, "port": config.server.port})
    failed: list[BaseException] = []

    def deploy() -> None:
        try:
            ray_serve.run(app, name=APP, route_prefix="/")
        except Exception as error:  # noqa: BLE001 - the main thread reports it
            failed.append(error)

    thread = threading.Thread(target=deploy, daemon=True)
    began, shown = time.monotonic(), ""
    thread.start()
    while thread.is_alive() and not stop.wait(1.0):
        if broken := broken_promise(details()):
            raise BadInput(f"the ladder did not start: {broken}")
        now = progress({*config.sleepers, *(service.name for service in config.services if service.sleeps)})
        if now != shown:
            click.echo(f"  {time.monotonic() - began:4.0f} s  {now}")
            shown = now
    if failed:
        raise BadInput(f"the ladder did not start: {failed[0]}\n{messages()}\nthe log has more: {log_folder()}")
    return not stop.is_set() and answers(config, stop)


def answers(config: Config, stop: threading.Event) -> bool:
    """Wait until all tiers are up and requests are answered. False: stopped before that. Raises BadInput after a while."""
    host = "127.0.0.1" if config.server.host in ("0.0.0.0", "::") else config.server.host.strip("[]")
    until, said = time.monotonic() + FRONT_DOOR_S, "nothing answers"
    while time.monotonic() < until:
        with suppress(httpx.HTTPError):
            at = f"[{host}]" if ":" in host else host
            answers = [probed(f"http://{at}:{config.server.port}{path}") for path in ("/startupz", "/readyz")]
            told = [f"{a.url.path} says {a.status_code}: {a.text[:500]}" for a in answers if a.status_code != 200]
            if not told:
                return True
            said = told[0]
        if stop.wait(0.1):
            return False
    raise BadInput(f"the ladder has started, but on {host}:{config.server.port} after {FRONT_DOOR_S:g} s {said}")


def probed(url: str) -> httpx.Response:
    """What a path of health says. Raises httpx.HTTPError."""
    return httpx.get(url, headers={"user-agent": OWN_PROBE}, timeout=5)


def progress(sleepers: Collection[str]) -> str:
    """One line: each deployment and what it is doing. sleepers: tiers and services that may have no replica."""
    from deployments.replicas.placement import PREFIX, SERVICE_PREFIX
    from deployments.replicas.replica_count import details, states

    seen = [
        (name.removeprefix(PREFIX).removeprefix(SERVICE_PREFIX), its)
        for (app, name), its in states(details()).items()
        if app == APP
    ]
    return ", ".join(f"{name} {doing(its, name in sleepers)}" for name, its in seen) or "waiting for Ray Serve"


def doing(replicas: Mapping[str, int], sleeps: bool) -> str:
    """replicas: how many are in each state."""
    if replicas.get("RUNNING"):
        return "ready"
    return "asleep" if sleeps and not any(replicas.values()) else "loading"


def messages() -> str:
    """Serve's message about each deployment that is not well."""
    from ray import serve as ray_serve

    app = ray_serve.status().applications.get(APP)
    return "\n".join(f"{n}: {d.message[-1500:]}" for n, d in app.deployments.items() if d.message) if app else ""


def ray_node() -> Any:
    """Ray's own object for this machine: Ray has no public way to its session's folder and its dashboard's address."""
    import ray

    return ray._private.worker.global_worker.node


def dashboard_address() -> str:
    address = ray_node().address_info.get("webui_url")
    if not address:
        return "not running"
    return str(address) if "://" in address else f"http://{address}"


def log_folder() -> str:
    """The folder of this machine's log: a file for each ingress and each tier's replica."""
    return f"{ray_node().get_logs_dir_path()}/serve"


def welcome(config: Config, door: Access, dashboard: str, started: bool = True, unable: str = "", log: str = "") -> str:
    """What a newcomer needs: the address, the key, and one line that works. unable: what tiers cannot do, a line each."""
    url = f"http://{config.server.host}:{config.server.port}/v1"
    beside = "".join(f"\n  {service.kind:10} {service.name}" for service in config.services)
    asleep = "".join(f"\n  asleep     {name}: starts with its first request" for name in config.sleepers)
    reach = "   (HAProxy's statistics: on every interface, see server.front)" if uses_haproxy(config, door) and started else ""
    body = '{"model": "auto", "messages": [{"role": "user", "content": "What is 23 plus 45?"}]}'
    return f"""
Stepdown is ready: {" < ".join(config.names)}{beside}{asleep}{unable}
  URL        {url}{reach}
  API key    {door.summary()}
  dashboard  {dashboard}   (if it asks for a token: ray get-auth-token)
  log        {log}

  curl -s {url}/chat/completions {door.curl_header()}-H "Content-Type: application/json" -d '{body}'

Ctrl-C stops it."""


def shut_down(started: bool, drain_s: float) -> None:
    """Stop the application once running answers have ended; stop Ray and Serve only if this command started them."""
    import ray
    from ray import serve as ray_serve

    from deployments.replicas.variant_apps import delete_all

    if not ray.is_initialized():
        return
    until = time.monotonic() + drain_s
    while True:
        with suppress(TimeoutError):  # Serve gives up after a minute
            ray_serve.delete(APP)
            break
        if time.monotonic() > until:
            break
    with suppress(TimeoutError):  # only now: while an ingress lives, it starts them again
        delete_all()
    if started:
        ray_serve.shutdown()  # type: ignore[no-untyped-call]  # Ray's function has no annotations
    ray.shutdown()


def clean_up(ours: ServerProcesses, watchdog: "subprocess.Popen[bytes]") -> None:
    """End the processes that are still running after that."""
    if asked := ours.end():
        click.echo(f"ended {len(asked)} processes that did not end with their replica")
    watchdog.communicate(timeout=WATCHDOG_S)
