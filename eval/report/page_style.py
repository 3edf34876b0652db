"""The style sheet of the report: light and dark, wide and narrow; it loads nothing."""

NUM_COLORS = 6  # of models; the seventh has the first one's again

STYLE = """
:root { color-scheme: light dark; --paper: #fbfcfd; --card: #fff; --ink: #1a2230; --soft: #5d6878; --line: #dfe4ea;
  --track: #eef1f5; --mark: #b3402f; --m0: #2f6fb2; --m1: #c4701f; --m2: #2f8a5b; --m3: #8754a8; --m4: #b23f63; --m5:
  #5f7282 }
@media (prefers-color-scheme: dark) {
  :root { --paper: #12161c; --card: #191f27; --ink: #e3e8ee; --soft: #98a4b3; --line: #2d3640; --track: #232b35;
    --mark: #f0806d; --m0: #6aa7e6; --m1: #e59a52; --m2: #5fbf8d; --m3: #bb8fdb; --m4: #e67f9f; --m5: #97abbb }
}
* { box-sizing: border-box }
body { font: 15px/1.55 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto 4rem; padding: 0 1rem; color:
  var(--ink); background: var(--paper) }
h1 { font-size: 1.7rem; line-height: 1.25; margin-bottom: .2rem }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .6rem }
h3 { font-size: 1rem; margin: 0 0 .6rem }
h4 { font-size: .9rem; font-weight: 500; margin: 1rem 0 .35rem; color: var(--soft) }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem }
nav a { color: var(--m0); text-decoration: none; white-space: nowrap }
nav a:hover { text-decoration: underline }
.note, .notes { color: var(--soft); font-size: .9rem }
.notes { padding-left: 1.1rem; margin: .5rem 0 }
.mark { color: var(--mark); line-height: 0 }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 1rem 1.2rem; margin:
  .8rem 0 }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font-size: .9rem; min-width: 100% }
th, td { text-align: left; padding: .4rem .7rem .4rem 0; border-bottom: 1px solid var(--line); vertical-align: top }
th { font-weight: 600; white-space: nowrap }
tr:last-child td { border-bottom: 0 }
td.n { white-space: nowrap }
.n { font-variant-numeric: tabular-nums }
.n b { font-weight: 600 }
.n small { color: var(--soft); font-size: .85em }
code, pre { font-size: .82rem; background: var(--track); border-radius: 3px; overflow-wrap: anywhere }
code { padding: 0 .25em }
pre { padding: .7rem; white-space: pre-wrap; margin: .3rem 0 }
audio { height: 30px; width: 210px }
.scroll + .scroll { margin-top: 1.2rem }
details { margin: .5rem 0 }
summary { cursor: pointer; padding: .25rem 0 }
summary:hover { color: var(--m0) }
.key { display: inline-block; width: .75em; height: .75em; border-radius: 2px; margin-right: .4em }
.row { display: grid; grid-template-columns: 11rem 1fr 10rem; gap: .7rem; align-items: center; margin: 3px 0 }
.row > :first-child { overflow-wrap: anywhere; font-size: .9rem }
.row > :last-child { font-size: .85rem }
.track { position: relative; height: 18px; background: var(--track); border-radius: 3px }
.track i { position: absolute; top: 0; bottom: 0 }
.fill { border-radius: 3px; opacity: .82 }
.range { height: 2px; margin: auto 0; background: var(--ink); min-width: 2px }
.range::before, .range::after { content: ""; position: absolute; width: 2px; height: 8px; top: -3px; background:
  var(--ink) }
.range::before { left: 0 }
.range::after { right: 0 }
.chance { border-left: 1.5px dashed var(--mark) }
.ref { border-left: 1px solid var(--soft) }
.track .ref, .track .chance { bottom: -3px }
.axis { position: relative; height: 1.1rem; font-size: .72rem; color: var(--soft) }
.axis span { position: absolute; white-space: nowrap }
.ladder { position: relative }
.ladder i { position: absolute; top: 0; border-left: 1px solid var(--soft); opacity: .55 }
.ladder span { position: absolute; font-size: .72rem; line-height: 1.05rem; color: var(--soft); white-space: nowrap;
  padding: 0 5px }
.heat { overflow: auto; max-height: 80vh }
.heat text { font-size: 11px; fill: currentColor }
.heat .count { font-size: 10px }
.share { width: 22%; background: linear-gradient(90deg, color-mix(in srgb, var(--c) 26%, transparent) var(--v), transparent
  var(--v)) }
@media (max-width: 640px) {
  body { margin-top: 1rem }
  .card { padding: .8rem }
  .row { grid-template-columns: 1fr auto; gap: 0 .6rem }
  .row .track, .row .axis, .row .ladder { grid-column: 1 / -1; grid-row: 2 }
  .row { margin: .5rem 0 }
}
"""
