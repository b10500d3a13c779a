"""The endpoints of the protocols beside chat, for the description in OpenAPI. Each vendor documents its own fields."""

from deployments.endpoint.openapi_words import Schema, ref

NAME: Schema = {"type": "string", "minLength": 1, "description": "auto, a target, a tier or an alias", "examples": ["auto"]}
RESPONSE_BODY: Schema = {
    "type": "object",
    "description": "OpenAI's body of Responses; unknown fields are ignored, those without effect are told in x-stepdown-ignored.",
    "required": ["model", "input"],
    "properties": {
        "model": NAME,
        "input": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}]},
        "instructions": {"type": ["string", "null"]},
        "max_output_tokens": {"type": ["integer", "null"], "minimum": 1},
        "stream": {"type": ["boolean", "null"]},
        "store": {"type": ["boolean", "null"], "description": "whether it can be continued, where the server keeps answers"},
        "previous_response_id": {"type": ["string", "null"]},
        "tools": {"anyOf": [{"type": "array", "items": {"type": "object"}}, {"type": "null"}]},
    },
}
MESSAGE_BODY: Schema = {
    "type": "object",
    "description": "Anthropic's body of Messages; unknown fields are ignored.",
    "required": ["model", "messages", "max_tokens"],
    "properties": {
        "model": NAME,
        "max_tokens": {"type": "integer", "minimum": 1},
        "messages": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["role", "content"],
                "properties": {"content": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}]}},
            },
        },
        "system": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}]},
        "stream": {"type": ["boolean", "null"]},
        "tools": {"type": "array", "items": {"type": "object"}},
    },
}
RESPONSE: Schema = {
    "type": "object",
    "required": ["id", "object", "created_at", "status", "model", "output", "usage"],
    "properties": {"object": {"const": "response"}, "output": {"type": "array"}},
}
MESSAGE: Schema = {
    "type": "object",
    "required": ["id", "type", "role", "model", "content", "stop_reason", "usage"],
    "properties": {"type": {"const": "message"}, "content": {"type": "array"}},
}
COUNTED: Schema = {
    "type": "object",
    "required": ["input_tokens"],
    "properties": {"input_tokens": {"type": "integer", "minimum": 0}},
}
MESSAGES_ERROR: Schema = {
    "type": "object",
    "required": ["type", "error", "request_id"],
    "properties": {
        "type": {"const": "error"},
        "error": {"type": "object", "required": ["type", "message"]},
        "request_id": {"type": "string"},
    },
}
SCHEMAS: Schema = {
    "ResponseBody": RESPONSE_BODY,
    "MessageBody": MESSAGE_BODY,
    "Response": RESPONSE,
    "ProtocolMessage": MESSAGE,
    "Counted": COUNTED,
    "MessagesError": MESSAGES_ERROR,
}


def content(schema: Schema, description: str, streams: bool = False) -> Schema:
    shown: Schema = {"application/json": {"schema": schema}} | ({"text/event-stream": {}} if streams else {})
    return {"description": description, "content": shown}


def operation(summary: str, answer: Schema, error: str, body: Schema | None = None, streams: bool = False) -> Schema:
    made: Schema = {
        "summary": summary,
        "responses": {
            "200": content(answer, summary, streams),
            "default": content(ref(error), "Refused or failed, in the protocol's own words"),
        },
    }
    return made | ({"requestBody": {"required": True, "content": {"application/json": {"schema": body}}}} if body else {})


ID: Schema = {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
DELETED: Schema = {"type": "object", "required": ["id", "deleted"]}
PATHS: Schema = {
    "/v1/responses": {
        "post": operation("Answer by OpenAI's Responses", ref("Response"), "Error", ref("ResponseBody"), streams=True)
    },
    "/v1/responses/input_tokens": {
        "post": operation("Count a request's tokens without an answer", ref("Counted"), "Error", ref("ResponseBody"))
    },
    "/v1/responses/{id}": {
        "get": operation("An answer that is kept to be continued", ref("Response"), "Error"),
        "delete": operation("Forget it", DELETED, "Error"),
        "parameters": [ID],
    },
    "/v1/responses/{id}/input_items": {
        "get": operation("What it answered", {"type": "object", "required": ["data"]}, "Error"),
        "parameters": [ID],
    },
    "/v1/messages": {
        "post": operation(
            "Answer by Anthropic's Messages", ref("ProtocolMessage"), "MessagesError", ref("MessageBody"), streams=True
        )
    },
    "/v1/messages/count_tokens": {
        "post": operation("Count a message's tokens without an answer", ref("Counted"), "MessagesError", ref("MessageBody"))
    },
}
