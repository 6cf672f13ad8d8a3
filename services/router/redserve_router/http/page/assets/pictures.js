// The pictures of the next question: chosen, dropped or pasted, in order.

import { byId, element, say } from "./dom.js";
import { bytes, plural } from "./format.js";
import { Failure } from "./stream.js";

export class Pictures {
  /** `limits()` is what the service takes, or null; `complain(failure)` is told what it does not. */
  constructor(limits, complain) {
    this.limits = limits;
    this.kept = [];
    this.complain = complain;
    this.list = byId("pictures");
    this.news = byId("pictures-news");
    this.files = byId("files");
    this.listen();
  }

  listen() {
    this.files.addEventListener("change", () => {
      this.add(this.files.files);
      this.files.value = ""; // so that the same file can be chosen again
    });
    this.files.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return; // the space bar opens it anyway; Enter would ask
      event.preventDefault();
      this.files.click();
    });
    document.addEventListener("paste", (event) => {
      if (event.clipboardData?.files.length) this.add(event.clipboardData.files);
    });
    // Anywhere on the page: a picture that is dropped beside its place would replace the page.
    const zone = byId("drop");
    const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
    document.addEventListener("dragover", (event) => {
      if (!carriesFiles(event)) return;
      event.preventDefault();
      zone.classList.add("over");
    });
    document.addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) zone.classList.remove("over");
    });
    document.addEventListener("drop", (event) => {
      if (!carriesFiles(event)) return;
      event.preventDefault();
      zone.classList.remove("over");
      this.add(event.dataTransfer.files);
    });
  }

  add(files) {
    const { max_image_bytes: most, max_request_bytes: mostTogether } = this.limits() || {};
    const left = new Map();
    for (const file of files) {
      const why = this.whyNot(file, most, mostTogether);
      if (why) left.set(why, [...(left.get(why) || []), file.name]);
      else this.keep(file);
    }
    this.show();
    say(this.news, plural(this.kept.length, "image"));
    if (!left.size) return;
    const [what] = left.keys();
    this.complain(new Failure(what, `Left out: ${[...left.values()].flat().join(", ")}.`));
  }

  /** A sentence, or nothing for a file that can be asked about. Its content is not read yet. */
  whyNot(file, most, mostTogether) {
    if (!file.type.startsWith("image/")) return "Only images can be asked about.";
    if (!file.size) return "An image is empty.";
    if (file.size > most) return `An image is too large: at most ${bytes(most)}.`;
    const together = this.kept.reduce((sum, picture) => sum + picture.size, file.size);
    return together > mostTogether ? `The images are too large: at most ${bytes(mostTogether)} together.` : "";
  }

  keep(file) {
    const data = dataUrl(file);
    data.catch(() => {}); // told when it is asked about
    this.kept.push({ name: file.name, size: file.size, url: URL.createObjectURL(file), data });
  }

  remove(picture) {
    const place = this.kept.indexOf(picture);
    URL.revokeObjectURL(picture.url);
    this.kept.splice(place, 1);
    this.show();
    say(this.news, plural(this.kept.length, "image"));
    const buttons = this.list.querySelectorAll("button");
    (buttons[Math.min(place, buttons.length - 1)] || this.files).focus();
  }

  show() {
    this.list.replaceChildren(...this.kept.map((picture, index) => {
      const button = element(
        "button",
        { type: "button", "aria-label": `Remove image ${index + 1}, ${picture.name}` },
        "×",
      );
      button.addEventListener("click", () => this.remove(picture));
      return element(
        "li",
        {},
        element("img", { src: picture.url, alt: `Image ${index + 1}: ${picture.name}` }),
        element("span", { class: "place", "aria-hidden": "true" }, `${index + 1}`),
        button,
      );
    }));
  }

  /** Parts of a message, in order. */
  async parts() {
    const urls = await Promise.all(this.kept.map((picture) => picture.data));
    return urls.map((url) => ({ type: "image_url", image_url: { url } }));
  }
}

function dataUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => {
      // A text that is too long for the browser comes empty.
      if (reader.result.startsWith("data:")) resolve(reader.result);
      else reject(new Failure("An image cannot be read.", `${file.name} is too large for this browser.`));
    });
    reader.addEventListener("error", () => reject(reader.error));
    reader.readAsDataURL(file);
  });
}
