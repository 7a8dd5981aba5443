// The list: only the rows that can be seen are in the document, each at its fixed height.

import { html, useEffect, useLayoutEffect, useRef, useState } from "./vendor/preact.js";
import { Ends, Severity, Status, Time, TONES } from "./parts.js";

const BEYOND = 5, FRESH = 4_000;
/** Narrower than this a row is a card of three lines. */
const CARDS = 780;
const COLUMNS = ["severity", "status", "incident", "type", "resource", "changed"];

export function List({ rows, waiting, active, view, context, onHeld, onMove, onOpen, onSort, onWaiting, emptyText, covered, opened }) {
  const { say } = context, scroller = useRef(), at = useWindow(scroller), cards = at.width < CARDS, rowHeight = cards ? 82 : 34;
  useHeld(scroller, onHeld, opened);
  const place = active === undefined ? -1 : rows.findIndex(({ key }) => key === active);
  useLayoutEffect(() => reveal(scroller.current, place, rowHeight), [active, cards]);
  const from = Math.max(0, Math.floor(at.top / rowHeight) - BEYOND), to = Math.ceil((at.top + at.size) / rowHeight) + BEYOND;
  // A row's elements are used again for the one that comes in where it goes out: making them anew is slow.
  const drawn = rows.slice(from, to), slots = Math.ceil(at.size / rowHeight) + 2 * BEYOND + 2;
  const onKeyDown = (event) => onKey(event, steps(rows.length, Math.max(1, Math.floor(at.size / rowHeight) - 2)), onMove, onOpen);
  const toTop = () => { scroller.current.scrollTop = 0; onWaiting(); };
  return html`<section class=${`list ${cards ? "cards" : ""}`} aria-label=${say("list")} inert=${covered}>
    ${waiting.length > 0 && html`<button type="button" class=${`waiting ${waiting.critical ? "critical" : ""}`} id="waiting" onClick=${toTop}>
      ↑ ${waiting.text}</button>`}
    <div ref=${scroller} id="incidents" class="scroller" role="grid" tabindex="0" aria-label=${say("list")} aria-rowcount=${rows.length + 1}
      aria-activedescendant=${place >= from && place < to ? `row-${place}` : undefined} onKeyDown=${onKeyDown}>
      <div role="rowgroup" class="heads"><div role="row" aria-rowindex="1" class="row">
        ${COLUMNS.map((name) => html`<${Head} name=${name} view=${view} context=${context} onSort=${onSort} />`)}
      </div></div>
      <div role="rowgroup" class="rows" style=${{ height: `${rows.length * rowHeight}px` }}>
        ${drawn.map((row, index) => html`<${Row} key=${(from + index) % slots} row=${row} place=${from + index} top=${(from + index) * rowHeight}
          active=${row.key === active} context=${context} onOpen=${onOpen} />`)}
      </div>
    </div>
    ${rows.length === 0 && html`<p class="empty">${emptyText}</p>`}
  </section>`;
}

/** Which part of the list is to be seen. */
function useWindow(scroller) {
  const [at, setAt] = useState({ top: 0, size: 800, width: CARDS });
  useEffect(() => {
    const of = scroller.current, measure = () => setAt({ top: of.scrollTop, size: of.clientHeight, width: of.clientWidth });
    const observer = new ResizeObserver(measure);
    observer.observe(of);
    of.addEventListener("scroll", measure, { passive: true });
    return () => observer.disconnect();
  }, []);
  return at;
}

const steps = (all, page) => new Map([
  ["ArrowDown", 1], ["j", 1], ["ArrowUp", -1], ["k", -1], ["PageDown", page], ["PageUp", -page], ["Home", -all], ["End", all],
]);

function onKey(event, by, onMove, onOpen) {
  if (event.target !== event.currentTarget || event.ctrlKey || event.metaKey || event.altKey) return;
  if (by.has(event.key)) onMove(by.get(event.key));
  else if (event.key === "Enter" || event.key === " ") onOpen(undefined, true);
  else return;
  event.preventDefault();
}

/** Told whether the rows must stay where they are: somebody points at them, has the focus in them or in the open incident, or has scrolled. */
function useHeld(scroller, onHeld, opened) {
  const pointer = useRef(false);
  const look = () => {
    const of = scroller.current, focused = document.activeElement;
    onHeld(pointer.current || of.scrollTop > 0 || of.contains(focused) || !!focused?.closest("#detail"));
  };
  // A focus that goes with the incident goes without an event.
  useEffect(look, [opened]);
  useEffect(() => {
    const of = scroller.current, later = () => setTimeout(look);
    const enter = ({ pointerType }) => { pointer.current = pointerType !== "touch"; look(); };
    const leave = () => { pointer.current = false; look(); };
    of.addEventListener("pointerenter", enter);
    of.addEventListener("pointerleave", leave);
    of.addEventListener("scroll", look, { passive: true });
    document.addEventListener("focusin", look);
    document.addEventListener("focusout", later);
  }, []);
}

function reveal(scroller, place, rowHeight) {
  if (place < 0) return;
  const heads = scroller.querySelector(".heads").offsetHeight, top = place * rowHeight;
  if (top < scroller.scrollTop) scroller.scrollTop = top;
  const over = top + rowHeight + heads - (scroller.scrollTop + scroller.clientHeight);
  if (over > 0) scroller.scrollTop += over;
}

function Head({ name, view, context, onSort }) {
  const { say, times, now } = context, zone = name === "changed" ? ` (${times.zone(now)})` : "";
  const sorted = view.sort === name, direction = view.reversed ? "descending" : "ascending";
  return html`<div role="columnheader" class=${`cell head ${name}-cell`} aria-sort=${sorted ? direction : "none"}>
    <button type="button" onClick=${() => onSort(name)}>${say(name)}${zone}${sorted && html`<span aria-hidden="true"> ${view.reversed ? "↑" : "↓"}</span>`}</button></div>`;
}

function Row({ row, place, top, active, context, onOpen }) {
  const { say, times, now, acknowledged } = context, done = acknowledged(row);
  return html`<div role="row" id=${`row-${place}`} aria-rowindex=${place + 2} aria-selected=${active ? "true" : "false"}
    class=${`row incident ${TONES[row.rank]} ${row.open ? "open" : "resolved"} ${done ? "acknowledged" : ""} ${active ? "active" : ""} ${now - row.fresh < FRESH ? "fresh" : ""}`}
    style=${{ transform: `translateY(${top}px)` }} onClick=${() => onOpen(row.key)}>
    <div role="gridcell" class="cell severity-cell"><${Severity} row=${row} say=${say} /></div>
    <div role="gridcell" class="cell status-cell">${done && html`<span class="tick" title=${say("acknowledged")}>✓ </span>`}<${Status} row=${row} say=${say} /></div>
    <div role="gridcell" class="cell incident-cell"><${Ends} value=${row.id} tail=${5} /></div>
    <div role="gridcell" class="cell type-cell"><${Ends} value=${row.type} tail=${10} /></div>
    <div role="gridcell" class="cell resource-cell"><${Ends} value=${row.resource} tail=${14} /></div>
    <div role="gridcell" class="cell changed-cell"><${Time} ms=${row.updated} now=${now} times=${times} both=${true} /></div>
  </div>`;
}
