// One chat completion, streamed: the same API that every client uses, asked for progress as well.

const PROGRESS = "redserve.progress";

/** What went wrong, in a sentence for people and with what to do about it. */
export class Failure extends Error {
  constructor(what, why) {
    super(what);
    this.what = what;
    this.why = why;
  }
}

const MEANINGS = {
  400: "The service does not take this question.",
  404: "The service does not know this.",
  413: "The question is too large.",
  429: "The service is busy.",
  500: "The service failed.",
  503: "The service cannot answer now.",
  504: "The answer took too long.",
};

/**
 * Ask, and call `on.progress(progress)`, `on.text(text)`, `on.finished(reason, timeline)` and
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
  let complete = false;
  for await (const { name, data } of events(response.body)) {
    if (name === "error") throw failure(data.error, 500);
    if (name === PROGRESS) on.progress(data.redserve.progress);
    else if (data === null) complete = true;
    else take(data, on);
  }
  if (!complete) throw new Failure("The answer broke off.", "The connection to the router ended.");
}

function take(chunk, on) {
  if (chunk.usage) on.usage(chunk.usage);
  const choice = chunk.choices[0];
  if (!choice) return;
  if (choice.delta.content) on.text(choice.delta.content);
  if (choice.finish_reason) on.finished(choice.finish_reason, chunk.redserve.timeline);
}

async function refusal(response) {
  let error = {};
  try {
    ({ error } = await response.json());
  } catch {
    // Not ours: something between us and the router answered.
  }
  return failure(error, response.status, response.headers.get("retry-after"));
}

function failure(error, status, retryAfter = null) {
  const what = MEANINGS[status] || MEANINGS[status < 500 ? 400 : 500];
  const why = [sentence(error.message || `Status ${status}.`)];
  if (error.param) why.push(`It is about ${place(error.param)}.`);
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
    const blocks = rest.split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) yield event(block);
  }
}

function event(block) {
  let name = "message";
  let data = "";
  for (const line of block.split("\n")) {
    if (line.startsWith("event: ")) name = line.slice(7);
    else if (line.startsWith("data: ")) data += line.slice(6);
  }
  return { name, data: data === "[DONE]" ? null : JSON.parse(data) };
}
