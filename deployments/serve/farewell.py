"""The first part of a stop: every ingress says that it is not ready any more, and answers on until load balancers notice."""

import logging
import threading

import click

from deployments import APP
from router.config import Server

LOOKED_S = 30.0  # a load balancer asks more often than that
ASK_S = 3.0  # for the ingresses' word
log = logging.getLogger("stepdown")


def say_goodbye(server: Server, hurry: threading.Event) -> None:
    """Tell the ingresses, and wait `drain_delay_s` if somebody has asked of late whether they are ready.

    Nobody else would learn anything in that time: on a terminal, a stop takes no longer. hurry: ends the waiting.
    """
    delay_s = delay_of(server.drain_delay_s)
    told = f"new requests are taken for {delay_s:g} s more, then " if delay_s else ""
    click.echo(f"stopping: {told}running answers have {server.drain_s:g} s to end ...")
    hurry.wait(delay_s)


def delay_of(usual_s: float) -> float:
    """Let every ingress begin to stop; returns after how many seconds they refuse new requests. 0 where they do not answer."""
    from ray import serve

    try:
        ingresses = serve.get_deployment_handle("ingress", APP)
        asked_s = ingresses.broadcast("asked_s").results(timeout_s=ASK_S)
        delay_s = usual_s if min(asked_s, default=LOOKED_S) < LOOKED_S else 0.0
        ingresses.broadcast("drain", delay_s).results(timeout_s=ASK_S)
    except Exception as error:  # noqa: BLE001 whatever Ray has: the stop goes on without, as Serve's own
        log.warning("the ingresses could not be told that the server stops: %s", type(error).__name__)
        return 0.0
    return delay_s
