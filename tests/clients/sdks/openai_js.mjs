// OpenAI's JavaScript SDK: chat and Responses, whole and streamed.

import OpenAI from "openai";
import { assert, CALL_WEATHER, CITY, main, SAID_SUNNY, SUNNY, WEATHER, where } from "./checking.mjs";

const client = new OpenAI({ baseURL: where.url, apiKey: where.key, maxRetries: 0 });
const TOOL = { type: "function", name: "get_weather", parameters: WEATHER, strict: true };
const user = (text) => [{ role: "user", content: text }];

await main(["openai"], {
  async chat_tool_loop() {
    const tools = [{ type: "function", function: { name: "get_weather", parameters: WEATHER } }];
    const messages = user(CALL_WEATHER);
    const first = (await client.chat.completions.create({ model: "auto", messages, tools })).choices[0].message;
    messages.push(first, { role: "tool", tool_call_id: first.tool_calls[0].id, content: SUNNY });
    const last = await client.chat.completions.create({ model: "auto", messages, tools });
    assert.equal(last.choices[0].message.content, SAID_SUNNY);
  },
  async chat_stream() {
    const stream = client.chat.completions.stream({ model: "auto", messages: user("hello") });
    assert.equal((await stream.finalChatCompletion()).choices[0].message.content, "You said: hello");
  },
  async responses() {
    const answer = await client.responses.create({ model: "auto", input: "hello" });
    assert.equal(answer.output_text, "You said: hello");
  },
  async responses_raw_stream() {
    const events = [];
    for await (const event of await client.responses.create({ model: "auto", input: "hello", stream: true })) events.push(event);
    assert.deepEqual(events.map((event) => event.sequence_number), events.map((_, i) => i));
    assert.equal(events.at(-1).type, "response.completed");
  },
  async responses_stream_as_whole() {
    const asked = { model: "auto", input: `THINK 3 ${CALL_WEATHER}`, tools: [TOOL], reasoning: { effort: "low" } };
    const plain = ({ id, parsed_arguments, ...item }) => item;
    const whole = await client.responses.create(asked);
    const final = await client.responses.stream(asked).finalResponse();
    assert.deepEqual(final.output.map(plain), whole.output.map(plain));
    assert.deepEqual(whole.output.map((item) => item.type), ["reasoning", "function_call"]);
  },
  async responses_tool_loop() {
    const input = user(CALL_WEATHER);
    const first = await client.responses.create({ model: "auto", input, tools: [TOOL] });
    const call = first.output.find((item) => item.type === "function_call");
    input.push(...first.output, { type: "function_call_output", call_id: call.call_id, output: SUNNY });
    assert.equal((await client.responses.create({ model: "auto", input, tools: [TOOL] })).output_text, SAID_SUNNY);
  },
  async embeddings() {
    const input = ["one text", "another", "one text"];
    const [first, second, third] = (await client.embeddings.create({ model: "embed", input })).data.map((item) => item.embedding);
    const plain = await client.embeddings.create({ model: "embed", input, encoding_format: "float" });
    assert.deepEqual(first, third);
    assert.notDeepEqual(first, second);
    assert.ok(first.every((value, i) => Math.abs(value - plain.data[0].embedding[i]) < 1e-6));
  },
  async responses_parse() {
    const format = { type: "json_schema", name: "city", schema: CITY, strict: true };
    const answer = await client.responses.parse({ model: "auto", input: "a city", text: { format } });
    assert.deepEqual(JSON.parse(answer.output_text), { city: "text", n: 3 });
  },
});
