"""Asks remote tiers what they can do, as replicas of our own are asked when they start. Each try is a request that is paid."""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from deployments.replicas.abilities import tried
from deployments.replicas.request_faults import Refusal
from deployments.tiers.remote_tier import RemoteTier
from router.config import Config
from router.config import RemoteTier as Settings
from router.decide.abilities import CANNOT, SETTINGS, TRIED, broken_promises
from router.errors import BadConfig, RequestFailed
from router.request.own_body import with_own
from router.types import Path

ASK_S = 60.0  # for one answer


def asked_all(config: Config) -> str:
    """A line for each remote tier, with what it lacks. Raises BadConfig where settings promise more than a tier can do."""
    remote = [tier for tier in config.tiers if isinstance(tier, Settings)]
    found = {tier.name: asyncio.run(asked(tier)) for tier in remote}
    if broken := "; ".join(filter(None, (broken_promises(tier, found[tier.name]) for tier in remote))):
        raise BadConfig(broken)
    return "\n".join(told(tier, found[tier.name]) for tier in remote) or "  no tier is remote"


async def asked(settings: Settings) -> dict[str, str]:
    """Ability -> why the tier cannot; empty: it can. What a try said nothing about is left out."""
    tier = RemoteTier(settings, ASK_S)

    async def ask(path: Path, body: dict[str, Any]) -> AsyncGenerator[Any]:
        try:
            yield await tier.complete(path, with_own(body, settings.body))
        except RequestFailed as error:
            if error.status >= 500:  # it says nothing of the ability
                raise
            yield Refusal(error.status, json.dumps({"error": {"message": str(error)}}))

    try:
        return await tried(settings.name, ask)
    finally:
        await tier.close()


def told(tier: Settings, found: Mapping[str, str]) -> str:
    """What was found, and which settings say so."""
    able = [need for need in TRIED if found.get(need) == ""]
    unable = {need: why for need, why in found.items() if why}
    unknown = [need for need in TRIED if need not in found]
    wrong = [need for need in unable if need in SETTINGS and getattr(tier, SETTINGS[need])]
    lines = [f"  {tier.name} can: {', '.join(able) or 'nothing that was tried'}"]
    lines += [f"    {CANNOT[need]}: {why}" for need, why in unable.items()]
    lines += [f"    not known: {', '.join(unknown)}"] if unknown else []
    lines += [f"    write {', '.join(f'{SETTINGS[need]}: false' for need in wrong)}"] if wrong else []
    return "\n".join(lines)
