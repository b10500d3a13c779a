"""OpenTelemetry: spans that agree with the ledger, a trace that goes through, and nothing where nobody asks."""

import http.server
import threading

import pytest
from collecting import CHAT, Place
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from scripted_tier import Said, down

from deployments import ids
from deployments.ids import PARENT, Parent, parent_of, passed_on, span_id
from deployments.ledger import schema
from deployments.monitoring import telemetry as module
from deployments.monitoring.telemetry import Telemetry, Tracer, wanted

CLIENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.mark.parametrize(
    "variables, traces, metrics",
    [
        ({}, False, False),
        ({ENDPOINT: "http://collector:4318"}, True, True),
        ({ENDPOINT: "http://collector:4318", "OTEL_SDK_DISABLED": "TRUE"}, False, False),
        ({ENDPOINT: "http://collector:4318", "OTEL_METRICS_EXPORTER": "none"}, True, False),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True, False),
        ({"OTEL_TRACES_EXPORTER": "console,otlp"}, True, False),
    ],
)
def test_the_standard_variables_decide(variables, traces, metrics):
    assert (wanted("TRACES", variables), wanted("METRICS", variables)) == (traces, metrics)


def test_nothing_is_made_where_nobody_asks(monkeypatch):
    for name in (ENDPOINT, "OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER"):
        monkeypatch.delenv(name, raising=False)
    assert module.telemetry() is None


@pytest.mark.parametrize(
    "given",
    [
        "",
        "x",
        CLIENT.upper(),
        "00-" + "0" * 32 + "-00f067aa0ba902b7-01",
        CLIENT.replace("00f067aa0ba902b7", "0" * 16),
        CLIENT + "-x",
    ],
)
def test_what_is_no_traceparent_is_not_passed_on(given):
    assert parent_of(given, "a=b") is None


@pytest.mark.parametrize("state, kept", [("a=b", "a=b"), ("x" * 600, ""), ("a=\n", ""), ("a=é", "")])
def test_a_tracestate_is_passed_on_if_it_is_sane(state, kept):
    assert parent_of(CLIENT, state) == Parent(CLIENT, kept)


def test_the_clients_span_is_passed_on_untouched_where_nothing_is_exported():
    token = PARENT.set(Parent(CLIENT, "a=b"))
    assert passed_on("call") == {"traceparent": CLIENT, "tracestate": "a=b"}
    PARENT.reset(token)
    assert passed_on("call") == {}


@pytest.fixture
def exported():
    exporter = InMemorySpanExporter()
    made = Telemetry(Tracer(SimpleSpanProcessor(exporter)), None)
    yield made, exporter
    made.close()


def served(tmp_path, made, flow, said, headers=None):
    place = Place(tmp_path, flow, said)
    place.accounts.telemetry = made
    with place.client() as client:
        answer = client.post("/v1/chat/completions", json=CHAT, headers=headers)
    return place, answer


@pytest.mark.slow
@pytest.mark.parametrize("parent", ["", CLIENT])
def test_spans_agree_with_the_ledger(tmp_path, exported, parent):
    made, exporter = exported
    said = {"small": Said("perhaps", logprob=-3.0), "large": Said("forty two")}
    headers = {"traceparent": parent, "tracestate": "vendor=1"} if parent else {}
    place, answer = served(tmp_path, made, "buffer", said, headers)
    spans = {span.name: span for span in exporter.get_finished_spans()}
    request = spans.pop("chat auto")
    trace_id = answer.headers["x-stepdown-trace-id"]
    (trace,) = place.rows(schema.traces)
    assert f"{request.context.trace_id:032x}" == (parent.split("-")[1] if parent else trace_id)
    assert (f"{request.parent.span_id:016x}" if request.parent else "") == (parent.split("-")[2] if parent else "")
    assert request.attributes["stepdown.flow"] == "cascade" and request.attributes["gen_ai.response.model"] == "large"
    assert request.attributes["stepdown.cost_usd"] == pytest.approx(trace["cost_usd"])
    assert set(spans) == {"chat small", "chat large"}
    for row in place.rows(schema.calls):
        span = spans[f"chat {row['tier']}"]
        assert span.parent.span_id == request.context.span_id and span.context.span_id == span_id(row["id"])
        assert span.attributes["gen_ai.usage.output_tokens"] == row["output_tokens"]
        assert span.attributes["stepdown.outcome"] == row["outcome"]
        assert span.start_time == pytest.approx(row["began_s"] * 1e9, abs=1e6)
        assert request.start_time <= span.start_time <= span.end_time <= request.end_time + 1e6


@pytest.mark.slow
def test_a_failure_is_an_error(tmp_path, exported):
    made, exporter = exported
    served(tmp_path, made, "", {name: down(name) for name in ("small", "medium", "large")})
    (request,) = [span for span in exporter.get_finished_spans() if span.parent is None]
    assert not request.status.is_ok and request.attributes["error.type"] == "tier_unavailable"


def test_an_upstream_continues_the_calls_span(exported):
    current, parent = ids.CURRENT.set("ab" * 16), PARENT.set(None)
    assert passed_on("a/final") == {"traceparent": f"00-{'ab' * 16}-{span_id('a/final'):016x}-01"}
    PARENT.set(Parent(CLIENT, "a=b"))
    assert passed_on("a/final") == {
        "traceparent": f"00-4bf92f3577b34da6a3ce929d0e0e4736-{span_id('a/final'):016x}-01",
        "tracestate": "a=b",
    }
    PARENT.reset(parent)
    ids.CURRENT.reset(current)


class Collector(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append((self.path, body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.mark.slow
def test_both_reach_a_collector_by_otlp(tmp_path, monkeypatch):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector:
        collector.got = []
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{collector.server_port}")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "our-router")
        made = module.telemetry()
        served(tmp_path, made, "", {})  # closing the accounts sends what waits
        collector.shutdown()
    found = dict(collector.got)
    traces = ExportTraceServiceRequest.FromString(found["/v1/traces"]).resource_spans[0]
    assert {span.name for span in traces.scope_spans[0].spans} == {"chat auto", "chat large"}
    names = {a.key: a.value.string_value for a in traces.resource.attributes}
    assert names["service.name"] == "our-router"
    metrics = ExportMetricsServiceRequest.FromString(found["/v1/metrics"]).resource_metrics[0].scope_metrics[0].metrics
    assert {"gen_ai.server.request.duration", "gen_ai.client.token.usage", "stepdown.cost"} <= {m.name for m in metrics}
