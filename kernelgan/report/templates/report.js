// Tables are sorted by a click on a heading and copied by the buttons above them; a print has nothing folded.
"use strict";
(() => {
  const parts = (cell) => {
    const small = cell.querySelector("small");
    const all = cell.textContent.trim(), aside = small ? small.textContent.trim() : "";
    return { main: aside ? all.slice(0, all.length - aside.length).trim() : all, aside };
  };
  const number = (text) => {
    const plain = text.replace(/,/g, "").replace("−", "-").replace(/^[<>=]\s*/, "");
    return /^[+-]?[\d.]+(e[+-]?\d+)?$/i.test(plain) ? parseFloat(plain) : NaN;
  };
  const compare = (a, b) => {
    const [x, y] = [number(a), number(b)];
    if (isNaN(x) !== isNaN(y)) return isNaN(x) ? 1 : -1;
    return isNaN(x) ? a.localeCompare(b) : x - y;
  };
  const rowsOf = (table) => [...table.tBodies[0].rows].filter((row) => !row.classList.contains("kind"));
  const headsOf = (table) => [...table.tHead.rows[table.tHead.rows.length - 1].cells];

  function sortable(table) {
    const original = [...table.tBodies[0].rows], heads = headsOf(table);
    heads.forEach((head, place) => {
      const sort = () => {
        const was = head.getAttribute("aria-sort");
        const numeric = rowsOf(table).some((row) => !isNaN(number(parts(row.cells[place]).main)));
        const [first, second] = numeric ? ["descending", "ascending"] : ["ascending", "descending"];
        const now = !was ? first : was === first ? second : null;
        heads.forEach((each) => each.removeAttribute("aria-sort"));
        if (!now) return table.tBodies[0].replaceChildren(...original);
        head.setAttribute("aria-sort", now);
        const sign = now === "ascending" ? 1 : -1, known = (row) => parts(row.cells[place]).main !== "-";
        const rows = rowsOf(table).sort((a, b) => known(b) - known(a)
          || sign * compare(parts(a.cells[place]).main, parts(b.cells[place]).main));
        table.tBodies[0].replaceChildren(...rows);
      };
      head.tabIndex = 0;
      head.title = "Sort";
      head.addEventListener("click", sort);
      head.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
    });
  }

  function gridOf(table, apart) {
    const groups = table.tHead.rows.length > 1
      ? [...table.tHead.rows[0].cells].flatMap((cell) => Array(cell.colSpan).fill(cell.textContent.trim())) : [];
    const heads = headsOf(table).map((cell, place) => `${groups[place] || ""} ${cell.textContent.trim()}`.trim());
    const rows = rowsOf(table).map((row) => [...row.cells].map(parts));
    if (!apart) return [heads, ...rows.map((row) => row.map((it) => `${it.main} ${it.aside}`.trim()))];
    const wide = heads.map((_, place) => rows.some((row) => row[place].aside));
    const spread = (cells) => cells.flatMap((it, place) => wide[place] ? [it.main, it.aside] : [it.main]);
    return [spread(heads.map((head) => ({ main: head, aside: `${head}: beside` }))), ...rows.map(spread)];
  }
  const formats = {
    Markdown: (table) => {
      const [head, ...rows] = gridOf(table).map((row) => `| ${row.map((it) => it.replace(/\|/g, "\\|")).join(" | ")} |`);
      return [head, `|${gridOf(table)[0].map((_, at) => (at ? " ---: " : " --- ")).join("|")}|`, ...rows].join("\n");
    },
    LaTeX: (table) => {
      const escaped = (text) => text.replace(/\\/g, "\\textbackslash ").replace(/[&%$#_{}]/g, "\\$&")
        .replace(/~/g, "\\textasciitilde ").replace(/\^/g, "\\textasciicircum ").replace(/</g, "$<$").replace(/>/g, "$>$");
      const [head, ...rows] = gridOf(table).map((row) => `${row.map(escaped).join(" & ")} \\\\`);
      return [`\\begin{tabular}{l${"r".repeat(gridOf(table)[0].length - 1)}}`, "\\toprule", head, "\\midrule",
        ...rows, "\\bottomrule", "\\end{tabular}"].join("\n");
    },
    CSV: (table) => gridOf(table, true).map((row) => row.map((it) => `"${it.replace(/"/g, '""')}"`).join(",")).join("\n"),
  };
  async function copy(text) {
    if (navigator.clipboard) return navigator.clipboard.writeText(text);
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  function copied(table) {
    const tools = document.createElement("div");
    tools.className = "tools";
    tools.append("Copy as ");
    for (const [name, format] of Object.entries(formats)) {
      const button = document.createElement("button");
      button.textContent = name;
      button.addEventListener("click", async () => {
        await copy(format(table));
        button.textContent = "copied";
        setTimeout(() => { button.textContent = name; }, 1200);
      });
      tools.append(button);
    }
    table.parentElement.before(tools);
  }
  for (const table of document.querySelectorAll("table")) { sortable(table); copied(table); }

  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    folded.forEach((each) => { each.open = true; });
  });
  addEventListener("afterprint", () => folded.forEach((each) => { each.open = false; }));
})();
