// How does a run go? Draws its metrics as curves and asks for new points while it is going on.

import uPlot from "/static/vendor/uPlot.esm.js";

const HEIGHT = 132;
const EVERY = 1000; // milliseconds between two looks at a run that is going on

/** The colours of the theme as a canvas can use them. */
function palette(element) {
  const probe = element.appendChild(document.createElement("span"));
  const colours = {};
  for (const name of ["quiet", "line", "accent"]) {
    probe.className = `probe-${name}`;
    colours[name] = getComputedStyle(probe).color;
  }
  probe.remove();
  return colours;
}

function short(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-3 || size >= 1e5) ? value.toExponential(2) : String(Number(value.toPrecision(4)));
}

/** One metric over the steps of a phase. */
class Curve {
  constructor(name, place) {
    this.name = name;
    this.steps = [];
    this.values = [];
    this.box = place.appendChild(document.createElement("figure"));
    this.caption = this.box.appendChild(document.createElement("figcaption"));
    this.canvas = this.box.appendChild(document.createElement("div"));
    this.canvas.setAttribute("role", "img");
  }

  add(step, value) {
    this.steps.push(step);
    this.values.push(value);
  }

  say(index) {
    const shown = index ?? this.values.length - 1;
    this.caption.replaceChildren(Object.assign(document.createElement("span"), { textContent: this.name }));
    this.caption.append(Object.assign(document.createElement("strong"), { textContent: short(this.values[shown]) }));
    this.canvas.setAttribute("aria-label", `${this.name}: ${short(this.values[shown])} (${this.steps[shown]})`);
  }

  draw() {
    this.say();
    if (this.plot) this.plot.setData([this.steps, this.values]);
    else this.plot = new uPlot(this.options(), [this.steps, this.values], this.canvas);
  }

  redraw() {
    this.plot?.destroy();
    this.plot = null;
    this.draw();
  }

  fit() {
    if (this.canvas.clientWidth) this.plot?.setSize({ width: this.canvas.clientWidth, height: HEIGHT });
  }

  options() {
    const colours = palette(this.canvas);
    const axis = { stroke: colours.quiet, font: "11px system-ui", grid: { stroke: colours.line, width: 1 }, ticks: { show: false } };
    return {
      width: this.canvas.clientWidth || 240,
      height: HEIGHT,
      legend: { show: false },
      padding: [8, 10, 0, 0],
      scales: { x: { time: false } },
      axes: [{ ...axis, size: 24, space: 60 }, { ...axis, size: 52, space: 28, values: (_, ticks) => ticks.map(short) }],
      cursor: { y: false, points: { size: 6 }, drag: { x: false, y: false } },
      series: [{}, { stroke: colours.accent, width: 1.75, points: { size: 5, show: (plot) => plot.data[0].length < 4 } }],
      hooks: { setCursor: [(plot) => this.say(plot.cursor.idx)] },
    };
  }
}

/** All curves of a run, kept up to date while it is going on. */
class Curves {
  constructor(place) {
    this.place = place;
    this.forget();
    new ResizeObserver(() => this.each((curve) => curve.fit())).observe(place);
    const redraw = () => this.each((curve) => curve.redraw());
    new MutationObserver(redraw).observe(document.documentElement, { attributeFilter: ["data-theme"] });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  }

  forget() {
    this.place.replaceChildren();
    this.phases = new Map();
    this.after = 0;
  }

  each(act) {
    for (const phase of this.phases.values()) for (const curve of phase.curves.values()) act(curve);
  }

  async follow() {
    try {
      const answer = await fetch(`${this.place.dataset.curves}?after=${this.after}`);
      if (answer.ok) {
        const told = await answer.json();
        this.take(told);
        if (!told.going_on) return;
      }
    } catch {
      // The server is away for a moment: ask again.
    }
    setTimeout(() => this.follow(), EVERY);
  }

  take(told) {
    if (this.attempt !== undefined && told.attempt !== this.attempt) {
      this.attempt = told.attempt;
      this.forget(); // begun anew: its points come with the next look
      return;
    }
    this.attempt = told.attempt;
    const touched = new Set();
    for (const point of told.points) {
      this.after = point.id;
      for (const [name, value] of Object.entries(point.values)) {
        const curve = this.curve(point.phase, name);
        curve.add(point.step, value);
        touched.add(curve);
      }
    }
    for (const curve of touched) curve.draw();
  }

  curve(phase, name) {
    if (!this.phases.has(phase)) {
      const section = this.place.appendChild(document.createElement("section"));
      const title = Object.assign(document.createElement("h2"), { textContent: phase.replaceAll("_", " ") });
      const grid = Object.assign(document.createElement("div"), { className: "curve-grid" });
      section.append(title, grid);
      this.phases.set(phase, { grid, curves: new Map() });
    }
    const { grid, curves } = this.phases.get(phase);
    if (!curves.has(name)) curves.set(name, new Curve(name, grid));
    return curves.get(name);
  }
}

for (const place of document.querySelectorAll("[data-curves]")) new Curves(place).follow();
