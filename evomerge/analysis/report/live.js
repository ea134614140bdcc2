// Loads the page of a run that goes on again, unless the reader is in the middle of something.
(() => {
  let last = 0;
  for (const kind of ["pointerdown", "keydown", "input"]) addEventListener(kind, () => (last = Date.now()));
  setInterval(() => {
    const isBusy = Date.now() - last < 15000 || document.querySelector(".out, details[open]");
    if (!isBusy) location.reload();
  }, 1000 * document.body.dataset.reload);
})();
