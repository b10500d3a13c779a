"""LangChain: OpenAI's models by chat and by Responses, Anthropic's by Messages."""

from checking import CALL_WEATHER, SAID_SUNNY, Where, main
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel


class City(BaseModel):
    """A city."""

    city: str
    n: int


@tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


def chat(where: Where, **more):
    return ChatOpenAI(model="auto", base_url=where.url, api_key=where.key, max_retries=0, **more)


def responses(where: Where):
    return chat(where, use_responses_api=True)


def messages(where: Where):
    return ChatAnthropic(model="auto", base_url=where.origin, api_key=where.key, max_retries=0, max_tokens=2000)


def loops(model) -> None:
    bound, history = model.bind_tools([get_weather]), [HumanMessage(f"THINK 3 {CALL_WEATHER}")]
    history.append(bound.invoke(history))
    call = history[-1].tool_calls[0]
    history.append(ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"]))
    assert bound.invoke(history).text == SAID_SUNNY


def streams(model) -> None:
    whole = None
    for piece in model.stream("hello"):
        whole = piece if whole is None else whole + piece
    assert whole.text == "You said: hello" and whole.usage_metadata["output_tokens"] == 3


def makes_an_object(model) -> None:
    assert model.with_structured_output(City, method="json_schema").invoke("a city") == City(city="text", n=3)


def does_chat_tool_loop(where: Where) -> None:
    loops(chat(where))


def does_chat_stream(where: Where) -> None:
    streams(chat(where, stream_usage=True))


def does_chat_object(where: Where) -> None:
    makes_an_object(chat(where))


def does_responses_tool_loop(where: Where) -> None:
    loops(responses(where))


def does_responses_stream(where: Where) -> None:
    streams(responses(where))


def does_responses_object(where: Where) -> None:
    makes_an_object(responses(where))


def does_messages_tool_loop(where: Where) -> None:
    loops(messages(where))


def does_messages_stream(where: Where) -> None:
    streams(messages(where))


def does_messages_object(where: Where) -> None:
    makes_an_object(messages(where))


if __name__ == "__main__":
    main(globals(), "langchain-openai", "langchain-anthropic")
