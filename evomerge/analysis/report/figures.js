// Draws the figures and keeps their colours in step with the screen: light, dark, paper.
(() => {
  const figures = [...document.querySelectorAll("[data-figure]")];
  const palette = JSON.parse(document.getElementById("palette").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const options = { responsive: true, displayModeBar: false };

  function draw(isDark, isPaper = false) {
    for (const figure of figures) {
      let text = figure.querySelector("script").textContent;
      if (isDark) for (const [light, night] of palette) text = text.replaceAll(light, night);
      const { data, layout } = JSON.parse(text);
      // A responsive figure resizes too late for the printer; a fixed width is drawn at once.
      if (isPaper) Object.assign(layout, { width: figure.clientWidth, height: 0.75 * layout.height });
      Plotly.react(figure.querySelector("div"), data, layout, options);
    }
    document.dispatchEvent(new Event("drawn"));
  }

  // report.css gives .paper the width of a sheet, on screen too, so it can be measured here.
  function paper(isPaper) {
    document.documentElement.classList.toggle("paper", isPaper);
    draw(!isPaper && dark.matches, isPaper);
  }

  draw(dark.matches);
  dark.addEventListener("change", () => draw(dark.matches));
  window.addEventListener("beforeprint", () => paper(true));
  window.addEventListener("afterprint", () => paper(false));
})();
