"""The ladder that a proof asks: one of its own, started from a copy of the configuration, or one that runs already."""

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, Protocol

import httpx
import yaml

from classifiers.files import atomic_write
from deployments.prove.learn import ROUTER
from deployments.serve.background import served
from router.config import Config, load_config
from router.errors import BadInput
from router.learn.labels.ladder_client import address_of, headers_of, reason_in

COPY = "ladder.yaml"
LEDGER = "ledger.db"
START_S = 3600.0  # large models take long to load
PATIENCE_S = 60.0  # for a reload, and for the status
Start = Callable[[str, Mapping[str, str]], AbstractContextManager[tuple[str, str]]]
"""(configuration, further environment variables) -> (address, key) while it is open"""


class Ladder(Protocol):
    """Where requests go."""

    def reach(self) -> tuple[str, str]:
        """Its address, with or without /v1, and a key."""

    def use(self, router: Path, digest: str) -> None:
        """Decide by this router from now on. digest: of its certificate, by which it is known. Raises BadInput."""


def copy_of(config: Config, folder: Path, target: str, mode: str, artefact: Path | None) -> Config:
    """The configuration as it is served here: this machine only, its own ledger, nothing collected, answers judged."""
    changed: dict[str, Any] = {
        "server": {"host": "127.0.0.1", "replicas": 1, "reload": "asked"},
        "ledger": {"url": f"sqlite:///{(folder / LEDGER).resolve()}"},
        "learning": {"collect": "off", "start": "asked"},
        "routing": {"artefact": str(artefact.resolve()) if artefact else None, "target": target},
        "escalation": {"mode": mode, "audit_rate": 0.0},
    }
    told = {name: getattr(config, name).model_copy(update=settings) for name, settings in changed.items()}
    return config.model_copy(update=told)


def written(config: Config, file: Path) -> Config:
    """Write the configuration, and give it as the server will read it. Raises BadConfig."""
    settings = config.model_dump(mode="json", exclude_defaults=True)
    head = "# Written by `stepdown prove`: the configuration that was given, with what the proof changes.\n"
    atomic_write(file, head + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
    return load_config(file)


def started(config: str, more: Mapping[str, str]) -> AbstractContextManager[tuple[str, str]]:
    """`stepdown serve` as a child, in a Ray of its own unless RAY_ADDRESS names one."""
    return served(config, START_S, {"RAY_ADDRESS": os.environ.get("RAY_ADDRESS", "local"), **more})


class OwnLadder:
    """Started when it is first asked; ended with the context."""

    def __init__(self, config: Config, folder: Path, target: str, mode: str, say: Callable[[str], None], start: Start) -> None:
        self.config, self.folder, self.target, self.mode = config, folder, target, mode
        self.say, self.start = say, start
        self.found: tuple[str, str] | None = None
        self.serving: Config | None = None
        self.open = ExitStack()

    def __enter__(self) -> "OwnLadder":
        return self

    def __exit__(self, *raised: Any) -> None:
        self.open.close()

    def write(self, router: Path | None) -> Config:
        self.serving = written(copy_of(self.config, self.folder, self.target, self.mode, router), self.folder / COPY)
        return self.serving

    def reach(self) -> tuple[str, str]:
        if self.found is None:
            if self.serving is None:
                self.write(None)
            self.say(f"starting the ladder: {' < '.join(self.config.names)} (its models are loaded first)")
            self.found = self.open.enter_context(self.start(str(self.folder / COPY), {}))
        return self.found

    def use(self, router: Path, digest: str) -> None:
        self.write(router)
        if self.found is None:
            return  # it starts with it
        url, key = self.found
        reply = httpx.post(f"{address_of(url)}/v1/admin/reload", headers=headers_of(key), timeout=PATIENCE_S)
        if reply.status_code != 200:
            raise BadInput(f"the ladder did not take the new router: HTTP {reply.status_code}: {reason_in(reply)}")


class GivenLadder:
    """One that runs already, which only its operator can give a router."""

    def __init__(self, url: str, key: str, target: str, folder: Path) -> None:
        self.url, self.key, self.target, self.folder = url, key, target, folder

    def __enter__(self) -> "GivenLadder":
        return self

    def __exit__(self, *raised: Any) -> None:
        return None

    def reach(self) -> tuple[str, str]:
        return self.url, self.key

    def status(self) -> dict[str, Any]:
        """Raises BadInput."""
        try:
            reply = httpx.get(f"{address_of(self.url)}/v1/status", headers=headers_of(self.key), timeout=PATIENCE_S)
        except httpx.RequestError as error:
            raise BadInput(f"{self.url}: no answer ({error or type(error).__name__}); is it running?") from None
        if reply.status_code != 200:
            raise BadInput(f"{self.url}: HTTP {reply.status_code}: {reason_in(reply)}; expected a Stepdown ladder, and its key")
        try:
            return dict(reply.json())
        except ValueError:
            raise BadInput(f"{self.url}: /v1/status is no JSON; expected a Stepdown ladder") from None

    def use(self, router: Path, digest: str) -> None:
        states = self.status().get("certificates") or {}
        if digest in [state.get("digest") for state in states.values() if isinstance(state, dict)]:
            return
        artefact = (self.folder / ROUTER).resolve()
        raise BadInput(
            f"{self.url} does not use this router yet: set routing: {{artefact: {artefact}, target: {self.target}}} and "
            "escalation: {mode: buffer} in its configuration, reload it, and run the same command again: it goes on here"
        )
