// Draws a request: a row per image above, what they are for below, time from left to right.

import { byId, element, row, say, svgElement } from "./dom.js";
import { NOTHING, count, nanoseconds, percent } from "./format.js";

const ROW = 24;
const BAR = 14;
const TOP = 24;
const AXIS = 22;
const RIGHT = 10;
const MIN_BAR = 1.5;
/** Order of drawing, and of the legend. */
const KINDS = ["queue", "preprocess", "publish", "room", "aborted", "encode", "transfer", "prefill", "decode"];
const KIND_OF = { describe: "preprocess", tokenize: "preprocess", failover: "aborted", lost: "aborted" };
const LABELS = {
  queue: "wait",
  preprocess: "prepare",
  publish: "announce",
  room: "wait for room",
  aborted: "given up",
};
const HIDDEN = "encode hidden behind prefill";

const kindOf = (bar) => KIND_OF[bar.name] || bar.name;

export class Drawing {
  constructor() {
    this.svg = byId("timeline");
    this.run = null;
    new ResizeObserver(() => this.draw()).observe(this.svg.parentElement);
  }

  show(run) {
    this.run = run;
    this.draw();
  }

  draw() {
    const run = this.run;
    if (!run) return;
    if (!run.bars.length) {
      this.clear(run);
      return;
    }
    const rows = run.rows();
    const width = this.svg.parentElement.clientWidth;
    const left = width < 480 ? 62 : 84;
    const height = TOP + rows.size * ROW + AXIS;
    const spanNs = Math.max(run.endNs - run.beginNs, 1e6);
    const x = (ns) => left + ((ns - run.beginNs) / spanNs) * (width - left - RIGHT);
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.setAttribute("width", width);
    this.svg.setAttribute("height", height);
    const parts = [...axis(x, run.beginNs, spanNs, width, height)];
    for (const [start, end] of run.hidden()) parts.push(band(x(start), x(end), rows.size));
    let y = TOP;
    for (const [name, bars] of rows) {
      parts.push(svgElement("text", { class: "row", x: 0, y: y + ROW / 2, dy: "0.35em" }, name));
      for (const bar of inOrder(bars)) parts.push(rectangle(bar, x, y, name));
      if (run.timeline && !bars.length && name.startsWith("image")) {
        parts.push(svgElement("text", { x: left + 4, y: y + ROW / 2, dy: "0.35em" }, "not needed: its prompt is cached"));
      }
      y += ROW;
    }
    if (run.firstTokenNs) parts.push(...firstToken(run, x(run.firstTokenNs), width, height));
    this.svg.replaceChildren(...parts);
    this.legend(rows, run);
    say(byId("timeline-summary"), summary(run));
    this.table(run);
  }

  clear(run) {
    this.svg.replaceChildren();
    this.svg.setAttribute("height", 0);
    byId("legend").replaceChildren();
    this.legendKey = "";
    byId("bars").hidden = true;
    say(byId("timeline-summary"), run.isOver ? "Nothing was done for this request." : "Waiting for the service.");
  }

  legend(rows, run) {
    const used = new Set([...rows.values()].flat().map(kindOf));
    const entries = KINDS.filter((kind) => used.has(kind)).map((kind) => [kind, LABELS[kind] || kind]);
    if (run.hidden().length) entries.push(["hidden", HIDDEN]);
    if ([...rows.values()].flat().some((bar) => bar.open)) entries.push(["open", "not ended yet"]);
    const key = entries.join();
    if (this.legendKey === key) return;
    this.legendKey = key;
    byId("legend").replaceChildren(...entries.map(([kind, label]) =>
      element("li", {}, element("span", { class: `chip ${kind}` }), label)));
  }

  table(run) {
    byId("bars").hidden = !run.isOver;
    if (!run.isOver) return;
    byId("bars-body").replaceChildren(...run.bars.map((bar) => row([
      bar.detail ? `${bar.name} (${bar.detail})` : bar.name,
      bar.item_index === null ? NOTHING : count(bar.item_index + 1),
      bar.lane,
      [nanoseconds(Math.max(0, bar.start_ns - run.beginNs)), "number"],
      [nanoseconds(bar.end_ns - bar.start_ns), "number"],
      [bar.num_tokens ? count(bar.num_tokens) : NOTHING, "number"],
    ])));
  }
}

function inOrder(bars) {
  return [...bars].sort((a, b) => KINDS.indexOf(kindOf(a)) - KINDS.indexOf(kindOf(b)));
}

function rectangle(bar, x, y, name) {
  const start = x(bar.start_ns);
  const tookNs = bar.end_ns - bar.start_ns;
  const words = [bar.name, name, nanoseconds(tookNs), bar.lane, bar.detail];
  return svgElement(
    "rect",
    {
      class: `bar ${kindOf(bar)}${bar.open ? " open" : ""}`,
      x: start,
      y: y + (ROW - BAR) / 2,
      width: Math.max(MIN_BAR, x(bar.end_ns) - start),
      height: BAR,
      rx: 2,
      "data-name": bar.name,
      "data-item": bar.item_index ?? "",
      "data-open": bar.open ? "true" : "",
    },
    svgElement("title", {}, words.filter(Boolean).join(", ")),
  );
}

function band(start, end, numRows) {
  return svgElement("rect", {
    class: "band",
    x: start,
    y: TOP,
    width: Math.max(MIN_BAR, end - start),
    height: numRows * ROW,
  });
}

function* axis(x, beginNs, spanNs, width, height) {
  const stepNs = niceStep(spanNs / Math.max(2, Math.floor(width / 110)));
  const base = height - AXIS;
  for (let atNs = 0; atNs <= spanNs; atNs += stepNs) {
    const at = x(beginNs + atNs);
    yield svgElement("line", { class: "tick", x1: at, x2: at, y1: TOP, y2: base });
    const isLast = at > width - 40;
    yield svgElement(
      "text",
      { class: "time", x: isLast ? width : at, y: height - 6, "text-anchor": atNs === 0 ? "start" : isLast ? "end" : "middle" },
      atNs === 0 ? "0" : nanoseconds(atNs),
    );
  }
}

function niceStep(atLeast) {
  const power = 10 ** Math.floor(Math.log10(atLeast));
  return power * [1, 2, 5, 10].find((factor) => power * factor >= atLeast);
}

function* firstToken(run, at, width, height) {
  yield svgElement("line", { class: "first", x1: at, x2: at, y1: TOP - 4, y2: height - AXIS });
  const isRight = at > width * 0.6;
  yield svgElement(
    "text",
    { class: "mark", x: at + (isRight ? 2 : -2), y: TOP - 9, "text-anchor": isRight ? "end" : "start" },
    `first token ${nanoseconds(run.firstTokenNs - run.beginNs)}`,
  );
}

function summary(run) {
  const done = run.timeline;
  if (!done) {
    if (run.failure) return "The request ended early; what was done for it until then is shown.";
    const waiting = run.awaited.length;
    return waiting ? `Running; images that encoders still have: ${waiting}.` : "Running.";
  }
  const words = [
    `First token after ${nanoseconds(done.first_token_ns - done.received_ns)}`,
    `complete after ${nanoseconds(done.finished_ns - done.received_ns)}`,
  ];
  if (done.overlap_ratio !== null) {
    words.push(`${percent(Number(done.overlap_ratio.toFixed(3)))} of the encode time hidden behind prefill`);
  }
  return `${words.join(", ")}.`;
}
