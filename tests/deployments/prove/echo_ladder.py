"""A ladder of two echo tiers that know sums and proofs, served in this process; and live rows made by hand."""

import contextlib

import yaml
from inprocess import KEY
from live import listening

from deployments.app import TIERS, routers
from deployments.endpoint.accounts import without_books
from deployments.endpoint.ingress import Ingress
from deployments.endpoint.reload import Reloader
from deployments.keys.key_store import hashed
from router.config import load_config

NAMES = ("small", "large")


def prompts(n=200):
    """Sums, which both tiers can do, and proofs, which `small` cannot; each with its reference."""
    made = []
    for i in range(n):
        hard = i % 2
        text = f"prove that {i} of {i * 7 % 91} groups is cyclic" if hard else f"what is {i} plus {i * 7 % 91}"
        made.append(
            {
                "id": f"p{i}",
                "prompt": text,
                "answer": f"yes {i}" if hard else str(i + i * 7 % 91),
                "kind": "proof" if hard else "sum",
            }
        )
    return made


def config_file(folder, rows, slow_s=0.0):
    """The YAML file of a ladder that answers these prompts."""
    right = {row["prompt"]: row["answer"] for row in rows}
    known = {row["prompt"]: row["answer"] if row["kind"] == "sum" else "I cannot say" for row in rows}
    tiers = [
        {"name": name, "engine": "echo", "context": 4096, "delay_s": slow_s, "answers": answers}
        | {"price": {"usd_per_1m_input": usd, "usd_per_1m_output": usd}}
        for name, answers, usd in (("small", known, 1.0), ("large", right, 20.0))
    ]
    file = folder / "ladder.yaml"
    file.write_text(yaml.safe_dump({"tiers": tiers}))
    return file


class Counted(Ingress):
    """Counts the chat requests by what they ask for."""

    def app(self):
        made, self.asked = super().app(), []
        inner = made.router.routes[0].app

        async def counted(scope, receive, send):
            self.asked.append(scope["path"])
            await inner(scope, receive, send)

        made.router.routes[0].app = counted
        return made


class Starts:
    """Starts ladders as `stepdown serve` would, in this process. Remembers them."""

    def __init__(self):
        self.ladders = []

    @contextlib.contextmanager
    def __call__(self, file, env):
        config = load_config(file)
        make = routers(config)
        tiers = {t.name: TIERS[t.engine].make(t, None, 5.0, None) for t in config.tiers}
        ladder = Counted(make(config), tiers, without_books(hashed("right")), 32_000_000)
        ladder.reloader = Reloader(str(file), ladder.router, make, ladder.use)
        self.ladders.append(ladder)
        with listening(ladder.app()) as port:
            yield f"http://127.0.0.1:{port}/v1", KEY["authorization"].removeprefix("Bearer ")

    @property
    def asked(self):
        """Chat requests that all of them got."""
        return sum(len(ladder.asked) for ladder in self.ladders)


def live_row(i, auto=1.0, top=1.0, usd=(0.01, 0.04), tier="small", **more):
    """A graded live answer of each way."""
    times = {"ttft_s": 0.1 + i / 1000, "total_s": 0.2 + i / 500, "output_tokens": 4}
    ways = {
        "auto": {"answer": f"a{i}", "tier": tier, "cost_usd": usd[0], "score": auto, "certificate": "valid", **times}
        | {"calls": [{"tier": tier, "cost_usd": usd[0]}]},
        "large": {"answer": f"l{i}", "tier": "large", "cost_usd": usd[1], "score": top, **times},
        "small": {"answer": f"s{i}", "tier": "small", "cost_usd": usd[0], "score": min(auto, 0.5), **times},
    }
    return {"id": f"p{i}", "prompt": f"what is {i} plus {i}", "answer": str(2 * i), "ways": ways, **more}
