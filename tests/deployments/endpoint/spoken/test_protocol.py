"""The path tells the protocol."""

import pytest

from deployments.endpoint.spoken.protocol import spoken_at


@pytest.mark.parametrize(
    "path, protocol",
    [
        ("/v1/chat/completions", "chat"),
        ("/v1/chat/completions/chatcmpl-1/messages", "chat"),
        ("/v1/models/messages", "chat"),
        ("/v1/messages", "messages"),
        ("/v1/messages/count_tokens", "messages"),
        ("/messages", "messages"),
        ("//v1//v1/messages/", "messages"),
        ("/anthropic/v1/messages", "messages"),
        ("/ladder/v1/responses/resp_1/input_items", "responses"),
        ("/responses", "responses"),
        ("/", "chat"),
    ],
)
def test_the_path_tells_the_protocol(path, protocol):
    assert spoken_at(path) == protocol
