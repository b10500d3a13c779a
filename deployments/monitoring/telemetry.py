"""OpenTelemetry: a span a request and one a call, and metrics, after the GenAI semantic conventions.

https://opentelemetry.io/docs/specs/semconv/gen-ai/. Exported by OTLP where the standard variables say so
(OTEL_EXPORTER_OTLP_ENDPOINT, ...); else nothing is loaded. Spans are made when a request has ended, from the record that the
ledger gets, so they agree with it. Without a `traceparent` of the client's, the trace's id is x-stepdown-trace-id.
"""

import logging
import os
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from deployments import ids
from deployments.ids import Parent
from router.trace import CallRow, Trace

log = logging.getLogger("stepdown")
NS = 1_000_000_000
OPERATIONS = {
    "completions": "text_completion",
    "embeddings": "embeddings",
    "rerank": "rerank",
    "score": "score",
}  # others are chats
PROVIDER = "stepdown"
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576)
SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
"""buckets, as the conventions advise"""


def wanted(signal: str, variables: Mapping[str, str] = os.environ) -> bool:
    """Whether the standard variables ask for the export of `TRACES` or `METRICS`."""
    if variables.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = variables.get(f"OTEL_{signal}_EXPORTER", "")
    if exporter:
        return "otlp" in exporter.split(",")
    return bool(variables.get(ENDPOINT) or variables.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"))


def over_grpc(signal: str) -> bool:
    default = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    return os.environ.get(f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", default) == "grpc"


def telemetry() -> "Telemetry | None":
    """What the environment asks for; None: nothing."""
    traces, metrics = wanted("TRACES"), wanted("METRICS")
    if not (traces or metrics):
        return None
    try:
        made = Telemetry(tracer() if traces else None, Instruments(meter()) if metrics else None)
    except ImportError as error:
        log.error("nothing is exported, though the environment asks for OpenTelemetry: %s; install stepdown[otel]", error)
        return None
    log.info("OpenTelemetry exports %s", " and ".join(name for name, on in (("traces", traces), ("metrics", metrics)) if on))
    return made


def resource() -> Any:
    from opentelemetry.sdk.resources import Resource

    return Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME") or PROVIDER, "service.version": version()})


def version() -> str:
    try:
        return metadata.version("stepdown")
    except metadata.PackageNotFoundError:
        return "unknown"


def tracer() -> "Tracer":
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    if over_grpc("TRACES"):
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    else:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # type: ignore[assignment]
    return Tracer(BatchSpanProcessor(OTLPSpanExporter()))


def meter() -> Any:
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    if over_grpc("METRICS"):
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    else:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter  # type: ignore[assignment]
    return PeriodicExportingMetricReader(OTLPMetricExporter())


class Telemetry:
    """Exports what the ledger is told. tracer, instruments: None: not these."""

    def __init__(self, tracer: "Tracer | None", instruments: "Instruments | None") -> None:
        self.tracer, self.instruments = tracer, instruments
        ids.TRACING.on = tracer is not None

    def record(self, trace: Trace) -> None:
        """To be called once for each request, in its context. Takes some 0.2 ms; the export runs in a thread."""
        if self.tracer:
            self.tracer.record(trace, ids.PARENT.get())
        if self.instruments:
            self.instruments.record(trace)

    def close(self) -> None:
        """Send what waits. Blocks for seconds at most."""
        ids.TRACING.on = False
        if self.tracer:
            self.tracer.provider.shutdown()
        if self.instruments:
            self.instruments.provider.shutdown()


class Tracer:
    """processor: where ended spans go."""

    def __init__(self, processor: Any) -> None:
        from opentelemetry.sdk.trace import TracerProvider

        self.ids = given_ids()
        self.provider = TracerProvider(id_generator=self.ids, resource=resource(), shutdown_on_exit=False)
        self.provider.add_span_processor(processor)
        self.tracer = self.provider.get_tracer("stepdown", version())

    def record(self, trace: Trace, parent: Parent | None) -> None:
        from opentelemetry.trace import SpanKind, set_span_in_context

        self.ids.trace_id, self.ids.span_id = int(trace.id, 16), ids.span_id(trace.id)
        operation = OPERATIONS.get(trace.path, "chat")
        request = self.tracer.start_span(
            f"{operation} {trace.wanted}",
            context=remote(parent),
            kind=SpanKind.SERVER,
            attributes=of_request(trace, operation),
            start_time=int(trace.began_s * NS),
        )
        inside = set_span_in_context(request)
        for call in trace.calls:
            self.ids.span_id = ids.span_id(call.id)
            name, shown = f"{operation} {call.tier}", of_call(call, operation)
            span = self.tracer.start_span(name, inside, SpanKind.CLIENT, shown, start_time=int(call.began_s * NS))
            span.end(int((call.began_s + call.took_s) * NS))
        if trace.status >= 500:
            request.set_status(failed())
        request.end(int((trace.began_s + trace.took_s) * NS))


def given_ids() -> Any:
    """Ids that were fixed before: those of calls were already sent to the tiers."""
    from opentelemetry.sdk.trace.id_generator import IdGenerator

    class Given(IdGenerator):
        trace_id = span_id = 1

        def generate_span_id(self) -> int:
            return self.span_id

        def generate_trace_id(self) -> int:
            return self.trace_id

    return Given()


def failed() -> Any:
    from opentelemetry.trace import Status, StatusCode

    return Status(StatusCode.ERROR)


def remote(parent: Parent | None) -> Any:
    """The client's span as a context; None: the trace begins here."""
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    if parent is None:
        return None
    carried = {"traceparent": parent.traceparent} | ({"tracestate": parent.tracestate} if parent.tracestate else {})
    return TraceContextTextMapPropagator().extract(carried)


def of_request(trace: Trace, operation: str) -> dict[str, Any]:
    shown = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": trace.wanted,
        "gen_ai.response.model": trace.tier,
        "gen_ai.response.id": trace.id,
        "gen_ai.usage.input_tokens": sum(call.input_tokens for call in trace.calls),
        "gen_ai.usage.output_tokens": sum(call.output_tokens for call in trace.calls),
        "http.response.status_code": trace.status,
        "error.type": trace.error,
        "url.path": f"/v1/{trace.path}",
        "stepdown.target": trace.target,
        "stepdown.reason": trace.reason,
        "stepdown.flow": trace.flow,
        "stepdown.certificate": trace.certificate,
        "stepdown.router": trace.router,
        "stepdown.key_id": trace.key_id,
        "stepdown.stream": trace.stream,
        "stepdown.confidence": trace.confidence,
        "stepdown.decision_ms": trace.decision_ms,
        "stepdown.first_byte_s": trace.first_byte_s,
        "stepdown.cost_usd": trace.cost_usd,
        "stepdown.counterfactual_usd": trace.counterfactual_usd,
    }
    return {name: value for name, value in shown.items() if value not in (None, "")}


def of_call(call: CallRow, operation: str) -> dict[str, Any]:
    shown = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": call.tier,
        "gen_ai.response.model": call.model or call.tier,
        "gen_ai.usage.input_tokens": call.input_tokens,
        "gen_ai.usage.output_tokens": call.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": call.cached_tokens,
        "stepdown.role": call.role,
        "stepdown.outcome": call.outcome,
        "stepdown.replica": call.replica,
        "stepdown.first_token_s": call.first_token_s,
        "stepdown.cost_usd": call.cost_usd,
        "stepdown.gpu_usd": call.gpu_usd,
        "stepdown.estimated": call.estimated,
    }
    return {name: value for name, value in shown.items() if value not in (None, "")}


