"""Pydantic AI, by chat and by Responses."""

from checking import CALL_WEATHER, SAID_SUNNY, Where, main
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider


class City(BaseModel):
    city: str
    n: int


def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


def agent(where: Where, kind, **more) -> Agent:
    model = kind("auto", provider=OpenAIProvider(base_url=where.url, api_key=where.key))
    return Agent(model, system_prompt="be brief", **more)


async def loops(where: Where, kind) -> None:
    result = await agent(where, kind, tools=[get_weather]).run(f"THINK 3 {CALL_WEATHER}")
    assert result.output == SAID_SUNNY


async def streams(where: Where, kind) -> None:
    async with agent(where, kind).run_stream("hello") as result:
        assert await result.get_output() == "You said: hello"


async def makes_an_object(where: Where, kind) -> None:
    result = await agent(where, kind, output_type=NativeOutput(City)).run("a city")
    assert result.output == City(city="text", n=3)


async def does_chat_tool_loop(where: Where) -> None:
    await loops(where, OpenAIChatModel)


async def does_chat_stream(where: Where) -> None:
    await streams(where, OpenAIChatModel)


async def does_chat_object(where: Where) -> None:
    await makes_an_object(where, OpenAIChatModel)


async def does_responses_tool_loop(where: Where) -> None:
    await loops(where, OpenAIResponsesModel)


async def does_responses_stream(where: Where) -> None:
    await streams(where, OpenAIResponsesModel)


async def does_responses_object(where: Where) -> None:
    await makes_an_object(where, OpenAIResponsesModel)


if __name__ == "__main__":
    main(globals(), "pydantic-ai-slim")
