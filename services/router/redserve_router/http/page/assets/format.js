// Numbers as people read them; the same digits as `redserve top`.

export const NOTHING = "–";

/** "1.23 ms", "800 ms", "2.5 s". */
export function seconds(value) {
  if (value === null || value === undefined) return NOTHING;
  return value < 0.9995 ? `${digits(value * 1000, 3)} ms` : `${digits(value, 4)} s`;
}

export const nanoseconds = (value) =>
  value === null || value === undefined ? NOTHING : seconds(value / 1e9);

/** "36 %", "99.9 %", as many digits as promises have; "<100 %" for what is nearly all. */
export function percent(ratio) {
  if (ratio === null || ratio === undefined) return NOTHING;
  const value = ratio * 100;
  const shown = Number(value.toFixed(3));
  return shown === 100 && value < 100 ? "<100 %" : `${plain(shown)} %`;
}

export const count = (value) => (value === null || value === undefined ? NOTHING : `${value}`);

export const rate = (value) => digits(value, 3);

export const plural = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;

/** "20 MB": what a file manager says, more or less. */
export const bytes = (value) => `${digits(value / 1e6, 3)} MB`;

const MOST_LETTERS = 300;

/** The beginning of a text that nobody wants to see whole again. */
export function beginning(text) {
  const letters = [...text.slice(0, 2 * MOST_LETTERS + 2)];
  return letters.length > MOST_LETTERS ? `${letters.slice(0, MOST_LETTERS).join("")}…` : text;
}

/** At most so many digits that matter, no zeros behind. */
function digits(value, most) {
  return plain(Number(value.toPrecision(most)));
}

function plain(number) {
  return number.toLocaleString("en-US", { maximumFractionDigits: 6, useGrouping: false });
}
