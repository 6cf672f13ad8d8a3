// One request as this page knows it: live while it runs, the router's own timeline afterwards.

/** What is drawn on a row of its own, by the name of a bar that belongs to no image. */
const ROWS = { prefill: "prefill", queue: "prefill", lost: "prefill", decode: "decode" };

/** Of a request that has not ended well, or that a router of another release answered. */
const UNJUDGED = {
  time_to_first_token_s: null,
  time_per_output_token_s: null,
  request_duration_s: null,
  encode_latency_s: null,
  events: [],
};

export class Run {
  constructor(question, numImages) {
    this.question = question;
    this.numImages = numImages;
    this.bars = [];
    this.awaited = [];
    this.admittedNs = 0;
    this.firstTokenNs = 0;
    this.skewNs = null; // the router's clock less ours
    this.timeline = null;
    this.judged = UNJUDGED;
    this.usage = null;
    this.text = "";
    this.reason = "";
    this.failure = null;
  }

  progress({ at_ns: atNs, bars, awaited_items: awaited }) {
    // The latest that comes says how much time the way here takes at least.
    const skewNs = atNs - performance.now() * 1e6;
    this.skewNs = this.skewNs === null ? skewNs : Math.max(this.skewNs, skewNs);
    this.admittedNs ||= atNs;
    this.bars.push(...bars);
    this.awaited = awaited;
  }

  took(text) {
    this.text += text;
    if (!this.firstTokenNs && this.skewNs !== null) this.firstTokenNs = this.nowNs;
  }

  finished(reason, { timeline, judged = UNJUDGED }) {
    this.reason = reason;
    this.timeline = timeline;
    this.judged = judged;
    this.bars = timeline.bars;
    this.awaited = [];
    this.firstTokenNs = timeline.first_token_ns;
  }

  /** It ended without its last event. */
  broke(failure) {
    this.failure = failure;
    this.endedNs = this.skewNs === null ? 0 : this.nowNs;
    this.awaited = [];
  }

  get isStopped() {
    return this.failure !== null && this.failure.isCalm;
  }

  get isOver() {
    return this.timeline !== null || this.failure !== null;
  }

  get nowNs() {
    return performance.now() * 1e6 + this.skewNs;
  }

  get beginNs() {
    if (this.timeline) return this.timeline.received_ns;
    return Math.min(...this.bars.map((bar) => bar.start_ns), this.admittedNs);
  }

  get endNs() {
    if (this.timeline) return this.timeline.finished_ns;
    return this.failure ? this.endedNs : this.nowNs;
  }

  /** Rows with their bars; those of work that has not ended yet have `open`. */
  rows() {
    const rows = new Map([["prepare", []]]);
    for (let index = 0; index < this.numImages; index += 1) rows.set(`image ${index + 1}`, []);
    rows.set("prefill", []);
    rows.set("decode", []);
    for (const bar of this.bars) {
      const name = bar.item_index === null ? ROWS[bar.name] : `image ${bar.item_index + 1}`;
      rows.get(name || "prepare")?.push(bar);
    }
    if (!this.isOver) this.addOpen(rows);
    return rows;
  }

  addOpen(rows) {
    const open = (name, startNs) => ({ name, start_ns: startNs, end_ns: this.nowNs, open: true });
    for (const index of this.awaited) {
      const bars = rows.get(`image ${index + 1}`);
      const startNs = Math.max(this.admittedNs, ...bars.map((bar) => bar.end_ns));
      bars.push({ ...open("encode", startNs), item_index: index });
    }
    if (this.firstTokenNs) rows.get("decode").push(open("decode", this.firstTokenNs));
  }

  /** Intervals in which an image was being encoded while prefill ran. */
  hidden() {
    const of = (name) => union(this.bars.filter((bar) => bar.name === name));
    return intersection(of("encode"), of("prefill"));
  }
}

function union(bars) {
  const sorted = bars.map((bar) => [bar.start_ns, bar.end_ns]).sort((a, b) => a[0] - b[0]);
  const made = [];
  for (const [start, end] of sorted) {
    const last = made[made.length - 1];
    if (last && start <= last[1]) last[1] = Math.max(last[1], end);
    else made.push([start, end]);
  }
  return made;
}

function intersection(left, right) {
  const made = [];
  for (const [a, b] of left) {
    for (const [c, d] of right) {
      const start = Math.max(a, c);
      const end = Math.min(b, d);
      if (end > start) made.push([start, end]);
    }
  }
  return made;
}
