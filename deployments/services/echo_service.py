"""A service without a model: equal texts get equal vectors, and nothing else can be learned from them. For testing plumbing."""

import base64
import hashlib
import json
import math
import struct
import time
from collections.abc import Mapping, Sequence
from typing import Any

from deployments.beside_loop import by_size
from deployments.ids import fresh
from deployments.services.service import Service
from router.service_settings import EchoService as Settings
from router.services.body import SIDES, ServiceRequest


class EchoService(Service):
    def __init__(self, settings: Settings) -> None:
        self.name, self.settings = settings.name, settings

    async def ask(self, asked: ServiceRequest, call_id: str = "") -> bytes:
        return await by_size(self.answer, asked)

    def answer(self, asked: ServiceRequest) -> bytes:
        body, tokens = json.loads(asked.raw), asked.usual_tokens()
        about = {"id": f"echo-{fresh()[:12]}", "model": self.name, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}
        if asked.kind == "rerank":
            return json.dumps({**about, "results": self.ranked(body)}).encode()
        data = self.embedded(body) if asked.kind == "embeddings" else self.scored(body)
        return json.dumps({**about, "object": "list", "created": int(time.time()), "data": data}).encode()

    def embedded(self, body: Mapping[str, Any]) -> list[dict[str, Any]]:
        texts, length = body["input"], body.get("dimensions") or self.settings.dimensions
        if isinstance(texts, str) or isinstance(texts[0], int):
            texts = [texts]
        write = encoded if body.get("encoding_format") == "base64" else list
        return [{"object": "embedding", "index": n, "embedding": write(vector(text, length))} for n, text in enumerate(texts)]

    def ranked(self, body: Mapping[str, Any]) -> list[dict[str, Any]]:
        documents = several(body["documents"])
        alike = self.alike(several(body["query"]), documents)
        found: list[dict[str, Any]] = [{"index": n, "relevance_score": value} for n, value in enumerate(alike)]
        if body.get("return_documents"):
            found = [{**one, "document": {"text": documents[n]}} for n, one in enumerate(found)]
        found.sort(key=lambda one: one["relevance_score"], reverse=True)
        return found[: body.get("top_n") or len(found)]

    def scored(self, body: Mapping[str, Any]) -> list[dict[str, Any]]:
        names = next(names for names in SIDES if all(name in body for name in names))
        alike = self.alike(*(several(body[name]) for name in names))
        return [{"object": "score", "index": n, "score": value} for n, value in enumerate(alike)]

    def alike(self, one: Sequence[Any], other: Sequence[Any]) -> list[float]:
        """Of each pair from 0 to 1, which equal texts have. one: as many as `other`, or a single one for all."""
        left, right = ([vector(text, self.settings.dimensions) for text in side] for side in (one, other))
        pairs = zip(left * (len(right) if len(left) == 1 else 1), right, strict=True)
        return [min(1.0, (1 + math.fsum(map(float.__mul__, a, b))) / 2) for a, b in pairs]


def several(side: Any) -> list[Any]:
    return side if isinstance(side, list) else [side]


def vector(text: Any, length: int) -> tuple[float, ...]:
    """A hash of the text, or of its token ids, as a vector of length 1 in the precision that base64 has."""
    raw = hashlib.shake_128(json.dumps(text).encode()).digest(4 * length)
    numbers = [number / 2**31 for number in struct.unpack(f"<{length}i", raw)]
    size = math.sqrt(math.fsum(number * number for number in numbers)) or 1.0
    return struct.unpack(f"<{length}f", struct.pack(f"<{length}f", *(number / size for number in numbers)))


def encoded(numbers: Sequence[float]) -> str:
    """Base64 of the numbers as 32-bit floats, the low byte first, as OpenAI has them."""
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()
