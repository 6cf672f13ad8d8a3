// The last requests of this tab, to compare; they are forgotten with it.

import { byId, element, row, svgElement } from "./dom.js";
import { NOTHING, beginning, count, percent, seconds } from "./format.js";

const KEPT = 20;

export class History {
  /** `choose(run)` is called when somebody wants to see one again. */
  constructor(choose) {
    this.runs = [];
    this.choose = choose;
    this.shown = null;
  }

  add(run) {
    this.runs.unshift(run);
    this.runs.length = Math.min(this.runs.length, KEPT);
  }

  show(run) {
    this.shown = run;
    byId("history").hidden = !this.runs.length;
    const slowest = Math.max(0, ...this.runs.map((one) => one.judged.time_to_first_token_s || 0));
    const body = byId("history-body");
    const focused = document.activeElement?.closest("#history-body button")?.run;
    body.replaceChildren(...this.runs.map((one) => this.line(one, slowest)));
    [...body.querySelectorAll("button")].find((button) => button.run === focused)?.focus();
  }

  line(run, slowest) {
    const button = element(
      "button",
      { type: "button", class: "link", dir: "auto", "aria-pressed": `${run === this.shown}` },
      beginning(run.question) || "(only images)",
    );
    button.run = run;
    button.addEventListener("click", () => this.choose(run));
    const images = [count(run.numImages), "number"];
    if (!run.timeline) {
      const state = run.isOver ? (run.isStopped ? "stopped" : "failed") : "running";
      return row([button, images, [state, state === "failed" ? "number bad" : "number"], "", [NOTHING, "number"], [NOTHING, "number"], [NOTHING, "number"]]);
    }
    const { time_to_first_token_s: firstS, request_duration_s: wholeS } = run.judged;
    const overlap = run.timeline.overlap_ratio;
    return row([
      button,
      images,
      [seconds(firstS), "number"],
      [firstS ? scale(firstS / slowest) : "", "scale"],
      [seconds(wholeS), "number"],
      [count(run.usage?.completion_tokens), "number"],
      [overlap === null ? NOTHING : percent(Number(overlap.toFixed(2))), "number"],
    ]);
  }
}

function scale(share) {
  const bar = svgElement("rect", { class: "bar first", x: 0, y: 0, width: share * 100, height: 8 });
  return svgElement("svg", { viewBox: "0 0 100 8", preserveAspectRatio: "none", class: "share", "aria-hidden": "true" }, bar);
}
