"use strict";
(() => {
  const content = JSON.parse(document.getElementById("figures").textContent);
  const plots = [...document.querySelectorAll(".plot")];
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const button = document.getElementById("theme");
  let theme = dark.matches ? "dark" : "light";
  let wanted = "";

  // Numbers become colours of the theme, and curves that were not asked for are hidden.
  function themed(figure, theme) {
    const { palette, template } = content.themes[theme];
    const data = figure.data.map((trace) => {
      if (!trace.meta) return trace;
      const colour = palette[trace.meta.colour % palette.length];
      const visible = !trace.meta.line || trace.meta.line.toLowerCase().includes(wanted);
      const look = trace.meta.band ? { fillcolor: colour + "2e", line: { ...trace.line, color: colour } }
        : { line: { ...trace.line, color: colour }, marker: { ...trace.marker, color: colour } };
      return { ...trace, ...look, visible };
    });
    return { data, layout: { ...figure.layout, template } };
  }

  function draw(plot, theme, width) {
    const { data, layout } = themed(content.figures[plot.dataset.figure], theme);
    const sized = width ? { ...layout, width } : { ...layout, autosize: true, width: undefined };
    const buttons = [["toImage", "zoom2d", "pan2d", "autoScale2d"]];  // the others would offer what needs a network
    const options = { responsive: !width, displaylogo: false, modeBarButtons: buttons };
    return Plotly.react(plot, data, sized, options);
  }

  function drawAll() {
    document.documentElement.dataset.theme = theme;
    button.textContent = theme === "dark" ? "light" : "dark";
    let next = 0;
    const pass = (drawAll.pass = (drawAll.pass || 0) + 1);
    const one = () => {
      if (pass !== drawAll.pass) return;  // the theme or the curves have changed since
      if (next === plots.length) { document.documentElement.dataset.drawn = plots.length; return; }
      draw(plots[next++], theme);
      setTimeout(one, 0);
    };
    one();
  }

  button.addEventListener("click", () => { theme = theme === "dark" ? "light" : "dark"; drawAll(); });
  dark.addEventListener("change", () => { theme = dark.matches ? "dark" : "light"; drawAll(); });
  addEventListener("beforeprint", () => {
    document.documentElement.dataset.theme = "light";
    plots.forEach((plot) => draw(plot, "light", 640));
  });
  addEventListener("afterprint", drawAll);
  const lines = document.getElementById("lines");
  if (lines) lines.addEventListener("input", () => { wanted = lines.value.toLowerCase(); drawAll(); });

  const key = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
  };
  // Numbers before texts, and empty cells behind all others in either direction.
  function compare(a, b, sign) {
    if (a === "" || b === "") return (a === "") - (b === "");
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    return sign * (typeof a === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true }));
  }
  function sort(heading) {
    const table = heading.closest("table"), column = heading.cellIndex, body = table.tBodies[0];
    const direction = heading.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", direction);
    const sign = direction === "ascending" ? 1 : -1;
    body.append(...[...body.rows].sort((a, b) => compare(key(a, column), key(b, column), sign)));
  }
  for (const heading of document.querySelectorAll("th")) {
    heading.addEventListener("click", () => sort(heading));
    heading.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(heading); });
  }
  for (const filter of document.querySelectorAll(".filter")) {
    const rows = filter.parentElement.querySelector("tbody").rows;
    filter.addEventListener("input", () => {
      const text = filter.value.toLowerCase();
      for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(text);
    });
  }
  for (const slider of document.querySelectorAll(".slider input")) {
    const frames = slider.closest("figure").querySelectorAll("img"), labels = JSON.parse(slider.dataset.labels);
    slider.addEventListener("input", () => {
      frames.forEach((frame, number) => { frame.hidden = number !== Number(slider.value); });
      slider.nextElementSibling.textContent = labels[slider.value];
    });
  }
  drawAll();
})();
