"""The whole command on a real Ray: `stepdown serve` on echo tiers, asked with the openai client."""

import openai
import pytest

from deployments.serve.background import served

pytestmark = pytest.mark.ray
CONFIG = """
tiers:
  - {name: small, engine: echo, context: 200, delay_s: 0.01, price: {usd_per_1m_input: 1, usd_per_1m_output: 1}}
  - {name: large, engine: echo, context: 1024, price: {usd_per_1m_input: 5, usd_per_1m_output: 5}}
"""


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    file = tmp_path_factory.mktemp("echo") / "echo.yaml"
    file.write_text(CONFIG)
    with served(str(file), timeout_s=180) as (url, key):
        yield openai.OpenAI(base_url=url, api_key=key, max_retries=0)


def ask(client, model="auto", content="one two three", **more):
    return client.chat.completions.create(model=model, messages=[{"role": "user", "content": content}], **more)


def test_chats_and_streams(client):
    assert ask(client).choices[0].message.content == "one two three"
    chunks = list(ask(client, "small", stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content for c in chunks if c.choices) == "one two three"
    assert chunks[-1].usage.completion_tokens == 3


def test_errors_are_the_clients_own_classes(client):
    with pytest.raises(openai.NotFoundError, match="unknown model"):
        ask(client, "gpt-9")
    with pytest.raises(openai.BadRequestError, match="1024 tokens"):
        ask(client, content="word " * 5000)
    with pytest.raises(openai.AuthenticationError):
        ask(client.with_options(api_key="wrong"))


def test_models_are_listed(client):
    assert {"auto", "small", "large"} <= {m.id for m in client.models.list()}
