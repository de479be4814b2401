// What the scripts share: named cases, one after another, and one JSON object at the end, name to "ok" or a stack.
// One rule: only what a library hands to its user is looked at.
import assert from "node:assert/strict";

export const urls = JSON.parse(process.argv[2]);
export const user = (content) => [{ role: "user", content }];
const cases = new Map();
export const test = (name, run) => cases.set(name, run);

export async function failure(promise, kind) {
  const error = await promise.then(
    () => assert.fail("nothing was thrown"),
    (thrown) => thrown,
  );
  assert.ok(error instanceof kind, `${error?.constructor?.name}: ${error?.message}`);
  return error;
}

export async function run() {
  const results = {};
  for (const [name, attempt] of cases) {
    try {
      await attempt();
      results[name] = "ok";
    } catch (error) {
      results[name] = String(error?.stack ?? error);
    }
  }
  console.log(JSON.stringify(results));
}
