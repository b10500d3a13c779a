// Vercel's AI SDK by its four ways here: OpenAI's Responses (its default) and chat, Anthropic's Messages, OpenAI-compatible.

import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, jsonSchema, Output, stepCountIs, streamText, tool } from "ai";
import { assert, CALL_WEATHER, CITY, main, SAID_SUNNY, WEATHER, where } from "./checking.mjs";

const settings = { baseURL: where.url, apiKey: where.key };
const openai = createOpenAI(settings);
const models = {
  responses: openai("auto"),
  chat: openai.chat("auto"),
  messages: createAnthropic(settings)("auto"),
  compatible: createOpenAICompatible({ name: "stepdown", includeUsage: true, supportsStructuredOutputs: true, ...settings })("auto"),
};
const get_weather = tool({
  description: "the weather", inputSchema: jsonSchema(WEATHER), execute: async ({ city }) => `sunny in ${city}`,
});

// Else it names items of earlier turns by their ids, which only a server that keeps them can read.
const UNKEPT = { openai: { store: false } };

const checks = {};
for (const [name, model] of Object.entries(models)) {
  const asked = { model, maxRetries: 0, providerOptions: UNKEPT };
  checks[`${name}_text`] = async () => {
    assert.equal((await generateText({ ...asked, prompt: "hello" })).text, "You said: hello");
  };
  checks[`${name}_tool_loop`] = async () => {
    const loop = { prompt: `THINK 3 ${CALL_WEATHER}`, tools: { get_weather }, stopWhen: stepCountIs(4) };
    assert.equal((await generateText({ ...asked, ...loop })).text, SAID_SUNNY);
    const streamed = streamText({ ...asked, ...loop });
    assert.equal(await streamed.text, SAID_SUNNY);
    assert.equal((await streamed.steps).length, 2);
  };
  checks[`${name}_object`] = async () => {
    const output = Output.object({ schema: jsonSchema(CITY) });
    assert.deepEqual((await generateText({ ...asked, prompt: "a city", output })).output, { city: "text", n: 3 });
  };
  checks[`${name}_stream`] = async () => {
    const streamed = streamText({ ...asked, prompt: "hello" });
    let text = "";
    for await (const piece of streamed.textStream) text += piece;
    assert.equal(text, "You said: hello");
    assert.equal((await streamed.usage).outputTokens, 3);
  };
}
checks.responses_reasoning = async () => {
  const shown = await generateText({ model: models.responses, prompt: "THINK 3 hello" });
  assert.equal(shown.reasoningText.trim(), "thought0 thought1 thought2");
};

await main(["ai", "@ai-sdk/openai", "@ai-sdk/anthropic", "@ai-sdk/openai-compatible"], checks);
