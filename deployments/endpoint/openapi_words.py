"""Words that all descriptions of endpoints in OpenAPI share."""

from typing import Any

Schema = dict[str, Any]


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def maybe(schema: Schema) -> Schema:
    """null means the same as leaving it out."""
    return {"anyOf": [schema, {"type": "null"}]}
