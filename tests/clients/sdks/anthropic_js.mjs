// Anthropic's JavaScript SDK: Messages, whole and streamed.

import Anthropic from "@anthropic-ai/sdk";
import { assert, CALL_WEATHER, main, SAID_SUNNY, SUNNY, WEATHER, where } from "./checking.mjs";

const client = new Anthropic({ baseURL: where.origin, apiKey: where.key, maxRetries: 0 });
const TOOL = { name: "get_weather", description: "the weather", input_schema: WEATHER };
const asked = (text, more = {}) => ({ model: "auto", max_tokens: 2000, messages: [{ role: "user", content: text }], ...more });

await main(["@anthropic-ai/sdk"], {
  async messages() {
    const answer = await client.messages.create(asked("hello"));
    assert.deepEqual([answer.content[0].text, answer.stop_reason], ["You said: hello", "end_turn"]);
  },
  async messages_stream_as_whole() {
    const question = asked(`THINK 3 ${CALL_WEATHER}`, { tools: [TOOL], thinking: { type: "enabled", budget_tokens: 1024 } });
    const whole = await client.messages.create(question);
    const final = await client.messages.stream(question).finalMessage();
    assert.deepEqual(JSON.parse(JSON.stringify(final.content)), JSON.parse(JSON.stringify(whole.content)));
    assert.deepEqual(whole.content.map((block) => block.type), ["thinking", "tool_use"]);
  },
  async messages_tool_loop() {
    const question = asked(CALL_WEATHER, { tools: [TOOL] });
    const first = await client.messages.create(question);
    const result = { type: "tool_result", tool_use_id: first.content.at(-1).id, content: SUNNY };
    question.messages.push({ role: "assistant", content: first.content }, { role: "user", content: [result] });
    assert.equal((await client.messages.create(question)).content.at(-1).text, SAID_SUNNY);
  },
  async count_tokens() {
    const counted = await client.messages.countTokens({ model: "auto", messages: [{ role: "user", content: "hello ".repeat(100) }] });
    assert.ok(counted.input_tokens > 80);
  },
  async models() {
    const names = [];
    for await (const model of client.models.list()) names.push(model.id);
    assert.ok(names.includes("auto"));
  },
});
