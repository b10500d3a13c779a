"""OpenAI's Python SDK: chat and Responses, whole and streamed."""

import openai
from checking import CALL_WEATHER, SAID_SUNNY, SUNNY, WEATHER, Where, main
from openai import OpenAI
from pydantic import BaseModel

CHAT_TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}
TOOL = {"type": "function", "name": "get_weather", "parameters": WEATHER, "strict": True}


class City(BaseModel):
    city: str
    n: int


def client(where: Where) -> OpenAI:
    return OpenAI(base_url=where.url, api_key=where.key, max_retries=0)


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


# -- chat --------------------------------------------------------------------------------------------------------------------


def does_chat(where: Where) -> None:
    answer = client(where).chat.completions.create(model="auto", messages=user("hello"))
    assert answer.choices[0].message.content == "You said: hello" and answer.usage.prompt_tokens == 1


def does_chat_stream(where: Where) -> None:
    usage = {"include_usage": True}
    with client(where).chat.completions.stream(model="auto", messages=user("hello"), stream_options=usage) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == "You said: hello" and final.usage.prompt_tokens == 1


def does_chat_tool_loop(where: Where) -> None:
    messages = user(CALL_WEATHER)
    first = client(where).chat.completions.create(model="auto", messages=messages, tools=[CHAT_TOOL]).choices[0].message
    call = first.tool_calls[0]
    assert (call.function.name, call.function.arguments) == ("get_weather", '{"city": "Rome"}')
    messages += [first.to_dict(), {"role": "tool", "tool_call_id": call.id, "content": SUNNY}]
    last = client(where).chat.completions.create(model="auto", messages=messages, tools=[CHAT_TOOL])
    assert last.choices[0].message.content == SAID_SUNNY


def does_chat_parallel_calls_stream(where: Where) -> None:
    with client(where).chat.completions.stream(model="auto", messages=user("TOOLS 2"), tools=[CHAT_TOOL]) as stream:
        calls = stream.get_final_completion().choices[0].message.tool_calls
    assert [call.function.arguments for call in calls] == ['{"city": "text 0"}', '{"city": "text 1"}']


def does_chat_parse(where: Where) -> None:
    answer = client(where).chat.completions.parse(model="auto", messages=user("a city"), response_format=City)
    assert answer.choices[0].message.parsed == City(city="text", n=3)


def does_models(where: Where) -> None:
    assert {"auto", "small", "large"} <= {model.id for model in client(where).models.list()}
    assert client(where).models.retrieve("auto").id == "auto"


def does_model_with_a_slash(where: Where) -> None:
    try:
        client(where).models.retrieve("some/model")
    except openai.NotFoundError as error:
        assert "some/model" in str(error) and error.code == "model_not_found"
    else:
        raise AssertionError("a model that does not exist was found")


# -- Responses -------------------------------------------------------------------------------------------------------------


def does_responses(where: Where) -> None:
    answer = client(where).responses.create(model="auto", input="hello", instructions="be brief")
    assert answer.output_text == "You said: hello" and answer.status == "completed" and answer.usage.input_tokens == 3
    assert (answer.model, answer.object, answer.error) == ("auto", "response", None)


def does_responses_raw_stream(where: Where) -> None:
    events = list(client(where).responses.create(model="auto", input="hello", stream=True))
    assert events[0].type == "response.created" and events[-1].type == "response.completed"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == events[-1].response.output_text == "You said: hello"


def does_responses_stream_as_whole(where: Where) -> None:
    """What the helper gathers is what a request without a stream gets."""
    asked = {"model": "auto", "input": f"THINK 3 {CALL_WEATHER}", "tools": [TOOL], "reasoning": {"effort": "low"}}
    whole = client(where).responses.create(**asked)
    with client(where).responses.stream(**asked) as stream:
        for _ in stream:
            pass
        final = stream.get_final_response()
    assert [plain(item) for item in final.output] == [plain(item) for item in whole.output]
    assert [item.type for item in whole.output] == ["reasoning", "function_call"]
    assert whole.output[0].summary[0].text.split() == ["thought0", "thought1", "thought2"]
    counts = [(made.usage.input_tokens, made.usage.output_tokens, made.usage.total_tokens) for made in (final, whole)]
    assert counts == [(6, 4, 10)] * 2 and whole.usage.output_tokens_details.reasoning_tokens == 3


