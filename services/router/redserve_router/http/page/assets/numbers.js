// The numbers of one request beside what is promised and what is usual.

import { byId, element, row, svgElement } from "./dom.js";
import { NOTHING, nanoseconds, percent, seconds } from "./format.js";

const PARTS = [
  ["preprocess", "prepare", "preprocess"],
  ["queue", "wait", "queue"],
  ["encode_exposed", "encode, exposed", "encode"],
  ["encode_hidden", "encode, hidden", "hidden"],
  ["transport_exposed", "transport, exposed", "transfer"],
  ["prefill", "prefill", "prefill"],
  ["lost", "engine lost", "aborted"],
];
const MEASURES = [
  ["TimeToFirstToken", "Time to first token", "time_to_first_token"],
  ["TimePerOutputToken", "Time per output token", "time_per_output_token"],
  ["RequestLatency", "Whole answer", "request_duration"],
  ["EncodeLatency", "Slowest image, encoded", "encode_latency"],
];

/** Shows them; `facts` is what the service says of itself, or null. */
export function showNumbers(run, facts) {
  byId("numbers").hidden = !run.timeline;
  if (!run.timeline) return;
  showParts(run.timeline);
  const rows = [];
  for (const [indicator, label, latency] of MEASURES) {
    const promises = (facts?.slos || []).filter((slo) => slo.indicator === indicator);
    const value = run.judged[`${latency}_s`];
    if (value === null && !promises.length) continue;
    const known = facts?.latencies[latency];
    const median = known?.count ? seconds(known.p50_s) : NOTHING;
    for (const promise of promises.length ? promises : [null]) {
      rows.push(row([
        label,
        [seconds(value), "number"],
        [promise ? seconds(promise.threshold_s) : NOTHING, "number"],
        verdict(run.judged.events.find((one) => one.slo === promise?.name)),
        [median, "number"],
      ]));
    }
  }
  byId("numbers-body").replaceChildren(...rows);
  byId("more").replaceChildren(...more(run));
}

/** What the service itself counts, if anything: an image that was in a cache is good at any time. */
function verdict(counted) {
  if (!counted) return NOTHING;
  const kept = !counted.bad;
  return element("span", { class: kept ? "good" : "bad" }, kept ? "✓ yes" : "✗ no");
}

function* more(run) {
  const { usage, timeline } = run;
  const sum = (part) => timeline.transport.reduce((total, item) => total + item[part], 0);
  if (usage) {
    const details = usage.prompt_tokens_details;
    yield* fact("Prompt", `${usage.prompt_tokens} tokens, ${details.image_tokens} of images, ${details.cached_tokens} cached`);
    const cut = run.reason === "length" ? ", cut at the longest allowed" : "";
    yield* fact("Answer", `${usage.completion_tokens} tokens${cut}`);
  }
  if (timeline.transport.length) {
    yield* fact("Transport", `${nanoseconds(sum("exposed_ns"))} exposed, ${nanoseconds(sum("hidden_ns"))} hidden`);
  }
  yield* fact("Request", timeline.request_id);
}

function* fact(name, value) {
  yield element("dt", {}, name);
  yield element("dd", {}, value);
}

function showParts(timeline) {
  const parts = timeline.first_token_parts_ns;
  const totalNs = Object.values(parts).reduce((sum, ns) => sum + ns, 0);
  const bar = svgElement("svg", { viewBox: "0 0 1000 14", preserveAspectRatio: "none", class: "stack", "aria-hidden": "true" });
  const list = element("ul", { class: "legend" });
  let x = 0;
  for (const [name, label, kind] of PARTS) {
    const ns = parts[name];
    if (!ns) continue;
    const width = (ns / totalNs) * 1000;
    bar.append(svgElement("rect", { class: `bar ${kind}`, x, y: 0, width, height: 14 }));
    x += width;
    list.append(element(
      "li",
      {},
      element("span", { class: `chip ${kind}` }),
      `${label} `,
      element("b", {}, nanoseconds(ns)),
      ` ${percent(Number((ns / totalNs).toFixed(2)))}`,
    ));
  }
  byId("parts").replaceChildren(bar, list);
}
