// Drives the gateway's chat completions with openai-node.
import assert from "node:assert/strict";
import OpenAI from "openai";
import { zodFunction, zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";
import { failure, run, test, urls, user } from "./cases.mjs";

const MODEL = "gemini-3-flash-preview";
const Weather = z.object({ city: z.string(), days: z.number().int() });
const CALL = '#script:tool-then-text #call:{"name": "weather", "args": {"city": "Rome", "days": 2}}';

const connect = (url = urls.main, more = {}) =>
  new OpenAI({ baseURL: url, apiKey: "any", maxRetries: 0, ...more });

test("chat", async () => {
  const answer = await connect().chat.completions.create({ model: "gpt-4o", messages: user("Hello") });
  assert.equal(answer.choices[0].message.content, "Hello");
  assert.equal(answer.choices[0].finish_reason, "stop");
  assert.equal(answer.model, "gpt-4o");
});

test("stream", async () => {
  const stream = await connect().chat.completions.create({
    model: "gpt-4o",
    messages: user("a few words"),
    stream: true,
    stream_options: { include_usage: true },
  });
  let text = "";
  let last;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta?.content ?? "";
    last = chunk;
  }
  assert.equal(text, "a few words");
  assert.deepEqual(last.choices, []);
  assert.ok(last.usage.total_tokens > 0);
});

test("stream helper", async () => {
  const stream = connect().chat.completions.stream({ model: "gpt-4o", messages: user("one two"), n: 2 });
  const final = await stream.finalChatCompletion();
  assert.deepEqual(final.choices.map((choice) => choice.index), [0, 1]);
  assert.ok(final.choices.every((choice) => choice.message.content.endsWith("one two")));
});

test("runTools", async () => {
  const seen = [];
  const runner = connect().chat.completions.runTools({
    model: MODEL,
    messages: user(CALL),
    tools: [
      zodFunction({
        name: "weather",
        parameters: Weather,
        function: (given) => {
          seen.push(given);
          return "sunny in Rome";
        },
      }),
    ],
  });
  assert.match(await runner.finalContent(), /sunny in Rome/);
  assert.deepEqual(seen, [{ city: "Rome", days: 2 }]);
});

test("runTools in a stream, several calls", async () => {
  const seen = [];
  const tool = (name) => ({
    type: "function",
    function: {
      name,
      parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
      parse: JSON.parse,
      function: () => {
        seen.push(name);
        return `${name} told`;
      },
    },
  });
  const runner = connect().chat.completions.runTools({
    model: MODEL,
    stream: true,
    messages: user("#script:parallel-calls"),
    tools: [tool("weather"), tool("time")],
  });
  assert.match(await runner.finalContent(), /time told/);
  assert.deepEqual(seen, ["weather", "time"]);
});

test("arguments in pieces", async () => {
  const stream = connect().chat.completions.stream({
    model: MODEL,
    messages: user(CALL.replace("tool-then-text", "partial-args")),
    tools: [zodFunction({ name: "weather", parameters: Weather })],
  });
  const final = await stream.finalChatCompletion();
  const [call] = final.choices[0].message.tool_calls;
  assert.deepEqual(call.function.parsed_arguments, { city: "Rome", days: 2 });
});

test("parse", async () => {
  const answer = await connect().chat.completions.parse({
    model: "gpt-4o",
    messages: user("who?"),
    response_format: zodResponseFormat(Weather, "weather"),
  });
  assert.equal(typeof answer.choices[0].message.parsed.city, "string");
});

test("images", async () => {
  const url = "data:image/png;base64,iVBORw0KGgo=";
  const looked = await connect().chat.completions.create({
    model: "gpt-4o",
    messages: user([{ type: "image_url", image_url: { url } }]),
  });
  assert.equal(looked.choices[0].message.content, "[image/png 8 bytes]");
  const drawn = await connect().chat.completions.create({
    model: "gemini-2.5-flash-image",
    messages: user("#script:image draw"),
  });
  assert.match(drawn.choices[0].message.images[0].image_url.url, /^data:image\/png;base64,iVBOR/);
});

test("models", async () => {
  const names = [];
  for await (const model of connect().models.list()) names.push(model.id);
  assert.ok(names.includes("gpt-4o") && names.includes("gemini-2.5-flash"));
});

test("refusal", async () => {
  const answer = await connect().chat.completions.create({
    model: "gpt-4o",
    messages: user("#script:block:SAFETY"),
  });
  assert.equal(answer.choices[0].finish_reason, "content_filter");
  assert.match(answer.choices[0].message.refusal, /SAFETY/);
});

test("abort", async () => {
  const stream = await connect().chat.completions.create({
    model: "gpt-4o",
    messages: user("#script:long:50 #script:pace:100"),
    stream: true,
  });
  for await (const _ of stream) break;
  assert.ok(stream.controller.signal.aborted);
});

test("AuthenticationError", async () => {
  const asked = connect(urls.locked, { apiKey: "sk-wrong" }).models.list();
  const error = await failure(asked, OpenAI.AuthenticationError);
  assert.equal(error.code, "invalid_api_key");
});

test("NotFoundError", async () => {
  const error = await failure(connect().models.retrieve("no-such-model"), OpenAI.NotFoundError);
  assert.equal(error.code, "model_not_found");
});

test("BadRequestError", async () => {
  const asked = connect().chat.completions.create({ model: "gpt-4o", messages: user("x"), temperature: 9 });
  const error = await failure(asked, OpenAI.BadRequestError);
  assert.equal(error.param, "temperature");
});

test("RateLimitError", async () => {
  const asked = connect(urls.limited).chat.completions.create({ model: "gpt-4o", messages: user("x") });
  const error = await failure(asked, OpenAI.RateLimitError);
  assert.equal(error.code, "rate_limit_exceeded");
  assert.ok(Number(error.headers.get("retry-after")) > 20);
});

test("InternalServerError", async () => {
  const asked = connect(urls.overloaded).chat.completions.create({ model: "gpt-4o", messages: user("x") });
  const error = await failure(asked, OpenAI.InternalServerError);
  assert.deepEqual([error.status, error.code], [503, "server_is_overloaded"]);
});

test("APIError inside a stream", async () => {
  const stream = await connect(urls.failing).chat.completions.create({
    model: "gpt-4o",
    messages: user("#script:error-after:2 one two three four five"),
    stream: true,
  });
  let text = "";
  const read = async () => {
    for await (const chunk of stream) text += chunk.choices[0].delta.content ?? "";
  };
  await failure(read(), OpenAI.APIError);
  assert.ok(text.length > 0);
});

await run();
