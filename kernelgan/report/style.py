"""The report's inline style sheet: no web font, no script, nothing fetched; fits a phone and paper."""

CSS = """
:root { --ink: #1f2933; --soft: #5b6672; --line: #dde2e8; --paper: #ffffff; --wash: #f6f7f9;
  --yes: #00724f; --no: #b34700; --unsure: #5b6672; --accent: #0072b2; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--wash); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1320px; margin: 0 auto; padding: 40px 24px 64px; }
header { margin-bottom: 24px; }
.eyebrow { margin: 0; font-size: .78rem; letter-spacing: .09em; text-transform: uppercase;
  color: var(--soft); }
h1 { margin: .1em 0 .1em; font-size: 2.5rem; line-height: 1.12; letter-spacing: -.02em; text-wrap: balance; }
h2 { margin: 0 0 .5em; font-size: 1.3rem; letter-spacing: -.01em; }
h3 { margin: 1.6em 0 .5em; font-size: 1rem; }
p { margin: .5em 0; max-width: 76ch; }
.meta, .note, figcaption, small { color: var(--soft); }
.meta { margin: 0; }
.note, figcaption { font-size: .875rem; }
section { background: var(--paper); border: 1px solid var(--line); border-radius: 12px; padding: 24px 26px;
  margin: 0 0 20px; }
section section { border: 0; padding: 0; margin: 24px 0 0; }
nav { margin: 0 0 20px; font-size: .9rem; }
nav a { margin-right: 16px; white-space: nowrap; }
a { color: var(--accent); text-underline-offset: 2px; }
.verdict { border-left: 8px solid var(--tone); }
.verdict h2 { font-size: 1.35rem; line-height: 1.35; max-width: 62ch; text-wrap: balance; }
div.verdict { padding: 4px 0 4px 18px; border-left-width: 6px; margin: 12px 0 18px; }
.verdict h3 { margin: 0; font-size: 1.08rem; line-height: 1.4; max-width: 80ch; text-wrap: balance; }
div.verdict ul { font-size: .92rem; }
.verdict ul { margin: .8em 0 0; padding-left: 1.15em; }
.verdict li { margin: .3em 0; max-width: 82ch; }
.badge { display: inline-block; padding: 3px 12px 3px 10px; margin-bottom: 10px; border-radius: 99px;
  background: var(--tone); color: #fff; font-weight: 650; font-size: .9rem; }
.yes { --tone: var(--yes); } .no { --tone: var(--no); } .cannot { --tone: var(--unsure); }
.scroll { overflow-x: auto; margin: 12px 0; -webkit-overflow-scrolling: touch; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: 6px 10px; text-align: right; white-space: nowrap; border-bottom: 1px solid #edf0f3;
  vertical-align: middle; }
th { font-weight: 600; color: var(--soft); font-size: .8rem; }
table.wide { font-size: .83rem; }
table.wide th, table.wide td { padding: 5px; }
table.wide tbody th { font-size: .83rem; } table.wide thead th { font-size: .75rem; }
table.wide tr.kind th { padding-top: 12px; font-size: .72rem; }
table.wide thead th { white-space: normal; }
table.wide td small { display: block; line-height: 1.2; font-size: .69rem; letter-spacing: -.01em; }
thead th { border-bottom: 1.5px solid var(--ink); vertical-align: bottom; }
tbody th, td.text { text-align: left; }
tbody th { color: var(--ink); font-size: .875rem; }
thead th:first-child, thead th.text { text-align: left; }
thead th.group { text-align: center; border-bottom: 1px solid var(--line); }
table.wide td.text, table.wide thead th.text { padding-left: 14px; }
table.named tbody th { white-space: normal; min-width: 190px; }
td.prose { white-space: normal; text-align: left; min-width: 260px; color: var(--soft); }
tr.kind th { padding-top: 14px; font-size: .72rem; letter-spacing: .07em; text-transform: uppercase;
  color: var(--soft); border-bottom: 1px solid var(--line); }
tr.best th, tr.best td { background: #fdf3ea; }
tr.mark th, tr.mark td { background: #eef1f5; font-weight: 700; }
.answer { color: var(--tone); font-weight: 600; }
td small { font-size: .8rem; }
td.divide, th.divide { border-left: 1px solid var(--line); }
td svg { display: block; }
figure { margin: 12px 0 0; }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
figcaption { margin-top: 6px; max-width: 86ch; }
details { margin: 8px 0; }
details.pair { margin: 0; padding: 8px 0; border-bottom: 1px solid var(--line); }
details.pair > div { padding: 4px 0 12px; scroll-margin-top: 40px; }
summary { cursor: pointer; font-weight: 600; }
pre { background: var(--wash); border: 1px solid var(--line); border-radius: 8px; padding: 12px 14px;
  font-size: .8rem; line-height: 1.5; white-space: pre-wrap; overflow-wrap: anywhere; }
code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: .9em;
  overflow-wrap: anywhere; }
.counts { width: auto; }
footer { color: var(--soft); font-size: .85rem; }
@media (max-width: 640px) {
  main { padding: 20px 10px 40px; } h1 { font-size: 1.9rem; }
  section { padding: 18px 14px; border-radius: 8px; }
  .scroll > img { max-width: none; width: 700px; }
  table.wide tbody th { position: sticky; left: 0; background: var(--paper); }
  table.wide tr.best th { background: #fdf3ea; }
}
@media print {
  body { background: #fff; font-size: 11pt; } main { max-width: none; padding: 0; }
  nav { display: none; } section { border: 0; border-radius: 0; padding: 0; margin-bottom: 22pt; }
  .verdict { padding-left: 14pt; border-left: 6pt solid var(--tone); }
  figure, tr, .verdict { break-inside: avoid; } h2, h3 { break-after: avoid; }
  .scroll { overflow: visible; } table, tbody th, thead th { font-size: 7.6pt; } th, td { padding: 2pt 4pt; }
  table.wide { font-size: 6.6pt; } table.wide th, table.wide td { padding: 1.5pt 2.5pt; }
  table.wide thead th, table.wide tbody th { font-size: 6.2pt; } table.wide td small { font-size: 5.6pt; }
  table.wide td svg { display: none; }
  * { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
}
"""
