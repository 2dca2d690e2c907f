// How does a run go? Draws its metrics as curves and asks for new points while it is going on.

import uPlot from "/static/vendor/uPlot.esm.js";

const HEIGHT = 132;
const EVERY = 1000; // milliseconds between two looks at a run that is going on
const DASHES = [[], [6, 4], [2, 3], [8, 3, 2, 3], [1, 5]]; // lines are told apart without colours, too

// Metrics that are read side by side share a plot: a reward that is climbed beside those that only watch, and phases.
const FAMILIES = [
  { title: "scores", of: (name) => name === "objective/scores" || name.startsWith("watched/") },
  { title: "seconds", of: (name) => name.startsWith("seconds/") && name !== "seconds/left" },
  { title: "floor", of: (name) => name.startsWith("floor/") },
  { title: "tokens", of: (name) => name.startsWith("tokens/") },
];
const PHASES = ["scores", "sample", "score", "evaluate", "learn"];
// Of a run of PPO, what is looked at first, in this order; all else is folded away.
const FIRST = ["scores", "objective/kl", "objective/kl_coef", "length", "ended_rate", "policy/approxkl", "policy/entropy", "val/explained_variance", "seconds", "floor"];

/** The colours of the theme as a canvas can use them. */
function palette(element) {
  const probe = element.appendChild(document.createElement("span"));
  const colours = {};
  for (const name of ["quiet", "line", "accent", "second", "third", "fourth", "fifth"]) {
    probe.className = `probe-${name}`;
    colours[name] = getComputedStyle(probe).color;
  }
  probe.remove();
  return { ...colours, lines: [colours.accent, colours.second, colours.third, colours.fourth, colours.fifth] };
}

function short(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-3 || size >= 1e5) ? value.toExponential(2) : String(Number(value.toPrecision(4)));
}

/** Where a name stands in a plot of several: phases in the order in which they come, others behind them. */
function place(name) {
  const known = PHASES.indexOf(name.slice(name.indexOf("/") + 1));
  return known < 0 ? PHASES.length : known;
}

function element(name, properties = {}) {
  return Object.assign(document.createElement(name), properties);
}

/** One metric over the steps of a phase, or several on one scale. */
class Curve {
  constructor(title, place) {
    this.title = title;
    this.names = [];
    this.rows = []; // { step, values by name }
    this.box = place.appendChild(element("figure"));
    this.caption = this.box.appendChild(element("figcaption"));
    this.canvas = this.box.appendChild(element("div"));
    this.canvas.setAttribute("role", "img");
  }

  /** A run that went on after a kill, or began anew, says steps again: what it says last holds. */
  forgetFrom(step) {
    while (this.rows.length && this.rows.at(-1).step >= step) this.rows.pop();
  }

  add(step, name, value) {
    if (!this.names.includes(name)) {
      this.names.push(name);
      this.names.sort((one, other) => place(one) - place(other));
      this.undraw();
    }
    if (this.rows.at(-1)?.step !== step) this.rows.push({ step, values: {} });
    this.rows.at(-1).values[name] = value;
  }

  data() {
    return [this.rows.map((row) => row.step), ...this.names.map((name) => this.rows.map((row) => row.values[name] ?? null))];
  }

  say(index) {
    const shown = this.rows[index ?? this.rows.length - 1];
    const isOne = this.names.length === 1;
    const said = this.names.map((name) => [name.slice(name.indexOf("/") + 1), short(shown?.values[name])]);
    this.caption.replaceChildren(element("span", { textContent: isOne ? this.title : `${this.title} ` }));
    for (const [number, [name, value]] of said.entries()) {
      const line = this.caption.appendChild(element("span", { className: isOne ? "" : `curve-name curve-${number % DASHES.length}` }));
      if (!isOne) line.append(`${name} `);
      line.append(element("strong", { textContent: value }));
    }
    const label = isOne ? `${this.title}: ${said[0][1]}` : `${this.title}: ${said.map((pair) => pair.join(" ")).join(", ")}`;
    this.canvas.setAttribute("aria-label", `${label} (${shown?.step})`);
  }

  draw() {
    this.say();
    if (this.plot) this.plot.setData(this.data());
    else this.plot = new uPlot(this.options(), this.data(), this.canvas);
  }

  undraw() {
    this.plot?.destroy();
    this.plot = null;
  }

  redraw() {
    this.undraw();
    this.draw();
  }

  fit() {
    if (this.canvas.clientWidth) this.plot?.setSize({ width: this.canvas.clientWidth, height: HEIGHT });
  }

