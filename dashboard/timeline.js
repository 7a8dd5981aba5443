// The last hour as bars, drawn by uPlot; what it shows is also said in words.

import { html, useEffect, useRef } from "./vendor/preact.js";
import { BANDS, stacked } from "./hour.js";
import { TONES } from "./parts.js";

const HEIGHT = 84;

export function Timeline({ hour, theme, context }) {
  const { say, times, utc } = context, host = useRef(), plot = useRef(), sums = stacked(hour.bands);
  const total = (band) => hour.bands[band].reduce((a, b) => a + b, 0);
  const hint = say("timelineHint", { critical: total(0), high: total(1), medium: total(2), low: total(3), rest: total(4) });
  useEffect(() => {
    plot.current = draw(host.current, times, utc);
    const observer = new ResizeObserver(() => plot.current.setSize({ width: host.current.clientWidth, height: HEIGHT }));
    observer.observe(host.current);
    return () => { observer.disconnect(); plot.current.destroy(); };
  }, [theme, times]);
  useEffect(() => plot.current.setData([hour.minutes, ...sums.reverse()]), [hour, theme, times]);
  return html`<figure id="timeline" class="timeline"><figcaption>${say("timeline")}</figcaption>
    <div ref=${host} role="img" aria-label=${hint}></div></figure>`;
}

function draw(host, times, utc) {
  const axis = { stroke: colour(host, "dim"), grid: { show: false }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
  const bars = uPlot.paths.bars({ size: [0.8, 14], align: 1 });
  const band = (at) => ({ paths: bars, points: { show: false }, width: 0, fill: colour(host, TONES[at] === "info" ? "other" : TONES[at]) });
  return new uPlot({
    width: host.clientWidth || 300, height: HEIGHT, padding: [6, 18, 0, 0], cursor: { show: false }, legend: { show: false }, select: { show: false },
    tzDate: utc ? (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC") : undefined,
    // A minute's bar begins at its minute: the last one needs room.
    scales: { x: { range: (_, low, high) => [low, high + 60] }, y: { range: (_, low, high) => [0, Math.max(5, high)] } },
    axes: [
      { ...axis, size: 20, values: (_, splits) => splits.map((each) => times.short(each * 1000, each * 1000).slice(0, 5)) },
      { ...axis, size: 26, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000] },
    ],
    series: [{}, ...Array.from({ length: BANDS }, (_, at) => band(BANDS - 1 - at))],
  }, [[], ...Array.from({ length: BANDS }, () => [])], host);
}

/** A colour as a canvas takes it: light-dark() is for style sheets alone. */
function colour(host, name) {
  const probe = document.createElement("i");
  probe.className = `probe ${name}`;
  host.append(probe);
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
}
