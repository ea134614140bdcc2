// Lets a reader choose another trial, by a point, a line, a name or a preference, and filter trials.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const byId = (id) => document.getElementById(id);
  const { candidates, cards } = JSON.parse(byId("trials").textContent);
  const card = byId("card");
  let shown = null;

  async function cardOf(number) {
    const packed = cards[number];
    if (!packed) return `<p>Trial ${number} is not held on this page; <code>evomerge export DIR --pick trial:${number} --format recipe --out FILE</code> writes its recipe.</p>`;
    const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  }

  async function choose(number, { scroll = false } = {}) {
    if (!card || number === undefined || number === null) return;
    shown = Number(number);
    card.innerHTML = await cardOf(shown);
    card.dataset.trial = shown;
    history.replaceState(null, "", `#trial-${shown}`);
    mark();
    if (scroll) byId("trial").scrollIntoView();
  }

  // Where the trial is: a ring around its points, a heavy line, a row with a bar.
  function mark() {
    for (const one of all("[data-trial]")) one.classList.toggle("shown", Number(one.dataset.trial) === shown);
    for (const plot of all("[data-figure] > div")) {
      const ring = (plot.data || []).findIndex((trace) => trace.name === "shown");
      if (ring < 0) continue;
      const found = plot.data.flatMap((trace, t) =>
        (t === ring ? [] : trace.customdata || []).map((n, i) => ({ n, x: trace.x[i], y: trace.y[i] })));
      const here = found.filter((point) => point.n === shown);
      Plotly.restyle(plot, { x: [here.map((p) => p.x)], y: [here.map((p) => p.y)] }, [ring]);
    }
  }

  function listen() {
    for (const plot of all("[data-figure] > div")) {
      if (plot.on && !plot.dataset.heard) plot.on("plotly_click", (event) => choose(event.points[0].customdata));
      plot.dataset.heard = "yes";
    }
    if (shown !== null) mark();
    filter();
  }

  document.addEventListener("click", (event) => {
    const name = event.target.closest("[data-pick]");
    if (name) choose(name.dataset.pick, { scroll: true });
    const button = event.target.closest("[data-copy]");
    if (button) copy(button);
  });

  async function copy(button) {
    const source = button.parentElement.querySelector("pre");
    try {
      await navigator.clipboard.writeText(source.textContent);
    } catch {
      getSelection().selectAllChildren(source);
      document.execCommand("copy");
    }
    button.textContent = "copied";
    setTimeout(() => (button.textContent = "copy"), 1500);
  }

  // The preference: the candidate with the largest weighted sum of its merits.
  const prefer = byId("prefer");
  function preferred() {
    const sliders = all("input", prefer).map((input) => Number(input.value));
    const weights = sliders.length === 1 ? [100 - sliders[0], sliders[0]] : sliders;
    const worth = ({ merits }) => merits.reduce((sum, merit, i) => sum + weights[i] * merit, 0);
    const best = candidates.reduce((kept, one) => (worth(one) > worth(kept) ? one : kept));
    prefer.querySelector("output").textContent = `${weights.join(" : ")} prefers ${best.label}`;
    choose(best.number);
  }
  if (prefer) {
    prefer.hidden = false;
    prefer.addEventListener("input", preferred);
  }

  // Parallel coordinates: limits per axis are kept in the number fields, brushes write them.
  const svg = document.querySelector(".parallel");
  const lines = all("g[data-trial]", svg || card || document);
  const axes = svg ? all(".axis", svg) : [];
  const fields = all("#limits fieldset").map((set) => all("input", set));
  const top = axes.length ? Number(axes[0].querySelector("line").getAttribute("y1")) : 0;
  const bottom = axes.length ? Number(axes[0].querySelector("line").getAttribute("y2")) : 0;
  const valueAt = (axis, y) => {
    const share = (bottom - Math.min(bottom, Math.max(top, y))) / (bottom - top);
    return Number(axis.dataset.bottom) + share * (axis.dataset.top - axis.dataset.bottom);
  };
  const heightOf = (axis, value) => {
    const span = axis.dataset.top - axis.dataset.bottom;
    return bottom - (span ? (value - axis.dataset.bottom) / span : 0.5) * (bottom - top);
  };
  const limit = (field, otherwise) => (field.value === "" ? otherwise : Number(field.value));

  function filter() {
    if (!svg) return;
    const ranges = fields.map(([from, to]) => [limit(from, -Infinity), limit(to, Infinity)]);
    const limited = ranges.map(([from, to]) => from > -Infinity || to < Infinity);
    const out = new Set();
    for (const line of lines) {
      const values = JSON.parse(line.dataset.values);
      const passes = values.every((v, i) => !limited[i] || (v !== null && v >= ranges[i][0] && v <= ranges[i][1]));
      if (!passes) out.add(Number(line.dataset.trial));
    }
    // Not in the tables of held-out scores: a missing row would look like a missing result.
    for (const one of all(".parallel [data-trial], #front [data-trial]"))
      one.classList.toggle("out", out.has(Number(one.dataset.trial)));
    axes.forEach((axis, i) => {
      const ends = ranges[i].map((v) => heightOf(axis, Math.max(Math.min(axis.dataset.bottom, axis.dataset.top), Math.min(Math.max(axis.dataset.bottom, axis.dataset.top), v))));
      const brush = axis.querySelector(".brush");
      brush.setAttribute("y", Math.min(...ends));
      brush.setAttribute("height", limited[i] ? Math.abs(ends[0] - ends[1]) : 0);
    });
    byId("passing").textContent = limited.some(Boolean) ? `${lines.length - out.size} of ${lines.length} trials pass.` : "";
    dim(limited.some(Boolean) ? out : null);
  }

  function dim(out) {
    for (const plot of all("[data-figure] > div")) {
      const traces = (plot.data || []).flatMap((trace, i) => (trace.customdata ? [i] : []));
      const kept = traces.map((t) => out && plot.data[t].customdata.flatMap((n, i) => (out.has(n) ? [] : [i])));
      if (traces.length) Plotly.restyle(plot, { selectedpoints: kept }, traces);
    }
  }

  axes.forEach((axis, i) => {
    const hit = axis.querySelector(".hit");
    const y = (event) => event.clientY - svg.getBoundingClientRect().top;
    let start = null;
    hit.addEventListener("pointerdown", (event) => {
      start = y(event);
      hit.setPointerCapture(event.pointerId);
    });
    const drag = (event) => {
      if (start === null) return;
      const moved = Math.abs(y(event) - start) > 4;
      const ends = [valueAt(axis, start), valueAt(axis, y(event))].sort((a, b) => a - b);
      fields[i].forEach((field, k) => (field.value = moved ? Number(ends[k].toPrecision(4)) : ""));
      filter();
    };
    hit.addEventListener("pointermove", drag);
    hit.addEventListener("pointerup", (event) => {
      drag(event);
      start = null;
    });
  });
  byId("limits")?.addEventListener("input", filter);

  // The line under the pointer, no farther than a finger is wide.
  function nearest(event) {
    const box = svg.getBoundingClientRect();
    const [px, py] = [event.clientX - box.left, event.clientY - box.top];
    let best = null;
    let least = 10;
    for (const line of lines.filter((one) => !one.classList.contains("out")))
      for (const part of line.children) {
        const [x1, y1, x2, y2] = ["x1", "y1", "x2", "y2"].map((name) => part[name].baseVal.value);
        if (px < x1 - 6 || px > x2 + 6) continue;
        const gap = Math.abs(y1 + ((px - x1) / (x2 - x1)) * (y2 - y1) - py);
        if (gap < least) [least, best] = [gap, line];
      }
    return best;
  }
  if (svg) {
    svg.addEventListener("click", (event) => {
      if (!event.target.classList.contains("hit")) choose(nearest(event)?.dataset.trial);
    });
    svg.addEventListener("pointermove", (event) => {
      const line = nearest(event);
      for (const one of lines) one.classList.toggle("near", one === line);
      byId("near").textContent = line ? line.dataset.label : "\u00a0";
    });
  }

  document.addEventListener("drawn", listen);
  listen();
  const wanted = location.hash.match(/^#trial-(\d+)$/);
  if (wanted) choose(wanted[1]);
})();
