"""Anthropic's Python SDK: Messages, whole and streamed."""

import anthropic
from anthropic import Anthropic
from checking import CALL_WEATHER, SAID_SUNNY, SUNNY, WEATHER, Where, main
from pydantic import BaseModel

TOOL = {"name": "get_weather", "description": "the weather", "input_schema": WEATHER}
THINKING = {"type": "enabled", "budget_tokens": 1024}


class City(BaseModel):
    city: str
    n: int


def client(where: Where) -> Anthropic:
    """The SDK adds /v1 itself."""
    return Anthropic(base_url=where.origin, api_key=where.key, max_retries=0)


def asked(text: str, **more):
    return {"model": "auto", "max_tokens": 2000, "messages": [{"role": "user", "content": text}], **more}


def does_messages(where: Where) -> None:
    answer = client(where).messages.create(**asked("hello", system="be brief"))
    assert [block.text for block in answer.content] == ["You said: hello"] and answer.stop_reason == "end_turn"
    assert (answer.model, answer.role, answer.usage.input_tokens, answer.usage.output_tokens) == ("auto", "assistant", 3, 3)


def does_messages_stream(where: Where) -> None:
    with client(where).messages.stream(**asked("hello")) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == final.content[0].text == "You said: hello" and final.stop_reason == "end_turn"
    assert (final.usage.input_tokens, final.usage.output_tokens) == (1, 3)


def does_messages_stream_as_whole(where: Where) -> None:
    question = asked(f"THINK 3 {CALL_WEATHER}", tools=[TOOL], thinking=THINKING)
    whole = client(where).messages.create(**question)
    with client(where).messages.stream(**question) as stream:
        final = stream.get_final_message()
    assert [block.type for block in whole.content] == ["thinking", "tool_use"]
    assert [plain(block) for block in final.content] == [plain(block) for block in whole.content]
    assert whole.content[0].thinking.split() == ["thought0", "thought1", "thought2"] and whole.stop_reason == "tool_use"
    assert final.usage.output_tokens == whole.usage.output_tokens


def plain(block) -> dict:
    return {name: value for name, value in block.to_dict().items() if name != "parsed_output"}


def does_messages_tool_loop(where: Where) -> None:
    """The signature of what was thought is taken back."""
    question = asked(f"THINK 3 {CALL_WEATHER}", tools=[TOOL], thinking=THINKING)
    first = client(where).messages.create(**question)
    thought, call = first.content[0], first.content[-1]
    assert thought.signature and (call.name, call.input) == ("get_weather", {"city": "Rome"})
    result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": SUNNY}]}
    question["messages"] += [{"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
    assert client(where).messages.create(**question).content[-1].text == SAID_SUNNY


def does_messages_tool_runner(where: Where) -> None:
    """The SDK's own loop."""

    @anthropic.beta_tool
    def get_weather(city: str) -> str:
        """The weather.

        Args:
            city: where
        """
        return f"sunny in {city}"

    runner = client(where).beta.messages.tool_runner(**asked(CALL_WEATHER, tools=[get_weather]))
    assert runner.until_done().content[-1].text == SAID_SUNNY


def does_messages_parallel_calls_stream(where: Where) -> None:
    with client(where).messages.stream(**asked("TOOLS 2", tools=[TOOL])) as stream:
        calls = [block for block in stream.get_final_message().content if block.type == "tool_use"]
    assert [call.input for call in calls] == [{"city": "text 0"}, {"city": "text 1"}] and calls[0].id != calls[1].id


def does_messages_bad_arguments(where: Where) -> None:
    """Arguments that are no JSON object do not make the whole answer fail."""
    raw = client(where).messages.with_raw_response.create(**asked("BADARGS", tools=[TOOL]))
    assert raw.parse().content[-1].input == {} and raw.headers["x-stepdown-warning"]


def does_messages_parse(where: Where) -> None:
    answer = client(where).messages.parse(**asked("a city", output_format=City))
    assert answer.parsed_output == City(city="text", n=3)


def does_messages_cut_by_their_limit(where: Where) -> None:
    assert client(where).messages.create(**asked("LENGTH")).stop_reason == "max_tokens"


def does_count_tokens(where: Where) -> None:
    question = asked("hello " * 100, tools=[TOOL])
    question.pop("max_tokens")
    assert 80 < client(where).messages.count_tokens(**question).input_tokens < 500


def does_models(where: Where) -> None:
    found = {model.id: model for model in client(where).models.list()}
    assert {"auto", "small", "large"} <= set(found) and found["auto"].type == "model" and found["auto"].display_name


def does_bearer_key(where: Where) -> None:
    bearer = Anthropic(base_url=where.origin, auth_token=where.key, max_retries=0)
    assert bearer.messages.create(**asked("hello")).content[0].text == "You said: hello"


def does_wrong_key(where: Where) -> None:
    wrong = Anthropic(base_url=where.origin, api_key="wrong", max_retries=0)
    try:
        wrong.messages.create(**asked("hello"))
    except anthropic.AuthenticationError as error:
        assert error.body["error"]["type"] == "authentication_error" and error.body["request_id"]
    else:
        raise AssertionError("a wrong key was let in")


def does_failure(where: Where) -> None:
    try:
        client(where).messages.create(**asked("FAIL 503"))
    except anthropic.APIStatusError as error:
        assert error.status_code == 529 and error.body["error"]["type"] == "overloaded_error"
    else:
        raise AssertionError("a failure was answered")


if __name__ == "__main__":
    main(globals(), "anthropic")
