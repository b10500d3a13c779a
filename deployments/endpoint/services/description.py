"""The paths of the services in OpenAPI, as routes/openapi.py has the others: as strict as router/services/body.py, not more."""

from deployments.endpoint.openapi_words import Schema, maybe, ref
from router.services.body import FORMATS, MOST_DIMENSIONS, MOST_ID, MOST_INPUTS

TEXT: Schema = {"anyOf": [{"type": "string", "minLength": 1}, {"type": "object", "minProperties": 1}]}
TEXTS: Schema = {"anyOf": [*TEXT["anyOf"], {"type": "array", "minItems": 1, "maxItems": MOST_INPUTS, "items": TEXT}]}
IDS: Schema = {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0, "exclusiveMaximum": MOST_ID}}
MODEL: Schema = {"type": "string", "minLength": 1, "description": "a service of that kind"}


def several(items: Schema) -> Schema:
    return {"type": "array", "minItems": 1, "maxItems": MOST_INPUTS, "items": items}


def body(**fields: Schema) -> Schema:
    required = ["model", *(name for name, schema in fields.items() if {"type": "null"} not in schema.get("anyOf", ()))]
    return {"type": "object", "required": required, "properties": {"model": MODEL, **fields}}


def answer(*fields: str) -> Schema:
    return {"type": "object", "required": list(fields)}


SCHEMAS: Schema = {
    "Embeddings": body(
        input={"anyOf": [{"type": "string", "minLength": 1}, IDS, several({"type": "string", "minLength": 1}), several(IDS)]},
        encoding_format=maybe({"enum": list(FORMATS)}),
        dimensions=maybe({"type": "integer", "minimum": 1, "maximum": MOST_DIMENSIONS}),
    ),
    "Rerank": body(query=TEXT, documents=TEXTS, top_n=maybe({"type": "integer", "minimum": 0, "maximum": MOST_INPUTS})),
    "Score": body(text_1=TEXTS, text_2=TEXTS)
    | {"description": "One text with any number of others, or as many of each; vLLM's other names of the two sides are read too"},
}


def asking(summary: str, name: str, answered: Schema) -> Schema:
    asked = {"required": True, "content": {"application/json": {"schema": ref(name)}}}
    failed = {"application/json": {"schema": ref("Error")}}
    answers = {
        "200": {"description": summary, "content": {"application/json": {"schema": answered}}},
        "default": {"description": "Refused or failed: OpenAI's error body", "content": failed},
    }
    return {"post": {"summary": summary, "requestBody": asked, "responses": answers}}


RERANK = asking("Put documents in the order of their relevance", "Rerank", {"type": "object"})
PATHS: Schema = {
    "/v1/embeddings": asking("A vector for each text", "Embeddings", answer("data")),
    "/v1/rerank": RERANK,
    "/v2/rerank": RERANK,
    "/v1/score": asking("How alike two texts are", "Score", answer("data")),
}
