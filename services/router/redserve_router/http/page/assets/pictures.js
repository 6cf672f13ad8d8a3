// The pictures of the next question: chosen, dropped or pasted, in order.

import { byId, element, say } from "./dom.js";
import { plural } from "./format.js";

export class Pictures {
  /** `complain(text)` is called for what is no picture. */
  constructor(complain) {
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
    const others = [];
    for (const file of files) {
      if (!file.type.startsWith("image/")) {
        others.push(file.name);
        continue;
      }
      const data = dataUrl(file);
      data.catch(() => {}); // told when it is asked about
      this.kept.push({ name: file.name, url: URL.createObjectURL(file), data });
    }
    this.show();
    say(this.news, plural(this.kept.length, "image"));
    if (others.length) this.complain(others);
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
    reader.addEventListener("load", () => resolve(reader.result));
    reader.addEventListener("error", () => reject(reader.error));
    reader.readAsDataURL(file);
  });
}
