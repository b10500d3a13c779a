"""LiteLLM, DSPy, Instructor, smolagents and LlamaIndex: an answer or an object each."""

import logging

import dspy
import instructor
import litellm
from checking import CALL_WEATHER, SAID_SUNNY, SUNNY, WEATHER, Where, main
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike
from openai import OpenAI
from pydantic import BaseModel
from smolagents import OpenAIServerModel

logging.getLogger("LiteLLM").setLevel(logging.ERROR)


class City(BaseModel):
    city: str
    n: int


def does_litellm_chat(where: Where) -> None:
    asked = {"model": "openai/auto", "api_base": where.url, "api_key": where.key}
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}
    messages = [{"role": "user", "content": CALL_WEATHER}]
    first = litellm.completion(messages=messages, tools=[tool], **asked).choices[0].message
    messages += [first, {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": SUNNY}]
    assert litellm.completion(messages=messages, tools=[tool], **asked).choices[0].message.content == SAID_SUNNY


def does_litellm_responses(where: Where) -> None:
    answer = litellm.responses(model="openai/auto", input="hello", api_base=where.url, api_key=where.key)
    assert answer.output[-1].content[0].text == "You said: hello"


def does_litellm_messages(where: Where) -> None:
    """It asks for 128000 tokens, more than the small tier's window."""
    messages = [{"role": "user", "content": "hello"}]
    answer = litellm.completion(model="anthropic/auto", messages=messages, api_base=where.origin, api_key=where.key)
    assert answer.choices[0].message.content == "You said: hello"


def does_dspy(where: Where) -> None:
    lm = dspy.LM("openai/auto", api_base=where.url, api_key=where.key, cache=False)
    assert lm("hello")[0] == "You said: hello"


def does_instructor(where: Where) -> None:
    client = instructor.from_openai(OpenAI(base_url=where.url, api_key=where.key), mode=instructor.Mode.JSON_SCHEMA)
    messages = [{"role": "user", "content": "a city"}]
    made = client.chat.completions.create(model="auto", messages=messages, response_model=City)
    assert made.model_dump() == {"city": "text", "n": 3}


def does_smolagents(where: Where) -> None:
    model = OpenAIServerModel("auto", api_base=where.url, api_key=where.key)
    answer = model.generate([{"role": "user", "content": [{"type": "text", "text": "hello"}]}], stop_sequences=["Observation:"])
    assert answer.content == "You said: hello"


def does_llama_index(where: Where) -> None:
    model = OpenAILike(model="auto", api_base=where.url, api_key=where.key, is_chat_model=True)
    assert model.chat([ChatMessage(role="user", content="hello")]).message.content == "You said: hello"


if __name__ == "__main__":
    main(globals(), "litellm", "dspy", "instructor", "smolagents")
