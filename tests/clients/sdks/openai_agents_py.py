"""OpenAI's Agents SDK, by Responses, which is its default, and by chat."""

from agents import Agent, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled
from checking import CALL_WEATHER, SAID_SUNNY, Where, main
from openai import AsyncOpenAI
from pydantic import BaseModel

set_tracing_disabled(True)


class City(BaseModel):
    city: str
    n: int


@function_tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


def agent(where: Where, kind, **more) -> Agent:
    model = kind(model="auto", openai_client=AsyncOpenAI(base_url=where.url, api_key=where.key, max_retries=0))
    return Agent(name="tester", instructions="be brief", model=model, **more)


async def loops(where: Where, kind) -> None:
    result = await Runner.run(agent(where, kind, tools=[get_weather]), CALL_WEATHER)
    assert result.final_output == SAID_SUNNY


async def streams(where: Where, kind) -> None:
    result = Runner.run_streamed(agent(where, kind, tools=[get_weather]), f"THINK 3 {CALL_WEATHER}")
    names = [event.type async for event in result.stream_events()]
    assert result.final_output == SAID_SUNNY and "run_item_stream_event" in names


async def makes_an_object(where: Where, kind) -> None:
    result = await Runner.run(agent(where, kind, output_type=City), "a city")
    assert result.final_output == City(city="text", n=3)


async def does_responses_tool_loop(where: Where) -> None:
    await loops(where, OpenAIResponsesModel)


async def does_responses_stream(where: Where) -> None:
    await streams(where, OpenAIResponsesModel)


async def does_responses_object(where: Where) -> None:
    await makes_an_object(where, OpenAIResponsesModel)


async def does_responses_second_turn(where: Where) -> None:
    """Items that the SDK echoes are read."""
    tester = agent(where, OpenAIResponsesModel, tools=[get_weather])
    first = await Runner.run(tester, f"THINK 3 {CALL_WEATHER}")
    second = await Runner.run(tester, [*first.to_input_list(), {"role": "user", "content": "thanks"}])
    assert second.final_output == "You said: thanks"


async def does_chat_tool_loop(where: Where) -> None:
    await loops(where, OpenAIChatCompletionsModel)


async def does_chat_stream(where: Where) -> None:
    await streams(where, OpenAIChatCompletionsModel)


async def does_chat_object(where: Where) -> None:
    await makes_an_object(where, OpenAIChatCompletionsModel)


if __name__ == "__main__":
    main(globals(), "openai-agents")
