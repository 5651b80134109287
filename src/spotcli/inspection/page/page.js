"use strict";
const one = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const tools = one(".tools");
if (tools) {
  const list = one(".rows");
  const cards = all("article", list);
  const search = one("[type=search]", tools);
  const filters = one(".filters");
  const order = one("select", filters);
  const hits = "highlights" in CSS ? new Highlight() : null;
  if (hits) CSS.highlights.set("hit", hits);
  const HIGHLIGHTED = 200; // cards; more would take long and nobody reads them at once
  const texts = new Map();
  const unfolded = new Set(); // folds that a search opened
  let current = null;

  const lower = (text) => {
    const lowered = text.toLowerCase();
    // The few letters that become longer keep their case, so that places in both texts are the same.
    return lowered.length === text.length ? lowered : [...text].map((letter) => {
      const low = letter.toLowerCase();
      return low.length === letter.length ? low : letter;
    }).join("");
  };

  // The text of y- and of y+, as one would read each: an edit is no part of the other.
  const read = (card) => {
    const sides = { DEL: { text: "", nodes: [] }, INS: { text: "", nodes: [] } };
    const walker = document.createTreeWalker(card, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      const parent = node.parentElement;
      if (parent.tagName === "I" || parent.tagName === "SUMMARY") continue;
      const edit = parent.closest("del, ins");
      for (const [name, side] of Object.entries(sides)) {
        if (edit && edit.tagName !== name) continue;
        side.nodes.push([side.text.length, node]);
        side.text += lower(node.data) + (edit && edit.classList.contains("line") ? "\n" : "");
      }
    }
    return Object.values(sides);
  };
  const contains = (card, wanted) => {
    if (!texts.has(card)) {
      const [old, fresh] = read(card).map((side) => side.text);
      texts.set(card, old === fresh ? [old] : [old, fresh]);
    }
    return texts.get(card).some((text) => text.includes(wanted));
  };

  const highlight = (card, wanted) => {
    for (const { text, nodes } of read(card)) {
      let index = 0;
      const place = (offset) => {
        while (index + 1 < nodes.length && nodes[index + 1][0] <= offset) index += 1;
        return [nodes[index][1], Math.min(offset - nodes[index][0], nodes[index][1].length)];
      };
      for (let at = text.indexOf(wanted); at >= 0; at = text.indexOf(wanted, at + wanted.length)) {
        const range = new Range();
        range.setStart(...place(at));
        const fold = range.startContainer.parentElement.closest("details:not([open])");
        if (fold) {
          fold.open = true;
          unfolded.add(fold);
        }
        const [node, end] = place(at + wanted.length - 1);
        range.setEnd(node, Math.min(end + 1, node.length));
        hits.add(range);
      }
    }
  };

  const chosen = () => {
    const values = all("[data-filter]", filters).map((group) => [
      group.dataset.filter,
      new Set(all(":checked", group).map((box) => box.value)),
    ]).filter(([, wanted]) => wanted.size);
    const ranges = all("[data-range]", filters).map((group) => [
      numberName(group.dataset.range),
      ...all("input", group).map((input) => (input.value === "" ? null : Number(input.value))),
    ]).filter(([, low, high]) => low !== null || high !== null);
    return (card) =>
      values.every(([name, wanted]) => wanted.has(card.dataset[name])) &&
      ranges.every(([name, low, high]) => {
        const value = name in card.dataset ? Number(card.dataset[name]) : NaN;
        return (low === null || value >= low) && (high === null || value <= high);
      });
  };
  const numberName = (name) => `n${name.split("_").map((part) => part[0].toUpperCase() + part.slice(1)).join("")}`;

  const apply = () => {
    const wanted = lower(search.value);
    const matches = chosen();
    for (const fold of unfolded) fold.open = false;
    unfolded.clear();
    hits?.clear();
    let count = 0;
    for (const card of cards) {
      card.hidden = !matches(card) || (wanted !== "" && !contains(card, wanted));
      if (card.hidden) continue;
      count += 1;
      if (hits && wanted && count <= HIGHLIGHTED) highlight(card, wanted);
    }
    const format = new Intl.NumberFormat("en");
    const noun = cards.length === 1 ? tools.dataset.noun : `${tools.dataset.noun}s`;
    one("output", tools).value = `${format.format(count)} of ${format.format(cards.length)} ${noun}`;
    one(".empty").hidden = count > 0;
  };

  const reset = () => {
    for (const box of all(":checked", filters)) box.checked = false;
    for (const input of [search, ...all("[type=number]", filters)]) input.value = "";
    apply();
  };

  const show = (card) => {
    current?.classList.remove("current");
    current = card;
    card.classList.add("current");
    card.focus({ preventScroll: true });
    card.scrollIntoView({ block: "start" });
  };
  const step = (by) => {
    const shown = cards.filter((card) => !card.hidden);
    const index = shown.indexOf(current);
    const next = index < 0 ? shown[0] : shown[index + by];
    if (next) show(next);
  };

  // The values of each filter, the most frequent first; one value alone selects nothing.
  for (const group of all("[data-filter]", filters)) {
    const counts = new Map();
    for (const card of cards) {
      const value = card.dataset[group.dataset.filter];
      counts.set(value, (counts.get(value) ?? 0) + 1);
    }
    counts.delete(undefined);
    group.hidden = counts.size < 2;
    for (const [value, count] of [...counts].sort((left, right) => right[1] - left[1]).slice(0, 30)) {
      const chip = document.createElement("label");
      const box = document.createElement("input");
      const number = document.createElement("small");
      const name = document.createElement("span");
      Object.assign(box, { type: "checkbox", value });
      name.textContent = value;
      name.className = ["right", "wrong", "undecided"].includes(value) ? value : "";
      number.textContent = count.toLocaleString("en");
      chip.className = "chip";
      chip.append(box, name, number);
      group.append(chip);
    }
  }

  let waiting = 0;
  search.addEventListener("input", () => {
    clearTimeout(waiting);
    if (cards.length > 1000) waiting = setTimeout(apply, 200);
    else apply();
  });
  filters.addEventListener("input", (event) => {
    if (event.target !== order) return apply();
    const name = order.value && numberName(order.value);
    const size = (card) => (name in card.dataset ? Number(card.dataset[name]) : -Infinity);
    const place = (card) => Number(card.dataset.place);
    cards.sort((left, right) => (name && size(right) - size(left)) || place(left) - place(right));
    list.append(...cards);
  });
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#row-'], button");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    if (link.dataset.step) step(Number(link.dataset.step));
    else if ("reset" in link.dataset) reset();
    else if (link.hash) {
      const card = document.getElementById(link.hash.slice(1));
      if (card?.hidden) reset();
      if (card) show(card);
      event.preventDefault();
      history.replaceState(null, "", link.hash);
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.matches?.("input:not([type=checkbox]), select");
    if (event.key === "Escape") {
      reset();
      search.blur();
    } else if (event.key === "Enter" && event.target === search) {
      clearTimeout(waiting);
      apply();
      current = null;
      step(1);
    } else if (typing) return;
    else if (event.key === "/") {
      event.preventDefault();
      search.focus();
      search.select();
    } else if (event.key === "j") step(1);
    else if (event.key === "k") step(-1);
    else if (event.key === "z" && current) {
      const folds = all("details", current);
      const open = folds.some((fold) => !fold.open);
      for (const fold of folds) fold.open = open;
    }
  });

  tools.hidden = filters.hidden = false;
  filters.open = matchMedia("(min-width: 46rem)").matches;
  apply();
  const linked = cards.find((card) => `#${card.id}` === location.hash);
  if (linked) show(linked);
}
