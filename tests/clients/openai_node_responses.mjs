// Drives the gateway's Responses API with openai-node; its stream helper reads strictly.
import assert from "node:assert/strict";
import OpenAI from "openai";
import { zodResponsesFunction, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import { failure, run, test, urls, user } from "./cases.mjs";

const MODEL = "gemini-3-flash-preview";
const Weather = z.object({ city: z.string(), days: z.number().int() });
const CALL = '#script:tool-then-text #call:{"name": "weather", "args": {"city": "Rome", "days": 2}}';
const weather = zodResponsesFunction({ name: "weather", parameters: Weather });

const connect = (url = urls.main, more = {}) =>
  new OpenAI({ baseURL: url, apiKey: "any", maxRetries: 0, ...more });
const ask = (input, more = {}) => ({ model: "gpt-4o", input, store: false, ...more });

async function read(stream) {
  const kinds = [];
  for await (const event of stream) kinds.push(event.type);
  return kinds;
}

test("create", async () => {
  const answer = await connect().responses.create(ask("Hello"));
  assert.equal(answer.output_text, "Hello");
  assert.deepEqual([answer.status, answer.model, answer.error], ["completed", "gpt-4o", null]);
  assert.ok(answer.usage.total_tokens > 0);
});

test("create, streamed", async () => {
  const stream = await connect().responses.create(ask("a few words, more than a few", { stream: true }));
  let text = "";
  let last;
  for await (const event of stream) {
    if (event.type === "response.output_text.delta") text += event.delta;
    last = event;
  }
  assert.equal(text, "a few words, more than a few");
  assert.equal(last.type, "response.completed");
});

test("stream helper", async () => {
  const stream = connect().responses.stream(ask("one two three"));
  let seen = "";
  stream.on("response.output_text.delta", (event) => (seen = event.snapshot));
  const final = await stream.finalResponse();
  assert.equal(final.output_text, "one two three");
  assert.equal(seen, "one two three");
});

test("stream helper, reasoning", async () => {
  const input = "#script:thoughts deep";
  const stream = connect().responses.stream(ask(input, { reasoning: { effort: "low", summary: "auto" } }));
  const kinds = await read(stream);
  const final = await stream.finalResponse();
  const [reasoning] = final.output.filter((item) => item.type === "reasoning");
  assert.match(reasoning.summary[0].text, /Reading the request/);
  assert.ok(kinds.includes("response.reasoning_summary_text.delta"));
});

test("stream helper, tools and what follows", async () => {
  const first = connect().responses.stream(ask(CALL, { model: MODEL, tools: [weather] }));
  const final = await first.finalResponse();
  const [call] = final.output.filter((item) => item.type === "function_call");
  assert.deepEqual(call.parsed_arguments, { city: "Rome", days: 2 });
  const history = [
    ...user(CALL),
    ...final.output.map(({ parsed_arguments, ...item }) => item),
    { type: "function_call_output", call_id: call.call_id, output: "sunny in Rome" },
  ];
  const second = connect().responses.stream(ask(history, { model: MODEL, tools: [weather] }));
  assert.match((await second.finalResponse()).output_text, /sunny in Rome/);
});

test("stream helper, several calls", async () => {
  const tools = ["weather", "time"].map((name) => zodResponsesFunction({ name, parameters: Weather }));
  const input = "#script:calls-apart";
  const stream = connect().responses.stream(ask(input, { model: MODEL, tools }));
  const calls = (await stream.finalResponse()).output.filter((item) => item.type === "function_call");
  assert.deepEqual(calls.map((call) => call.name), ["weather", "time"]);
  assert.equal(new Set(calls.map((call) => call.call_id)).size, 2);
});

test("stream helper, arguments in pieces", async () => {
  const input = CALL.replace("tool-then-text", "partial-args");
  const stream = connect().responses.stream(ask(input, { model: MODEL, tools: [weather] }));
  let snapshot = "";
  stream.on("response.function_call_arguments.delta", (event) => (snapshot = event.snapshot));
  const final = await stream.finalResponse();
  const [call] = final.output.filter((item) => item.type === "function_call");
  assert.equal(call.arguments, snapshot);
  assert.deepEqual(call.parsed_arguments, { city: "Rome", days: 2 });
});

test("stream helper, custom tool", async () => {
  const input = '#script:tool-then-text #call:{"name": "shout", "args": {"input": "HEY\\n\\"you\\""}}';
  const tools = [{ type: "custom", name: "shout" }];
  const final = await connect().responses.stream(ask(input, { model: MODEL, tools })).finalResponse();
  const [call] = final.output.filter((item) => item.type === "custom_tool_call");
  assert.deepEqual([call.name, call.input], ["shout", 'HEY\n"you"']);
});

test("stream helper, refusal", async () => {
  const stream = connect().responses.stream(ask("#script:block:SAFETY"));
  const kinds = await read(stream);
  const final = await stream.finalResponse();
  assert.deepEqual([final.status, final.incomplete_details.reason], ["incomplete", "content_filter"]);
  assert.match(final.output.at(-1).content[0].refusal, /SAFETY/);
  assert.ok(kinds.includes("response.refusal.done"));
});

test("stream helper, incomplete", async () => {
  const final = await connect().responses.stream(ask("#script:max-tokens half of it")).finalResponse();
  assert.deepEqual([final.status, final.incomplete_details.reason], ["incomplete", "max_output_tokens"]);
  assert.ok(final.output_text.length > 0);
});

test("stream helper, what the model was found to have used", async () => {
  const tools = [{ type: "web_search" }];
  const final = await connect().responses.stream(ask("#script:grounding where?", { tools })).finalResponse();
  const cited = final.output.flatMap((item) => item.content ?? []).flatMap((part) => part.annotations);
  assert.ok(cited.every((note) => note.type === "url_citation" && note.end_index > note.start_index));
  assert.ok(cited.length > 0);
});

test("parse", async () => {
  const format = zodTextFormat(Weather, "weather");
  const answer = await connect().responses.parse(ask("where?", { text: { format } }));
  assert.equal(typeof answer.output_parsed.city, "string");
});

test("parse, tools", async () => {
  const answer = await connect().responses.parse(ask(CALL, { model: MODEL, tools: [weather] }));
  const [call] = answer.output.filter((item) => item.type === "function_call");
  assert.deepEqual(call.parsed_arguments, { city: "Rome", days: 2 });
});

test("stream helper, parsed", async () => {
  const format = zodTextFormat(Weather, "weather");
  const final = await connect().responses.stream(ask("where?", { text: { format } })).finalResponse();
  assert.equal(typeof final.output_parsed.city, "string");
});

test("BadRequestError", async () => {
  const asked = connect().responses.create(ask("x", { temperature: 9 }));
  const error = await failure(asked, OpenAI.BadRequestError);
  assert.equal(error.param, "temperature");
});

test("AuthenticationError", async () => {
  const asked = connect(urls.locked, { apiKey: "sk-wrong" }).responses.create(ask("x"));
  const error = await failure(asked, OpenAI.AuthenticationError);
  assert.equal(error.code, "invalid_api_key");
});

test("RateLimitError", async () => {
  const asked = connect(urls.limited).responses.create(ask("x", { stream: true }));
  const error = await failure(asked, OpenAI.RateLimitError);
  assert.equal(error.code, "rate_limit_exceeded");
});

test("APIError inside a stream", async () => {
  const stream = await connect(urls.failing).responses.create(
    ask("#script:error-after:2 one two three four five", { stream: true }),
  );
  let text = "";
  const reading = (async () => {
    for await (const event of stream) text += event.delta ?? "";
  })();
  const error = await failure(reading, OpenAI.APIError);
  assert.equal(error.code, "server_is_overloaded");
  assert.ok(text.length > 0);
});

await run();
