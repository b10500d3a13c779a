"""The endpoints in OpenAPI 3.1. It describes only the fields that we read; all others are passed on.

A schema here is as strict as router/request/wire.py and no stricter, which
tests/deployments/endpoint/test_openapi_fuzz.py holds it to.
"""

from importlib.metadata import version
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from deployments.endpoint.doors import health
from deployments.endpoint.openapi_words import Schema, maybe, ref
from deployments.endpoint.routes import openapi_protocols
from deployments.endpoint.services import description as services
from deployments.keys import offered
from deployments.learning.kept.stored_json import LONGEST_COMMENT, LONGEST_CORRECTION, MOST_LISTED
from router.client_options import ClientLimits
from router.request.wire import INTEGER_RANGES, LONGEST_NAME, LONGEST_VALUE, MAX_TEMPERATURE, MAX_TOKENS, MOST_PAIRS, ROLES

NO_NUL = r"^[^\x00]*$"


def whole(field: str) -> Schema:
    least, most = INTEGER_RANGES[field]
    return maybe({"type": "integer", "minimum": least, "maximum": most})


PART: Schema = {
    "type": "object",
    "description": "A part of a message: text, image_url, ...",
    "if": {"properties": {"type": {"const": "text"}}, "required": ["type"]},
    "then": {"properties": {"text": {"type": "string"}}, "required": ["text"]},
}
MESSAGE: Schema = {
    "type": "object",
    "required": ["role"],
    "properties": {
        "role": {"enum": list(ROLES)},
        "content": {"anyOf": [{"type": "string"}, {"type": "null"}, {"type": "array", "items": ref("Part")}]},
    },
}
COMMON: Schema = {
    "model": {
        "type": "string",
        "minLength": 1,
        "description": "auto, auto:cheap, auto:balanced, auto:quality, auto:0.97, or a tier's name",
        "examples": ["auto"],
    },
    "stream": maybe({"type": "boolean"}),
    "stream_options": maybe({"type": "object", "properties": {"include_usage": maybe({"type": "boolean"})}}),
    "max_tokens": whole("max_tokens"),
    "max_completion_tokens": whole("max_completion_tokens"),
    "n": whole("n"),
    "temperature": maybe({"type": "number", "minimum": 0, "maximum": MAX_TEMPERATURE}),
}
OWN: Schema = ClientLimits.model_json_schema()
OWN["properties"]["tests"] = maybe({"type": "string", "description": "What a smaller tier's code has to pass."})
METADATA: Schema = {
    "type": "object",
    "maxProperties": MOST_PAIRS,
    "propertyNames": {"minLength": 1, "maxLength": LONGEST_NAME, "pattern": NO_NUL},
    "additionalProperties": {"type": "string", "maxLength": LONGEST_VALUE, "pattern": NO_NUL},
}
CHAT: Schema = {
    "type": "object",
    "description": "OpenAI's body; fields that are not listed go to the tier untouched. At most 100 lists and objects deep.",
    "required": ["model", "messages"],
    "properties": {
        **COMMON,
        "messages": {"type": "array", "minItems": 1, "items": ref("Message")},
        "tools": maybe({"type": "array", "items": {"type": "object"}}),
        "response_format": maybe({"type": "object", "properties": {"json_schema": maybe({"type": "object"})}}),
        "top_logprobs": whole("top_logprobs"),
        "store": maybe({"type": "boolean", "description": "whether it may be kept; x-stepdown-stored says whether it is"}),
        "metadata": maybe(METADATA),
        "stepdown": maybe(OWN),
    },
}
TEXT: Schema = {
    "type": "object",
    "description": "OpenAI's body of the older kind; token ids count as one character each.",
    "required": ["model", "prompt"],
    "properties": {
        **COMMON,
        "prompt": {
            "anyOf": [{"type": "string"}, {"type": "array", "minItems": 1, "items": {"type": ["string", "integer", "array"]}}]
        },
    },
    "not": {"required": ["messages"]},
}
ERROR: Schema = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "integer", "null"]},
                "trace_id": {"type": "string", "description": "the request's id, as in the header x-stepdown-trace-id"},
            },
        }
    },
}
ANSWER: Schema = {
    "type": "object",
    "required": ["id", "object", "created", "model", "choices"],
    "properties": {"model": {"type": "string", "description": "the tier that answered"}, "choices": {"type": "array"}},
}
CARD: Schema = {
    "type": "object",
    "required": ["id", "object", "created", "owned_by"],
    "properties": {
        "id": {"type": "string"},
        "object": {"const": "model"},
        "certificate": {"type": "string"},
        "on": {"type": "string"},
    },
}
DECISION: Schema = {
    "type": "object",
    "required": ["tier", "reason", "target", "p", "excluded", "decision_ms"],
    "properties": {"tier": {"type": "string"}, "reason": {"type": "string"}, "p": {"type": "object"}},
}