  options() {
    const colours = palette(this.canvas);
    const axis = { stroke: colours.quiet, font: "11px system-ui", grid: { stroke: colours.line, width: 1 }, ticks: { show: false } };
    const points = { size: 5, show: (plot) => plot.data[0].length < 4 };
    return {
      width: this.canvas.clientWidth || 240,
      height: HEIGHT,
      legend: { show: false },
      padding: [8, 10, 0, 0],
      scales: { x: { time: false } },
      axes: [{ ...axis, size: 24, space: 60 }, { ...axis, size: 52, space: 28, values: (_, ticks) => ticks.map(short) }],
      cursor: { y: false, points: { size: 6 }, drag: { x: false, y: false } },
      series: [
        {},
        ...this.names.map((_, number) => ({
          stroke: colours.lines[number % DASHES.length],
          dash: DASHES[number % DASHES.length],
          width: 1.75,
          points,
        })),
      ],
      hooks: { setCursor: [(plot) => this.say(plot.cursor.idx)] },
    };
  }
}

/** The curves of one phase: those that are looked at first, and the others, folded away where they are many. */
class Phase {
  constructor(name, place, words) {
    this.words = words;
    this.curves = new Map();
    this.section = place.appendChild(element("section"));
    this.grid = element("div", { className: "curve-grid" });
    this.section.append(element("h2", { textContent: name.replaceAll("_", " ") }), this.grid);
  }

  take(step, values) {
    const known = [...this.curves.values()];
    for (const curve of known) curve.forgetFrom(step);
    const names = Object.keys(values);
    const isArranged = names.includes("objective/scores");
    if (isArranged && !this.curves.size) for (const first of FIRST) this.make(first, names, this.grid);
    const touched = new Set(known);
    for (const name of names) {
      const curve = this.curveOf(name, isArranged);
      curve.add(step, name, values[name]);
      touched.add(curve);
    }
    for (const [key, curve] of this.curves) if (!curve.rows.length) this.remove(key, curve);
    return [...touched].filter((curve) => curve.rows.length);
  }

  remove(key, curve) {
    this.curves.delete(key);
    curve.undraw();
    curve.box.remove();
  }

  /** A plot for one of the first metrics, in its place, if this run has it. */
  make(key, names, grid) {
    const family = FAMILIES.find((one) => one.title === key);
    if (!names.some((name) => (family ? family.of(name) : name === key))) return;
    this.curves.set(key, new Curve(this.words[key] ?? key, grid));
  }

  curveOf(name, isArranged) {
    const key = FAMILIES.find((family) => family.of(name))?.title ?? name;
    if (!this.curves.has(key)) this.make(key, [name], isArranged ? this.others() : this.grid);
    return this.curves.get(key);
  }

  others() {
    if (!this.folded) {
      const fold = this.section.appendChild(element("details", { className: "fold" }));
      this.folded = element("div", { className: "curve-grid" });
      fold.append(element("summary", { textContent: this.words.others }), this.folded);
      fold.addEventListener("toggle", () => this.each((curve) => curve.fit()));
    }
    return this.folded;
  }

  each(act) {
    for (const curve of this.curves.values()) act(curve);
  }
}

/** All curves of a run, kept up to date while it is going on. */
class Curves {
  constructor(place) {
    this.place = place;
    this.phases = new Map();
    this.after = 0;
    this.words = JSON.parse(place.dataset.words);
    new ResizeObserver(() => this.each((curve) => curve.fit())).observe(place);
    const redraw = () => this.each((curve) => curve.redraw());
    new MutationObserver(redraw).observe(document.documentElement, { attributeFilter: ["data-theme"] });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  }

  each(act) {
    for (const phase of this.phases.values()) phase.each(act);
  }

  async follow() {
    try {
      const answer = await fetch(`${this.place.dataset.curves}?after=${this.after}`);
      if (answer.ok) {
        const told = await answer.json();
        this.take(told.points);
        if (!told.going_on) return;
      }
    } catch {
      // The server is away for a moment: ask again.
    }
    setTimeout(() => this.follow(), EVERY);
  }

  take(points) {
    const touched = new Set();
    for (const { id, phase, step, values } of points) {
      this.after = id;
      if (!this.phases.has(phase)) this.phases.set(phase, new Phase(phase, this.place, this.words));
      for (const curve of this.phases.get(phase).take(step, values)) touched.add(curve);
    }
    for (const curve of touched) curve.draw();
  }
}

for (const place of document.querySelectorAll("[data-curves]")) new Curves(place).follow();
