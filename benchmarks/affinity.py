"""Measures prompt tokens found in vLLM's prefix cache, with and without affinity: one JSON line for each kind of traffic.

    python -m benchmarks.affinity

Two replicas of the pocket ladder's small model get the same kind of traffic twice in one run: `affine` with the default settings;
`scattered` with another `x-session-id` for every request, so that each goes to a random replica, as without affinity.
The figure is vLLM's own `cached_tokens`.
"""

import json
import random
import tempfile
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import yaml

from deployments.serve.background import served
from router.config import find_config

WORDS = Path(__file__).read_text().split()
CLIENTS, CONVERSATIONS, TURNS, DOCUMENTS, QUESTIONS = 8, 40, 5, 40, 4


def ladder(folder: Path) -> Path:
    """The pocket ladder's small model alone; blocks as small as vLLM takes them, for its window is."""
    source = find_config("pocket")
    given = yaml.safe_load(source.read_text())["tiers"][0]
    given["source"] = str((source.parent / given["source"]).resolve())
    given["engine_kwargs"] |= {"block_size": 32}
    given |= {"replicas": 2, "affinity_chars": 200}
    file = folder / "affinity.yaml"
    file.write_text(yaml.safe_dump({"tiers": [given]}))
    return file


def text(seed: str, characters: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=characters // 3))[:characters]


def conversations(kind: str) -> Iterator[list[str]]:
    """Each of CONVERSATIONS as the prompts of its turns, each turn's beginning with the one before."""
    for n in range(CONVERSATIONS):
        prompts = [text(f"{kind}{n}", 220)]
        for turn in range(1, TURNS):
            prompts.append(f"{prompts[-1]} {text(f'{n}turn{turn}', 50)}")
        yield prompts


def documents(kind: str) -> Iterator[list[str]]:
    """Questions, each a conversation of its own; QUESTIONS of them begin with the same document, in no order."""
    asked = [(n, question) for n in range(DOCUMENTS) for question in range(QUESTIONS)]
    random.Random(0).shuffle(asked)
    for n, question in asked:
        yield [text(f"{kind}d{n}", 320) + " " + text(f"{n}q{question}", 30)]


def cached(client: openai.OpenAI, prompts: list[str], scattered: bool) -> tuple[int, int]:
    """Prompt tokens of a conversation, and those found in the cache. As plain text: the model's template shows it one message."""
    tokens = found = 0
    for prompt in prompts:
        headers = {"x-session-id": uuid.uuid4().hex} if scattered else {}
        asked: Any = {"model": "small", "prompt": prompt, "max_tokens": 2}
        usage = client.completions.create(**asked, extra_headers=headers).usage
        tokens += usage.prompt_tokens
        found += (usage.prompt_tokens_details and usage.prompt_tokens_details.cached_tokens) or 0
    return tokens, found


def share(client: openai.OpenAI, work: Callable[[str], Iterator[Any]], kind: str) -> float:
    with ThreadPoolExecutor(CLIENTS) as pool:
        counts = list(pool.map(lambda prompts: cached(client, prompts, kind == "scattered"), work(kind)))
    return round(sum(found for _, found in counts) / sum(tokens for tokens, _ in counts), 4)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, served(str(ladder(Path(folder)))) as (url, key):
        client = openai.OpenAI(base_url=url, api_key=key)
        for name, work in (("conversations", conversations), ("documents", documents)):
            found = {kind: share(client, work, kind) for kind in ("affine", "scattered")}
            ratio = round(found["affine"] / found["scattered"], 3) if found["scattered"] else None
            print(json.dumps({"bench": "affinity", "traffic": name, **found, "ratio": ratio}), flush=True)


if __name__ == "__main__":
    main()