LIST: Schema = {
    "type": "object",
    "required": ["object", "data", "first_id", "last_id", "has_more"],
    "properties": {"object": {"const": "list"}, "data": {"type": "array"}, "has_more": {"type": "boolean"}},
}
FEEDBACK: Schema = {
    "type": "object",
    "required": ["id"],
    "additionalProperties": False,
    "anyOf": [
        {"required": [name], "properties": {name: {"not": {"type": "null"}}}} for name in ("score", "correction", "comment")
    ],
    "properties": {
        "id": {"type": "string", "minLength": 1, "maxLength": 192, "description": "of the reply, or its trace"},
        "score": maybe({"anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"type": "boolean"}]}),
        "correction": maybe(
            {"type": "string", "maxLength": LONGEST_CORRECTION, "description": "the answer as it should have been"}
        ),
        "comment": maybe({"type": "string", "maxLength": LONGEST_COMMENT}),
    },
}


def given(schema: Schema, description: str) -> Schema:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def responses(schema: Schema, description: str) -> Schema:
    return {"200": given(schema, description), "default": given(ref("Error"), "Refused or failed: OpenAI's error body")}


def reading(summary: str, schema: Schema, **more: Any) -> Schema:
    return {"get": {"summary": summary, "responses": responses(schema, summary), **more}}


def asking(summary: str, body: Schema, answer: Schema, streams: bool = True) -> Schema:
    answers = responses(answer, summary)
    if streams:
        answers["200"]["content"]["text/event-stream"] = {}  # chunks, usage, [DONE]
    asked = {"required": True, "content": {"application/json": {"schema": body}}}
    session = {"name": "x-session-id", "in": "header", "required": False, "schema": {"type": "string"}}
    return {"post": {"summary": summary, "parameters": [session], "requestBody": asked, "responses": answers}}


def probing(summary: str) -> Schema:
    """503 is an answer too."""
    answers = responses(ref("Ready"), "Yes") | {"503": given(ref("Ready"), "No: what is missing")}
    return {"get": {"summary": summary, "responses": answers, "security": []}}


RUNS: Schema = {"type": "object", "required": ["status", "tiers"]}
PATHS: Schema = {
    "/": reading("What is here", {"type": "object", "required": ["name", "version", "api"]}, security=[]),
    **{path: reading("Whether the server runs", RUNS, security=[]) for path in health.LIVE},
    **{path: probing("Whether it should get requests") for path in health.READY},
    **{path: probing("Whether every tier has been up since the start") for path in health.STARTED},
    "/v1/models": reading("Tiers and ways to ask for routing", ref("Models")),
    "/v1/models/{name}": reading(
        "One of them",
        ref("Model"),
        parameters=[{"name": "name", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}],
    ),
    "/v1/status": reading("The ladder, the targets, and what is promised", {"type": "object", "required": ["tiers", "target"]}),
    "/v1/key": reading("What the holder of the key may", {"type": "object", "required": ["id", "rights", "learning", "collect"]}),
    "/v1/admin/reload": {
        "post": {
            "summary": "Read routing, escalation, delegation and the artefact again; needs a key with the right admin",
            "responses": responses({"type": "object", "required": ["at", "times", "needs_restart"]}, "They are in use"),
        }
    },
    "/v1/chat/completions": asking("Answer a chat from the cheapest tier that is capable of it", ref("Chat"), ref("Answer")),
    "/v1/completions": asking("Answer a prompt", ref("Text"), ref("Answer")),
    **openapi_protocols.PATHS,
    "/v1/decision": asking("Decide without answering", {"anyOf": [ref("Chat"), ref("Text")]}, ref("Decision"), streams=False),
}
# -- kept completions; there with a ledger -----------------------------------------------------------------------------------

ID: Schema = {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def queried(name: str, schema: Schema, required: bool = False) -> Schema:
    return {"name": name, "in": "query", "required": required, "schema": schema}


PAGED = [
    queried("after", {"type": "string"}),
    queried("limit", {"type": "integer", "minimum": 1, "maximum": MOST_LISTED, "default": 20}),
    queried("order", {"enum": ["asc", "desc"], "default": "asc"}),
]


def posting(summary: str, body: Schema, answer: Schema) -> Schema:
    asked = {"required": True, "content": {"application/json": {"schema": body}}}
    return {"post": {"summary": summary, "requestBody": asked, "responses": responses(answer, summary)}}


CHANGED: Schema = {
    "type": "object",
    "required": ["metadata"],
    "additionalProperties": False,
    "properties": {"metadata": maybe(METADATA)},
}
KEPT_PATHS: Schema = {
    "/v1/chat/completions": reading(
        "Kept answers of this key; with the right learn of every key, or of one: key=ID",
        ref("List"),
        description="By metadata: metadata[NAME]=VALUE, also several.",
        parameters=[*PAGED, queried("model", {"type": "string"}), queried("key", {"type": "string"})],
    ),
    "/v1/chat/completions/{id}": {
        **reading("A kept answer", ref("Answer")),
        **posting("Replace the metadata of a kept answer", CHANGED, ref("Answer")),
        "delete": {"summary": "Forget a request", "responses": responses(ref("Deleted"), "Nothing of it is kept any more")},
        "parameters": [ID],
    },
    "/v1/chat/completions/{id}/messages": reading("The messages of a kept answer", ref("List"), parameters=[ID, *PAGED]),
    "/v1/feedback": {
        **posting("Say how good a kept answer was", FEEDBACK, ref("Given")),
        **reading(
            "What was said of a kept answer",
            {"type": "object", "required": ["data"]},
            parameters=[queried("id", {"type": "string", "minLength": 1}, required=True)],
        ),
    },
}
SCHEMAS: Schema = {
    "List": LIST,
    "Deleted": {"type": "object", "required": ["id", "deleted"], "properties": {"deleted": {"const": True}}},
    "Given": {"type": "object", "required": ["object", "id", "score", "correction", "comment"]},
    "Part": PART,
    "Message": MESSAGE,
    "Chat": CHAT,
    "Text": TEXT,
    "Error": ERROR,
    "Answer": ANSWER,
    "Model": CARD,
    "Models": {"type": "object", "required": ["data"], "properties": {"data": {"type": "array", "items": ref("Model")}}},
    "Decision": DECISION,
    **openapi_protocols.SCHEMAS,
    "Ready": {"type": "object", "required": ["status", "missing"], "properties": {"missing": {"type": "object"}}},
}


KEYS: Schema = {
    "key": {"type": "http", "scheme": "bearer"},
    **{name: {"type": "apiKey", "in": "header", "name": name} for name in offered.NAMES},
}
"""ways to send the key"""


def all_paths() -> Schema:
    """Also those that are there only with a ledger."""
    return {path: PATHS.get(path, {}) | KEPT_PATHS.get(path, {}) for path in PATHS | KEPT_PATHS} | services.PATHS


def describe() -> dict[str, Any]:
    """The whole description, which does not depend on the configuration."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Stepdown",
            "version": version("stepdown"),
            "description": f"One OpenAI-compatible endpoint over a ladder of models. At most {MAX_TOKENS} tokens of answer.",
        },
        "security": [{name: []} for name in KEYS],
        "paths": all_paths(),
        "components": {"schemas": SCHEMAS | services.SCHEMAS, "securitySchemes": KEYS},
    }


async def endpoint(request: Request) -> Response:
    """`GET /openapi.json`. Needs no key, since it reveals nothing about this server."""
    return JSONResponse(describe())
