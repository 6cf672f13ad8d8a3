// One chat completion, streamed: the same API that every client uses, asked for progress as well.

import { FOREIGN, fieldsOf } from "./json.js";

const PROGRESS = "redserve.progress";

/** What went wrong, in a sentence for people and with what to do about it; calm if they wanted it. */
export class Failure extends Error {
  constructor(what, why, isCalm = false) {
    super(what);
    this.what = what;
    this.why = why;
    this.isCalm = isCalm;
  }
}

const MEANINGS = {
  400: "The service does not take this question.",
  401: "Something in front of the service asks who you are.",
  403: "The service may not be asked from here.",
  404: "The service does not know this.",
  413: "The question is too large.",
  429: "The service is busy.",
  500: "The service failed.",
  503: "The service cannot answer now.",
  504: "The answer took too long.",
};
/** An error within a stream has no status of its own. */
const STATUS_OF = {
  invalid_request_error: 400,
  not_found_error: 404,
  rate_limit_error: 429,
  overloaded_error: 503,
  timeout_error: 504,
};

/**
 * Ask, and call `on.progress(progress)`, `on.text(text)`, `on.finished(reason, told)` and
 * `on.usage(usage)` as they come.
 *
 * Throws a Failure; an AbortError when `signal` ends it.
 */
export async function ask(body, signal, on) {
  let response;
  try {
    response = await fetch("/v1/chat/completions", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
      signal,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("The router cannot be reached.", "Is the service still running?");
  }
  if (!response.ok) throw await refusal(response);
  if (!response.headers.get("content-type")?.startsWith("text/event-stream")) throw foreign();
  let complete = false;
  for await (const { name, data } of events(response.body)) {
    if (data === null) complete = true;
    else if (name === "error" || data.error) throw failure(data.error, STATUS_OF[data.error?.type] || 500);
    else if (name === PROGRESS) on.progress(data.redserve.progress);
    else take(data, on);
  }
  if (!complete) throw new Failure("The answer broke off.", "The connection to the router ended.");
}

function take(chunk, on) {
  if (chunk.usage) on.usage(chunk.usage);
  const choice = chunk.choices?.[0];
  if (!choice) return;
  if (choice.delta.content) on.text(choice.delta.content);
  if (choice.finish_reason) on.finished(choice.finish_reason, chunk.redserve);
}

async function refusal(response) {
  const { error } = await fieldsOf(response); // none if something on the way to the router answered
  return failure(error, response.status, response.headers.get("retry-after"));
}

const foreign = () => new Failure("Something else than the router answered.", FOREIGN);

function failure(error, status, retryAfter = null) {
  const what = MEANINGS[status] || MEANINGS[status < 500 ? 400 : 500];
  const why = [sentence(error?.message || `Status ${status}.`)];
  if (error?.param) why.push(`It is about ${place(error.param)}.`);
  if (retryAfter) why.push(`Try again in ${retryAfter} s.`);
  return new Failure(what, why.join(" "));
}

/** Images come first in a message of this page, so that their place is their number. */
function place(param) {
  const found = /^messages\[0\]\.content\[(\d+)\]\.?(\w*)/.exec(param);
  if (!found) return param;
  return found[2] === "text" ? "the text" : `image ${Number(found[1]) + 1}`;
}

function sentence(text) {
  const begun = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(begun) ? begun : `${begun}.`;
}

/** Server-sent events of a body; data is null for the end mark. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    let piece;
    try {
      piece = await reader.read();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      return; // the connection broke: whoever reads misses the end mark
    }
    if (piece.done) return;
    rest += piece.value;
    const blocks = rest.split(/\r\n\r\n|\n\n|\r\r/);
    rest = blocks.pop();
    yield* blocks.map(event).filter(Boolean);
  }
}

/** One event, or null for a block that has none: proxies keep connections up with comments. */
function event(block) {
  let name = "message";
  const data = [];
  for (const line of block.split(/\r\n|\n|\r/)) {
    const [, field, value] = /^(\w*):? ?(.*)$/s.exec(line);
    if (field === "event") name = value;
    else if (field === "data") data.push(value);
  }
  if (!data.length) return null;
  try {
    return { name, data: data[0] === "[DONE]" ? null : JSON.parse(data.join("\n")) };
  } catch {
    throw foreign();
  }
}
