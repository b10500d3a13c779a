"""What OpenAPI says of the services' bodies is what is checked: a body that fits is read, and one that is read fits."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from deployments.endpoint.services.description import SCHEMAS
from router.errors import BadRequest
from router.services.body import READERS, parse

VALIDATORS = {kind: Draft202012Validator(SCHEMAS[kind.capitalize()]) for kind in READERS}
WORDS = st.sampled_from(["a", "", "base64", "float"])
ANY = st.recursive(
    WORDS | st.none() | st.booleans() | st.integers(-1, 3) | st.just(2**31),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.just("x"), inner, max_size=1),
    max_leaves=5,
)
FIELDS = {
    "embeddings": ["input", "encoding_format", "dimensions"],
    "rerank": ["query", "documents", "top_n"],
    "score": ["text_1", "text_2"],
}


@pytest.mark.parametrize("kind", sorted(READERS))
@given(st.data())
def test_the_description_is_as_strict_as_the_check(kind, data):
    body = {"model": "it"} | data.draw(st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS[kind], ANY)))
    fits = VALIDATORS[kind].is_valid(body)
    try:
        parse(kind, json.dumps(body).encode())
        read = True
    except BadRequest as refused:
        read = "send one with any number" in str(refused)  # which no schema can say
    assert read == fits, body
