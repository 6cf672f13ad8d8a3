// Brings the parts of the page together.

import { byId, element, say, watchScrollers } from "./dom.js";
import { Drawing } from "./drawing.js";
import { beginning, plural } from "./format.js";
import { History } from "./history.js";
import { showNumbers } from "./numbers.js";
import { Pictures } from "./pictures.js";
import { Run } from "./run.js";
import { Service } from "./service.js";
import { Failure, ask } from "./stream.js";

/** Between two pictures of a running request; fewer for those who want less motion. */
const FRAME_MS = matchMedia("(prefers-reduced-motion: reduce)").matches ? 500 : 50;

const service = new Service();
const drawing = new Drawing();
const history = new History(show);
const pictures = new Pictures(() => service.facts, complain);
let running = null;

function complain(failure) {
  byId("error").hidden = failure === null;
  byId("error").classList.toggle("calm", failure !== null && failure.isCalm);
  byId("error-what").textContent = failure?.what ?? "";
  byId("error-why").textContent = failure?.why ?? "";
}

/** A request as it is now, or as it was. */
function show(run) {
  const asked = byId("asked");
  asked.hidden = false;
  const images = run.numImages ? ` (${plural(run.numImages, "image")})` : "";
  asked.replaceChildren(element("bdi", {}, beginning(run.question)), images);
  byId("answer").replaceChildren(element("p", { class: "said", dir: "auto" }, run.text));
  tellIfEmpty(run);
  complain(run.failure);
  drawing.show(run);
  showNumbers(run, service.facts);
  history.show(run);
}

function tellIfEmpty(run) {
  if (!run.timeline || run.text) return;
  byId("answer").append(element("p", { class: "help" }, "The model answered nothing."));
}

function sampling() {
  return { max_tokens: number("max-tokens"), temperature: number("temperature") };
}

/** What an option says; a browser shows what it cannot read, and says that it is empty. */
function number(id) {
  const option = byId(id);
  if (!option.validity.badInput) return option.value === "" ? undefined : Number(option.value);
  option.closest("details").open = true;
  option.focus();
  throw new Failure("An option is no number.", `It is about: ${option.labels[0].textContent}.`);
}

async function submit() {
  if (running) return;
  const text = byId("question").value.trim();
  const numImages = pictures.kept.length;
  if (!text && !numImages) {
    complain(new Failure("There is nothing to ask yet.", "Write a question or choose an image."));
    byId("question").focus();
    return;
  }
  let options;
  try {
    options = sampling();
  } catch (error) {
    complain(asFailure(error));
    return;
  }
  running = new AbortController();
  const run = new Run(text, numImages);
  begin(run);
  const timer = setInterval(() => drawing.draw(), FRAME_MS);
  try {
    await answer(run, text, options);
  } catch (error) {
    run.broke(asFailure(error));
  }
  clearInterval(timer);
  end(run);
  await service.refresh(); // this request counts by now
  if (drawing.run === run) showNumbers(run, service.facts);
}

async function answer(run, text, options) {
  const content = await pictures.parts();
  if (text) content.push({ type: "text", text });
  const body = {
    messages: [{ role: "user", content }],
    stream: true,
    stream_options: { include_usage: true },
    redserve: { timeline: true, progress: true },
    ...options,
  };
  await ask(body, running.signal, {
    progress: (progress) => run.progress(progress),
    text: (piece) => {
      run.took(piece);
      if (drawing.run === run) byId("answer").firstElementChild.append(piece);
    },
    finished: (reason, told) => run.finished(reason, told),
    usage: (usage) => {
      run.usage = usage;
    },
  });
}

function begin(run) {
  byId("send").disabled = true;
  byId("stop").hidden = false;
  byId("answer").setAttribute("aria-busy", "true");
  history.add(run);
  show(run);
}

function end(run) {
  running = null;
  byId("send").disabled = false;
  const stop = byId("stop");
  if (document.activeElement === stop) byId("send").focus();
  stop.hidden = true;
  byId("answer").removeAttribute("aria-busy");
  if (drawing.run === run) show(run);
  else history.show(drawing.run); // somebody looks at an earlier one meanwhile
}

function asFailure(error) {
  if (error instanceof Failure) return error;
  if (error.name === "AbortError") return new Failure("Stopped.", "The service was told to stop too.", true);
  if (error instanceof DOMException) return new Failure("An image cannot be read.", error.message);
  console.error(error);
  return new Failure("This page failed.", "Its console has the details; reload it.");
}

byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
byId("question").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault();
  submit();
});
byId("stop").addEventListener("click", () => running?.abort());
watchScrollers();
service.refresh();
