"""Checks a configuration before anything starts. By itself in a file, so that `stepdown check` need not load Ray."""

from deployments.replicas.adapter_files import Adapter, adapter_of, check_host
from deployments.replicas.reasoning_parsers import check_known, installed
from deployments.tiers.token_counters import counters
from router.config import Config
from router.engine import Router, load_artefact
from router.errors import BadConfig


def check(config: Config) -> None:
    """Find everything that would stop the start, without starting. Raises BadConfig."""
    Router(config, load_artefact(config), counters(config))
    for section, those in (("tiers", config.tiers), ("services", config.services)):
        for one in those:
            if missing := one.missing():
                raise BadConfig(f"{section}.{one.name}.{missing}")
    check_adapters(config)
    for tier in config.tiers:
        if tier.local and tier.thinking and not tier.model_source.settings.get("reasoning_parser_plugin"):
            check_known(tier.name, tier.thinking.parser, installed())


def check_adapters(config: Config) -> None:
    """Read the files of all adapters and the options of their hosts. Raises BadConfig."""
    by_host: dict[str, list[Adapter]] = {}
    for rung in config.rungs:
        by_host.setdefault(rung.on, []).append(adapter_of(rung))
    for host, adapters in by_host.items():
        settings = next(rung.host for rung in config.rungs if rung.on == host)
        check_host(host, settings.engine_kwargs, adapters, on_cpu=not settings.accelerator)
