import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { api, ApiError, messages, query, session } from "./api.js";

beforeEach(() => {
  const kept = new Map();
  vi.stubGlobal("localStorage", { getItem: (k) => kept.get(k) ?? null, setItem: (k, v) => kept.set(k, v), removeItem: (k) => kept.delete(k) });
});
afterEach(() => vi.unstubAllGlobals());

const answer = (status, body) => vi.stubGlobal("fetch", vi.fn(async () => new Response(JSON.stringify(body), { status })));

test("query leaves out what has no value", () => {
  expect(query({ tag: "a b", offset: 0, author: undefined })).toBe("?tag=a+b");
  expect(query({})).toBe("");
});

test("messages name their field", () => {
  expect(messages({ email: ["is taken", "is ugly"], body: "can't be blank" })).toEqual(["email is taken", "email is ugly", "body can't be blank"]);
});

test("the token goes along once signed in", async () => {
  answer(200, { user: {} });
  await api.me();
  expect(fetch.mock.calls[0][1].headers.Authorization).toBeUndefined();
  session.token = "abc";
  await api.me();
  expect(fetch.mock.calls[1][1].headers.Authorization).toBe("Token abc");
});

test("an error answer becomes an ApiError", async () => {
  answer(422, { errors: { email: ["is taken"] } });
  await expect(api.register({})).rejects.toThrow(ApiError);
  await expect(api.register({})).rejects.toThrow("email is taken");
});
