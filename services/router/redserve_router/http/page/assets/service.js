// What the service says of itself: whether it answers, its traffic, its promises.

import { byId, row, say } from "./dom.js";
import { NOTHING, percent, plural, rate, seconds } from "./format.js";
import { fieldsOf } from "./json.js";

const EVERY_MS = 2000;
const PATIENCE_MS = 5000;
const WINDOWS_S = [60, 300, 3600];
const UNREACHABLE = "cannot be reached";
const SILENT = "does not answer";
/** What a router of another release may not tell. */
const UNTOLD = {
  model: NOTHING,
  why_not_ready: null,
  max_images: null,
  max_image_bytes: Infinity,
  max_request_bytes: Infinity,
  slos: [],
  requests_per_s: 0,
  failures_per_s: 0,
  output_tokens_per_s: 0,
  latencies: {},
  num_inflight: 0,
  num_queued: 0,
  pools: [],
};

export class Service {
  constructor() {
    this.facts = null;
    this.timer = 0;
    document.addEventListener("visibilitychange", () => this.refresh());
  }

  /** Ask now, and again after a while as long as somebody looks. */
  async refresh() {
    clearTimeout(this.timer);
    if (document.visibilityState === "hidden") return;
    try {
      await this.ask();
    } catch (error) {
      this.tell(error.name === "TimeoutError" ? SILENT : UNREACHABLE, false);
    }
    clearTimeout(this.timer); // somebody else may have asked meanwhile
    this.timer = setTimeout(() => this.refresh(), EVERY_MS);
  }

  async ask() {
    const signal = AbortSignal.timeout(PATIENCE_MS);
    const response = await fetch("/playground/facts", { cache: "no-store", signal });
    const told = await fieldsOf(response);
    if (!response.ok || !told.model) {
      this.tell(`something else than the router answers: status ${response.status}`, false);
      return;
    }
    this.facts = { ...UNTOLD, ...told };
    this.show();
  }

  tell(text, isReady) {
    const state = byId("state");
    say(state, text);
    state.classList.toggle("good", isReady);
    state.classList.toggle("bad", !isReady);
  }

  show() {
    const facts = this.facts;
    say(byId("model"), facts.model);
    const most = facts.max_images === null ? "" : `; at most ${facts.max_images}`;
    say(byId("drop-help"), `or drop them here, or paste them${most}`);
    this.tell(facts.why_not_ready ? `not ready: ${facts.why_not_ready}` : "ready", !facts.why_not_ready);
    say(byId("traffic"), traffic(facts));
    byId("slos").hidden = !facts.slos.length;
    byId("no-slos").hidden = facts.slos.length > 0;
    byId("slos-body").replaceChildren(...facts.slos.map(promise));
  }
}

function traffic(facts) {
  const pools = facts.pools.map((pool) => `${pool.num_serving} of ${plural(pool.num_known, pool.name === "llm" ? "LLM engine" : pool.name)}`);
  return [
    `${pools.join(" and ")} serving`,
    `${facts.num_inflight} in flight, ${facts.num_queued} of them queued`,
    `${rate(facts.requests_per_s)} requests/s`,
    `${rate(facts.failures_per_s)} failures/s`,
    `${rate(facts.output_tokens_per_s)} tokens/s`,
  ].join(" · ");
}

function promise(slo) {
  const windows = WINDOWS_S.map((length) => slo.tallies.find((tally) => tally.window_s === length));
  return row([
    slo.name,
    slo.indicator,
    [slo.threshold_s === null ? NOTHING : seconds(slo.threshold_s), "number"],
    [percent(slo.target), "number"],
    ...windows.map((tally) => share(tally, slo.target)),
    judged(slo.attainment, slo.target),
    judged(slo.budget_left, 0),
  ]);
}

function share(tally, target) {
  const all = tally ? tally.good + tally.bad : 0;
  return all ? judged(tally.good / all, target) : [NOTHING, "number"];
}

function judged(value, least) {
  if (value === null) return [NOTHING, "number"];
  return [percent(value), `number ${value >= least ? "good" : "bad"}`];
}
