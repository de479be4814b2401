// Drives the gateway's Responses API with the Vercel AI SDK, whose `openai(...)` models speak it.
import assert from "node:assert/strict";
import { createOpenAI } from "@ai-sdk/openai";
import * as newest from "ai";
import * as fifth from "ai-5";
import { createOpenAI as createOpenAI2 } from "ai-sdk-openai-2";
import { z } from "zod";
import { failure, run, test, urls } from "./cases.mjs";

const MODEL = "gemini-3-flash-preview";
const Weather = z.object({ city: z.string(), days: z.number().int() });
const CALL = '#script:tool-then-text #call:{"name": "weather", "args": {"city": "Rome", "days": 2}}';
const stateless = { openai: { store: false, include: ["reasoning.encrypted_content"] } };

const connect = (create = createOpenAI, url = urls.main) => create({ baseURL: url, apiKey: "any" });
const ask = (prompt, more = {}) => ({
  model: connect()("gpt-4o"),
  prompt,
  maxRetries: 0,
  providerOptions: stateless,
  ...more,
});

function tools(library, seen) {
  return {
    weather: library.tool({
      description: "Tells the weather.",
      inputSchema: Weather,
      execute: async (given) => {
        seen.push(given);
        return `sunny in ${given.city}`;
      },
    }),
  };
}

async function parts(result) {
  const read = [];
  for await (const part of result.fullStream) read.push(part);
  const wrong = read.filter((part) => part.type === "error");
  assert.deepEqual(wrong.map((part) => String(part.error?.message ?? part.error)), []);
  return read;
}

test("generateText", async () => {
  const result = await newest.generateText(ask("Hello"));
  assert.equal(result.text, "Hello");
  assert.equal(result.finishReason, "stop");
  assert.ok(result.usage.inputTokens > 0 && result.usage.outputTokens > 0);
});

test("streamText", async () => {
  const result = newest.streamText(ask("a few words, one after another"));
  const read = await parts(result);
  assert.ok(read.filter((part) => part.type === "text-delta").length > 1);
  assert.equal(await result.text, "a few words, one after another");
  assert.equal(await result.finishReason, "stop");
});

test("streamText, reasoning", async () => {
  const openai = { ...stateless.openai, reasoningEffort: "low", reasoningSummary: "auto", forceReasoning: true };
  const result = newest.streamText(ask("#script:thoughts deep", { providerOptions: { openai } }));
  await parts(result);
  assert.match(await result.reasoningText, /Reading the request/);
});

async function loop(library, create, providerOptions) {
  const seen = [];
  const more = {
    model: connect(create)(MODEL),
    tools: tools(library, seen),
    stopWhen: library.stepCountIs(3),
    providerOptions,
  };
  const result = await library.generateText(ask(CALL, more));
  const streamed = library.streamText(ask(CALL, more));
  await parts(streamed);
  assert.deepEqual(seen, Array(2).fill({ city: "Rome", days: 2 }));
  for (const each of [result, streamed]) {
    assert.match(await each.text, /sunny in Rome/);
    assert.equal((await each.steps).length, 2);
  }
}

async function turns(library, create, providerOptions) {
  const more = { model: connect(create)(MODEL), prompt: undefined, providerOptions };
  const first = [{ role: "user", content: "#script:thoughts my word is tulip" }];
  const said = await library.generateText(ask(undefined, { ...more, messages: first }));
  const second = [...first, ...said.response.messages, { role: "user", content: "and now?" }];
  const answer = await library.generateText(ask(undefined, { ...more, messages: second }));
  assert.equal(answer.text, "and now?");
}

test("tools in several steps", () => loop(newest, createOpenAI, stateless));
test("tools in several steps, version 5", () => loop(fifth, createOpenAI2, stateless));
test("tools in several steps, kept", () => loop(newest, createOpenAI, undefined));
test("tools in several steps, kept, version 5", () => loop(fifth, createOpenAI2, undefined));
test("two turns", () => turns(newest, createOpenAI, stateless));
test("two turns, version 5", () => turns(fifth, createOpenAI2, stateless));
test("two turns, kept", () => turns(newest, createOpenAI, undefined));
test("two turns, kept, version 5", () => turns(fifth, createOpenAI2, undefined));

test("generateObject", async () => {
  const result = await newest.generateObject(ask("where?", { schema: Weather }));
  assert.equal(typeof result.object.city, "string");
});

test("a blocked prompt", async () => {
  const result = newest.streamText(ask("#script:block:SAFETY"));
  await parts(result);
  assert.equal(await result.finishReason, "content-filter");
});

test("an answer that was cut", async () => {
  const result = newest.streamText(ask("#script:max-tokens half of it"));
  await parts(result);
  assert.equal(await result.finishReason, "length");
});

test("a search, with its sources", async () => {
  const openai = connect();
  const result = newest.streamText(
    ask("#script:grounding where?", { tools: { web_search: openai.tools.webSearch({}) } }),
  );
  const read = await parts(result);
  assert.ok(read.some((part) => part.type === "source"));
});

test("an error before the first event", async () => {
  const asked = newest.generateText(ask("x", { model: connect(createOpenAI, urls.limited)("gpt-4o") }));
  const error = await failure(asked, newest.APICallError);
  assert.equal(error.statusCode, 429);
  assert.match(error.message, /Rate limit/);
});

test("an error inside a stream", async () => {
  const model = connect(createOpenAI, urls.failing)("gpt-4o");
  let told;
  const result = newest.streamText(
    ask("#script:error-after:2 one two three four five", { model, onError: ({ error }) => (told = error) }),
  );
  let text = "";
  for await (const delta of result.textStream) text += delta;
  assert.ok(text.length > 0);
  assert.match(JSON.stringify(told) + told?.message, /overloaded/);
});

await run();
