"""A deployment that records made-up traces of every kind, for the tests of what Prometheus makes of them."""

from dataclasses import replace

from ray import serve

from deployments.monitoring.metrics import Metrics, Total
from router.config import Config
from router.trace import CallRow, Trace, Window

PRICE = {"usd_per_1m_input": 1, "usd_per_1m_output": 2, "usd_per_accelerator_hour": 3.6}
TIERS = {"tiers": [{"name": name, "engine": "echo", "context": 200, "price": PRICE} for name in ("small", "large")]}
CALL = CallRow("t/1", "t", "k", "attempt", "small", "low confidence", 100.0, 0.4, 10, 4, 3, False, 0.1, 0.25, "r", 0.2, 2e-4)


def traces(n: int) -> list[Trace]:
    """An escalated request, a delegated one, an audited one, a failed one; n times."""
    up = replace(CALL, id="t/2", tier="large", outcome="accepted", input_tokens=20, cost_usd=1.0)
    down = replace(CALL, id="t/3", role="subtask", outcome="accepted")
    first = Trace(
        "t",
        "k",
        100.0,
        1.0,
        "chat/completions",
        "auto",
        200,
        "large",
        "balanced",
        "good enough",
        "cascade",
        confidence=0.8,
        certificate="valid",
        decision_ms=0.7,
        first_byte_s=0.3,
        counterfactual_usd=3.0,
        stream=True,
        calls=(CALL, up),
    )
    failed = replace(first, status=503, tier="", counterfactual_usd=None, calls=())
    return [first, replace(first, flow="delegation", calls=(up, down)), replace(first, tier="small", calls=(down,)), failed] * n


@serve.deployment(ray_actor_options={"num_cpus": 0})
class Traffic:
    def __init__(self) -> None:
        self.metrics = Metrics(Config.model_validate(TIERS).tiers)

    async def __call__(self, n: int, second: int) -> None:
        for trace in traces(n):
            self.metrics.record(trace)
        self.metrics.called(replace(CALL, role="audit", tier="large", outcome="audited"))
        self.metrics.audited("balanced", False, 0.9)
        self.metrics.certificates({"balanced": "valid", "quality": "stale"})
        self.metrics.budget("key-1", 0.3)
        self.metrics.ledger("ok", 0)
        self.metrics.held([Window(tier, 0, 1, 1, 1, 3.6) for tier in ("small", "large")])
        told = {"calls": second, "input_tokens": 10 * second, "output_tokens": second, "cached_tokens": second}
        self.metrics.totals(
            [
                Total(
                    "large",
                    **told,
                    cost_usd=second,
                    audit_usd=0.1 * second,
                    requests=second,
                    counterfactual_usd=3 * second,
                    compared_usd=second,
                )
            ]
        )

    async def speed(self, n: int) -> float:
        """Microseconds on the event loop for one trace with two calls."""
        import time

        (trace, *_), began = traces(1), time.perf_counter()
        for _ in range(n):
            self.metrics.record(trace)
        return (time.perf_counter() - began) / n * 1e6

    async def close(self) -> None:
        await self.metrics.close()