def plain(item) -> dict:
    """An item without its id, which differs from request to request, and without what only the helper adds."""
    return {name: value for name, value in item.to_dict().items() if name not in ("id", "parsed_arguments", "parsed")}


def does_responses_tool_loop(where: Where) -> None:
    given = user(CALL_WEATHER)
    first = client(where).responses.create(model="auto", input=given, tools=[TOOL])
    call = next(item for item in first.output if item.type == "function_call")
    assert (call.name, call.arguments) == ("get_weather", '{"city": "Rome"}')
    given += [*first.output, {"type": "function_call_output", "call_id": call.call_id, "output": SUNNY}]
    assert client(where).responses.create(model="auto", input=given, tools=[TOOL]).output_text == SAID_SUNNY


def does_responses_parallel_calls_stream(where: Where) -> None:
    with client(where).responses.stream(model="auto", input="TOOLS 2", tools=[TOOL]) as stream:
        calls = [item for item in stream.get_final_response().output if item.type == "function_call"]
    assert [call.arguments for call in calls] == ['{"city": "text 0"}', '{"city": "text 1"}']
    assert calls[0].call_id != calls[1].call_id


def does_responses_parse(where: Where) -> None:
    answer = client(where).responses.parse(model="auto", input="a city", text_format=City)
    assert answer.output_parsed == City(city="text", n=3)
    with client(where).responses.stream(model="auto", input="a city", text_format=City) as stream:
        assert stream.get_final_response().output_parsed == City(city="text", n=3)


def does_responses_incomplete(where: Where) -> None:
    answer = client(where).responses.create(model="auto", input="LENGTH", max_output_tokens=16)
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")


def does_responses_reasoning_round_trip(where: Where) -> None:
    """Encrypted reasoning is taken back."""
    include = ["reasoning.encrypted_content"]
    given = user(f"THINK 3 {CALL_WEATHER}")
    first = client(where).responses.create(model="auto", input=given, tools=[TOOL], include=include, store=False)
    assert first.output[0].encrypted_content
    given += [*first.output, {"type": "function_call_output", "call_id": first.output[-1].call_id, "output": SUNNY}]
    last = client(where).responses.create(model="auto", input=given, tools=[TOOL], include=include, store=False)
    assert last.output_text == SAID_SUNNY


def does_responses_never_lose_their_history(where: Where) -> None:
    try:
        client(where).responses.create(model="auto", input="more", previous_response_id="resp_0")
    except openai.BadRequestError as error:
        assert error.code == "previous_response_not_found" and "responses.store" in str(error)
    else:
        raise AssertionError("it went on without its history")


def does_responses_count(where: Where) -> None:
    counted = client(where).responses.input_tokens.count(model="auto", input="hello " * 100)
    assert 80 < counted.input_tokens < 300


def does_responses_failure(where: Where) -> None:
    try:
        client(where).responses.create(model="auto", input="FAIL 400")
    except openai.BadRequestError as error:
        assert error.body["type"] == "invalid_request_error"
    else:
        raise AssertionError("a failure was answered")


# -- embeddings ------------------------------------------------------------------------------------------------------------


def does_embeddings(where: Where) -> None:
    """The SDK asks for base64 unless it is told otherwise."""
    texts = ["one text", "another", "one text"]
    coded = client(where).embeddings.create(model="embed", input=texts)
    plain = client(where).embeddings.create(model="text-embedding-3-small", input=texts, encoding_format="float")
    first, second, third = (item.embedding for item in coded.data)
    assert first == third != second and len(first) > 1 and coded.usage.prompt_tokens > 0
    for item, vector in zip(plain.data, (first, second, third), strict=True):
        assert max(abs(a - b) for a, b in zip(item.embedding, vector, strict=True)) < 1e-6


def does_embeddings_of_a_tier(where: Where) -> None:
    try:
        client(where).embeddings.create(model="auto", input="hello")
    except openai.APIStatusError as error:
        assert error.status_code in (400, 404) and "embed" in str(error)
    else:
        raise AssertionError("a tier made vectors")


if __name__ == "__main__":
    main(globals(), "openai")
