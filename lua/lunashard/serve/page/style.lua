--- How the page looks: one style sheet, light and dark, for wide windows, phones and paper.
-- @module lunashard.serve.page.style

return [[
:root { color-scheme: light dark;
  --ground: #f4f5f7; --surface: #fff; --line: #e3e5ea; --faint: #eef0f3; --text: #1b1f27; --quiet: #5b6473;
  --ok: #1a7f4e; --warn: #96610a; --bad: #c02f3f; --ok-ground: #edf7f1; --warn-ground: #fdf5e3; --bad-ground: #fdeff0;
  --a: #2f6fdb; --b: #7a5bc0; --c: #c2578a; --e: #c02f3f; --wash: .11; }
@media (prefers-color-scheme: dark) { :root {
  --ground: #0f1216; --surface: #171b21; --line: #292f38; --faint: #20252d; --text: #e4e7ec; --quiet: #98a2b1;
  --ok: #52c48a; --warn: #e0aa46; --bad: #f4737f; --ok-ground: #13241c; --warn-ground: #282010; --bad-ground: #2d171b;
  --a: #6ea6ff; --b: #b196f2; --c: #ef8fbc; --e: #f4737f; --wash: .16; } }
* { box-sizing: border-box; margin: 0; }
body { background: var(--ground); color: var(--text); padding: 20px 24px 28px;
  font: 13px/20px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  font-variant-numeric: tabular-nums; -webkit-text-size-adjust: 100%; }
main, body > header, body > footer { max-width: 1240px; margin: 0 auto; }
h1 { font-size: 17px; line-height: 24px; font-weight: 650; letter-spacing: -.005em; overflow-wrap: anywhere; }
h2 { font-size: 13px; font-weight: 620; }
small { font-size: 12px; color: var(--quiet); font-weight: 400; }
.quiet { color: var(--quiet); font-weight: 400; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
a { color: inherit; text-underline-offset: 3px; text-decoration-color: var(--quiet); }
:focus-visible { outline: 2px solid var(--a); outline-offset: 2px; border-radius: 3px; }
body > header { display: flex; flex-wrap: wrap; align-items: baseline; gap: 0 12px; margin-bottom: 12px; }
body > header .live { margin-left: auto; color: var(--quiet); display: flex; align-items: center; gap: 7px; }
.live i { width: 8px; height: 8px; border-radius: 50%; border: 1.5px solid var(--quiet); }
.live.on i { background: var(--ok); border-color: var(--ok); }
.live.off { color: var(--warn); } .live.off i { border-color: var(--warn); border-radius: 0; }

.icon { width: 14px; height: 14px; flex: none; fill: currentColor; }
.icon .cut { fill: none; stroke: var(--surface); stroke-width: 1.8; stroke-linecap: round; stroke-linejoin: round; }
.icon .hollow { fill: none; stroke: currentColor; stroke-width: 2; }
.icon.ok { color: var(--ok); } .icon.warn { color: var(--warn); } .icon.bad { color: var(--bad); }
.icon.idle { color: var(--quiet); } .icon.busy { color: var(--a); }
.state { display: inline-flex; align-items: center; gap: 7px; white-space: nowrap; vertical-align: top; }
.state.warn { color: var(--warn); } .state.bad { color: var(--bad); font-weight: 600; } .state.idle { color: var(--quiet); }
.state small { color: inherit; }

.verdict { display: flex; gap: 11px; align-items: center; padding: 12px 16px; border-radius: 8px; border: 1px solid; }
.verdict p { font-size: 16px; line-height: 24px; font-weight: 600; overflow-wrap: anywhere; }
.verdict .icon { width: 20px; height: 20px; }
.verdict.ok { background: var(--ok-ground); border-color: color-mix(in srgb, var(--ok) 28%, transparent); }
.verdict.warn { background: var(--warn-ground); border-color: color-mix(in srgb, var(--warn) 32%, transparent); }
.verdict.bad { background: var(--bad-ground); border-color: color-mix(in srgb, var(--bad) 36%, transparent); }
.verdict .cut { stroke: var(--ok-ground); } .verdict.warn .cut { stroke: var(--warn-ground); }
.verdict.bad .cut { stroke: var(--bad-ground); }
.alerts { list-style: none; padding: 8px 16px 0; }
.alerts li { display: grid; grid-template-columns: 20px minmax(64px, max-content) 1fr; gap: 0 11px; padding: 3px 0;
  align-items: baseline; }
.alerts .icon { align-self: start; margin: 3px 0 0 3px; } .alerts b { font-weight: 600; } .alerts span { color: var(--quiet);
  overflow-wrap: anywhere; }

main { display: grid; grid-template-columns: repeat(6, minmax(0, 1fr)); gap: 14px; }
.slot { display: contents; } .slot > * { grid-column: 1 / -1; min-width: 0; }
#verdict { display: block; grid-column: 1 / -1; } #alerts > * { margin-top: -8px; }
.panel { background: var(--surface); border: 1px solid var(--line); border-radius: 8px; padding: 11px 16px 12px; }
.panel > h2 { margin-bottom: 6px; }
.panel.chart { grid-column: span 2; }
.panel.half { grid-column: span 3; }
.panel.flush { padding: 11px 0 4px; } .panel.flush > h2 { padding: 0 16px; margin-bottom: 3px; }

.chart dl { display: flex; gap: 0 18px; margin-bottom: 10px; }
.chart dt { color: var(--quiet); font-size: 12px; line-height: 18px; display: flex; align-items: center; gap: 6px; }
.chart dd { font-size: 17px; line-height: 24px; font-weight: 600; letter-spacing: -.01em; white-space: nowrap; }
.key { width: 14px; height: 4px; overflow: visible; }
.frame { position: relative; height: 104px; border-bottom: 1px solid var(--line);
  background: linear-gradient(var(--line), var(--line)) 0 0 / 100% 1px no-repeat,
    linear-gradient(var(--faint), var(--faint)) 0 50% / 100% 1px no-repeat; }
.frame .top { position: absolute; left: 0; top: 2px; font-size: 11px; line-height: 14px; color: var(--quiet);
  background: var(--surface); padding-right: 5px; z-index: 1; }
.plot { position: absolute; inset: 0; width: 100%; height: 100%; overflow: visible; }
.axis { display: flex; justify-content: space-between; font-size: 11px; line-height: 14px; color: var(--quiet);
  padding-top: 4px; }
.line { fill: none; stroke-width: 1.5; vector-effect: non-scaling-stroke; stroke-linejoin: round; stroke-linecap: round; }
.area { opacity: var(--wash); }
.line.a { stroke: var(--a); stroke-width: 1.75; } .area.a { fill: var(--a); }
.line.b { stroke: var(--b); stroke-dasharray: 5 3; stroke-linecap: butt; }
.line.c { stroke: var(--c); stroke-dasharray: 1.5 2.5; stroke-linecap: butt; }
.line.e { stroke: var(--e); stroke-dasharray: 7 2 2 2; stroke-linecap: butt; }

.scroll { overflow-x: auto; position: relative; }
table { border-collapse: collapse; width: 100%; text-align: left; }
th, td { padding: 5px 8px; font-weight: 400; vertical-align: middle; }
th:first-child, td:first-child { padding-left: 16px; } th:last-child, td:last-child { padding-right: 16px; }
thead th { color: var(--quiet); font-size: 12px; line-height: 18px; padding-top: 3px; padding-bottom: 3px;
  white-space: nowrap; }
tbody th { font-weight: 600; }
tbody tr { border-top: 1px solid var(--faint); }
.num { text-align: right; white-space: nowrap; } .wide { width: 60%; } td { overflow-wrap: break-word; }
.events .wide, .code, thead .wide { overflow-wrap: anywhere; white-space: normal; }
.numeric td, .numeric thead th:not(:first-child) { text-align: right; } .numeric th { white-space: nowrap; font-weight: 400; }

.shards tbody { border-top: 1px solid var(--line); } .shards tbody tr { border: 0; }
.shards tbody td, .shards tbody th { padding-top: 3px; padding-bottom: 3px; }
.shards tr.first > * { padding-top: 7px; }
.shards tbody tr:last-child > td, .shards tr.first > [rowspan] { padding-bottom: 7px; }
.shards tbody td, .shards tbody th { vertical-align: top; } .shards tbody th small { display: block; }
.shards tr.more .endpoint, .shards tr.more .role { color: var(--quiet); }
.endpoint { white-space: nowrap; }
.pool { display: inline-flex; align-items: center; gap: 10px; white-space: nowrap; vertical-align: top; }
.pool .of { min-width: 52px; }
.waiting { color: var(--warn); font-weight: 600; }
.bar { display: inline-block; position: relative; width: 88px; height: 6px; border-radius: 3px; background: var(--faint);
  overflow: hidden; }
.bar i { position: absolute; inset: 0 auto 0 0; background: var(--a); border-radius: 3px; }
.bar.warn i { background: var(--warn); }
.traffic { display: inline-flex; align-items: center; gap: 10px; white-space: nowrap; vertical-align: top; }
.traffic > span { min-width: 58px; }
.spark { width: 96px; height: 20px; overflow: visible; border-bottom: 1px solid var(--faint); }
.spark .line.a { stroke-width: 1.25; }
.bars .wide { width: auto; } .bars td:not(.wide) { width: 1%; white-space: nowrap; } .bars th:first-child { width: 1%;
  white-space: nowrap; }
.bar.keys { width: 100%; height: 10px; vertical-align: middle; overflow: visible; }
.bar.keys u { position: absolute; top: -3px; bottom: -3px; width: 2px; margin-left: -1px; background: var(--text); }
.job { padding: 2px 16px 10px; } .job p { display: flex; align-items: center; gap: 12px; }
.job .wrong { color: var(--bad); overflow-wrap: anywhere; } .job p b { min-width: 52px; text-align: right; }
.facts { display: flex; flex-wrap: wrap; gap: 2px 26px; margin: 4px 0 6px; }
.facts dt { color: var(--quiet); font-size: 12px; line-height: 18px; } .facts dd { font-weight: 600; white-space: nowrap; }
.events .when, .events .kind { white-space: nowrap; color: var(--quiet); width: 1%; } .events .sign { width: 1%;
  padding-right: 0; }
.events .icon { display: block; } .events .wide { width: auto; } .events td { vertical-align: top; }
.events .icon { margin-top: 3px; }
.code { font: 12px/20px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  overflow: hidden; display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 2; line-clamp: 2; }
.code + b { font-size: 12px; color: var(--bad); }
.events-box { max-height: 306px; overflow: auto; }
.panel > p.quiet { padding: 0 16px 8px; } .panel .scroll > p.quiet { padding: 2px 16px 8px; }
details { grid-column: 1 / -1; } summary { cursor: pointer; color: var(--quiet); width: max-content; padding: 0 2px; }
details .scroll { margin-top: 10px; } details .panel { padding: 8px 0 4px; }
body > footer { display: flex; flex-wrap: wrap; gap: 2px 18px; color: var(--quiet); font-size: 12px; margin-top: 16px; }
#runtime { display: contents; } body > footer nav { margin-left: auto; display: flex; gap: 14px; }

@media (max-width: 1000px) { .probe { display: none; } .panel.half { grid-column: 1 / -1; } .spark { width: 64px; } }
@media (max-width: 720px) {
  body { padding: 12px 10px 24px; } main { gap: 10px; }
  .panel.chart { grid-column: 1 / -1; padding: 11px 12px; } .frame { height: 84px; }
  .chart { display: grid; grid-template-columns: 1fr auto; align-items: start; }
  .chart > .frame, .chart > .axis { grid-column: 1 / -1; }
  .chart dl { margin-bottom: 6px; } .chart dd { font-size: 15px; line-height: 20px; text-align: right; }
  .chart dt { justify-content: flex-end; }
  .verdict { padding: 11px 12px; align-items: flex-start; } .verdict p { font-size: 15px; line-height: 22px; }
  .alerts { padding: 8px 12px 0; } .job { padding: 2px 12px 10px; }
  .alerts li { grid-template-columns: 20px 1fr; } .alerts li span { grid-column: 2; }
  .failed, .pool .bar, .spark, thead .unseen { display: none; } .pool .of { min-width: 0; }
  th, td { padding-left: 6px; padding-right: 6px; }
  th:first-child, td:first-child { padding-left: 12px; } th:last-child, td:last-child { padding-right: 12px; }
  .panel.flush > h2, .panel > p.quiet, .panel .scroll > p.quiet { padding-left: 12px; padding-right: 12px; }
  .events .kind { display: none; } body > footer nav { margin-left: 0; }
}
@media (max-width: 560px) {
  .minor { display: none; }
  .shards, .shards tbody { display: block; } .shards thead { position: absolute; clip-path: inset(50%); height: 1px;
  overflow: hidden; }
  .shards tbody { padding: 6px 0; }
  .shards tbody tr { display: grid; grid-template-columns: 92px minmax(0, 1fr) auto auto; gap: 0 10px; padding: 3px 12px; }
  .shards tbody tr > * { padding: 0; }
  .shards tr.first > *, .shards tbody tr:last-child > td, .shards tr.first > [rowspan] { padding: 0; }
  .shards tbody th { grid-area: 1 / 1 / 2 / 3; } .shards tbody th small { display: inline; margin-left: 8px; }
  .shards .rate { grid-area: 1 / 3 / 2 / 4; } .shards .p95 { grid-area: 1 / 4 / 2 / 5; min-width: 62px; }
  .traffic > span { min-width: 0; }
  .shards .first .health { grid-row: 2; } .shards .health { grid-column: 1; grid-row: 1; }
  .shards .endpoint { grid-column: 2; } .shards .role { grid-column: 2; font-size: 12px; line-height: 16px;
  color: var(--quiet); }
  .shards .pools { grid-column: 3 / 5; grid-row: 1; text-align: right; }
  .shards .lag { grid-column: 3 / 5; grid-row: 2; font-size: 12px; line-height: 16px; } .shards .lag.none { display: none; }
  .shards .first > .pools, .shards .first > .endpoint { grid-row: 2; }
  .shards .first > .role, .shards .first > .lag { grid-row: 3; }
  .shards .p95::before { content: "p95 "; } .shards .pools::before { content: "pool "; }
  .shards .lag::before { content: "lag "; } .shards td::before {
  font-size: 12px; color: var(--quiet); }
  .shards tbody th { padding-bottom: 2px; }
}
@media (prefers-reduced-motion: no-preference) { .bar i { transition: width .4s; } }
@media (forced-colors: active) { .bar i, .live.on i { forced-color-adjust: none; } }
@media print { body { padding: 0; } .live, footer nav { display: none; } .panel { break-inside: avoid; } }
]]