class Instruments:
    """reader: collects the metrics and sends them."""

    def __init__(self, reader: Any) -> None:
        from opentelemetry.sdk.metrics import MeterProvider

        self.provider = MeterProvider([reader], resource=resource(), shutdown_on_exit=False)
        made = self.provider.get_meter("stepdown", version())
        self.duration = made.create_histogram(
            "gen_ai.server.request.duration", "s", "Time of a request", explicit_bucket_boundaries_advisory=SECONDS
        )
        self.first = made.create_histogram(
            "gen_ai.server.time_to_first_token", "s", "Time to the first content", explicit_bucket_boundaries_advisory=SECONDS
        )
        self.tokens = made.create_histogram(
            "gen_ai.client.token.usage", "{token}", "Tokens of a call to a tier", explicit_bucket_boundaries_advisory=TOKENS
        )
        self.cost = made.create_counter("stepdown.cost", "USD", "Token price of all calls")
        self.counterfactual = made.create_counter("stepdown.counterfactual_cost", "USD", "What the largest tier alone would cost")

    def record(self, trace: Trace) -> None:
        operation = OPERATIONS.get(trace.path, "chat")
        about = {"gen_ai.operation.name": operation, "gen_ai.provider.name": PROVIDER}
        ended = about | {"gen_ai.response.model": trace.tier} | ({"error.type": trace.error} if trace.error else {})
        self.duration.record(trace.took_s, ended | {"stepdown.flow": trace.flow})
        if trace.first_byte_s is not None:
            self.first.record(trace.first_byte_s, ended)
        for call in trace.calls:
            called = about | {"gen_ai.request.model": call.tier, "stepdown.role": call.role}
            self.tokens.record(call.input_tokens, called | {"gen_ai.token.type": "input"})
            self.tokens.record(call.output_tokens, called | {"gen_ai.token.type": "output"})
            self.cost.add(call.cost_usd, called)
        if trace.counterfactual_usd is not None:
            self.counterfactual.add(trace.counterfactual_usd, about)
