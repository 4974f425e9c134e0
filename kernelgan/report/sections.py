"""The report of a run: which sections there are, and what is in each."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path

from kernelgan.files import write_atomically
from kernelgan.report import contents, page, prose
from kernelgan.report.figures import FIGURES, Entry
from kernelgan.report.page import Block, Box, Code, Fold, Gallery, Items, Links, Picture, Section, Text
from kernelgan.results import Pair, Row, Run, Skipped, read_results

REPORT_FILE = "report.html"
FIGURES_FOLDER = "figures"
MANY_PAIRS = 12
"""With more pairs than these, only the first figures of each are drawn: all take seconds a pair."""

_FOOTER = (
    "Written by kernelgan from results.json and arrays.npz. Every mean is over all networks of a method "
    "(where clustered: the first), never the best. Brackets are 95% intervals."
)


def write_report(workdir: str | Path) -> Path:
    """Writes `report.html` and `figures/*.png` from the run's `results.json` and `arrays.npz`.

    Args:
      workdir: the run's directory.

    Returns:
      The path of the page.

    Raises:
      UserError: there are no results, or they are damaged.
    """
    workdir = Path(workdir)
    run = read_results(workdir)
    sections = run_sections(run, Gallery(workdir / FIGURES_FOLDER))
    title = run.pairs[0].title if len(run.pairs) == 1 else f"{len(run.pairs)} concept pairs"
    seed = "" if run.seed is None else f"seed {run.seed}"
    facts = (f"run {run.name}" if run.name else "", seed, run.device)
    text = page.render(title, sections, facts=facts, footer=_FOOTER)
    return write_atomically(workdir / REPORT_FILE, text.encode())


def run_sections(run: Run, gallery: Gallery) -> list[Section]:
    """The sections of a run's report, its figures drawn."""
    answer = run.verdict.answer
    verdict = Section("", [Box(prose.MARKS[answer], answer.split()[0], prose.summary(run))])
    body = _one_pair(run, gallery) if len(run.pairs) == 1 else _several(run, gallery)
    return [verdict, *body, _data(run, gallery), how_it_was_made(run)]


def _one_pair(run: Run, gallery: Gallery) -> list[Section]:
    """Every section of a run of one pair: its tables, under the figures that name the section."""
    pair = run.pairs[0]
    tables: dict[str, list[Block | None]] = {
        "Methods, side by side": [contents.methods(pair), _described(list(pair.methods.values()))],
        "Against the null and every other method": [contents.tests(pair), *_null(pair)],
        "Utility and novelty": [],
        "Answers on test images": [],
        "Kernels of parents and generated networks": [],
        "Training": [contents.zoos(pair)],
        "Feature space": [contents.features(pair), contents.clustering(pair)],
    }
    for entry in _entries("pair").values():
        tables.setdefault(entry.section, [])
    drawn = {
        section: [
            block
            for name, entry in _entries("pair").items()
            if entry.section == section
            for block in _drawn(run, pair, gallery, name, entry)
        ]
        for section in tables
    }
    return [Section(title, [*drawn[title], *_present(blocks)]) for title, blocks in tables.items()]


def _several(run: Run, gallery: Gallery) -> list[Section]:
    """The sections of a run of several pairs: all together, then each."""
    tables: dict[str, list[Block | None]] = {}
    if run.overall:
        rows = {row.name: row for pair in reversed(run.pairs) for row in pair.methods.values()}
        tables["Leaderboard"] = [
            contents.leaderboard(run.overall),
            _fold("Tests over all pairs", contents.tests(run.overall)),
            _described([rows[name] for name in run.overall.methods if name in rows]),
        ]
    sections = []
    drawn = {name: entry for name, entry in _entries("pairs").items() if run.overall or "matrix" in name}
    for title in dict.fromkeys([*tables, *(entry.section for entry in drawn.values())]):
        blocks: list[Block | None] = [
            _picture(run, gallery, name, entry) for name, entry in drawn.items() if entry.section == title
        ]
        sections.append(Section(title, _present([*blocks, *tables.get(title, [])])))
    sections.append(Section("The pairs", _present([contents.pairs(run.pairs), _skipped(run.skipped)])))
    explained = Text(contents.methods_note(run.pairs[0], bars=False), note=True)  # said once for all pairs
    return [
        *sections,
        Section("Pair by pair", [explained, *(_compact(run, pair, gallery) for pair in run.pairs)]),
    ]


def _compact(run: Run, pair: Pair, gallery: Gallery) -> Fold:
    """One pair of several, folded away."""
    answer = pair.verdict.answer
    badge, tone = prose.MARKS[answer], answer.split()[0]
    return Fold(
        pair.title,
        _present(
            [
                Box(badge, tone, prose.brief(pair), compact=True),
                contents.methods(pair, bars=False),
                _fold("Tests between methods", contents.tests(pair)),
                _fold("Against random networks", *_null(pair)),
                _fold("The parents, features, novelty", contents.zoos(pair), contents.features(pair)),
                _fold("Clustering", contents.clustering(pair, brief=True)),
                _fold("Images", *_images(pair)),
                _fold("Figures", *_compact_figures(run, pair, gallery)),
            ]
        ),
        ident=pair.key,
        badge=badge,
        tone=tone,
    )


def _compact_figures(run: Run, pair: Pair, gallery: Gallery) -> list[Block]:
    """The first figures of one pair of several; further figures are files, or of many pairs not drawn."""
    few, blocks, links = len(run.pairs) <= MANY_PAIRS, [], []
    for name, entry in _entries("pair").items():
        if entry.rank == 0 or few:
            for block in _drawn(run, pair, gallery, name, entry):
                if entry.rank < 2:
                    blocks.append(block)
                elif isinstance(block, Picture):
                    links.append((block.href.rpartition(f"{pair.key}_")[2].removesuffix(".png"), block.href))
    if links:
        blocks.append(Links("As files:", links))
    if not few:
        names = {"attributes": pair.pair.attribute, "objects": pair.pair.object}
        flags = " ".join(f'--config.pairs.{field}="{(name,)}"' for field, name in names.items())
        blocks.append(
            Text(
                f"Answers, kernels, training and feature space are drawn of at most {MANY_PAIRS} pairs: for "
                f"them give the run's command with {flags} and another --workdir, which trains this pair "
                f"alone.",
                note=True,
            )
        )
    return blocks


def _entries(of: str) -> dict[str, Entry]:
    return {name: entry for name, entry in FIGURES.items() if entry.of == of}


def _drawn(run: Run, pair: Pair, gallery: Gallery, name: str, entry: Entry) -> list[Block]:
    """A figure of a pair, once for each of its parts."""
    parts = entry.parts(run, pair) if entry.parts else [""]
    if entry.needs and not run.arrays_under(pair, entry.needs):
        return [Text(f"Figure left out: arrays.npz has no {entry.needs}.", note=True)]
    words = {"attribute": pair.pair.attribute, "object": pair.pair.object}
    found: list[Block] = []
    for part in parts:
        given = (run, pair, part) if entry.parts else (run, pair)
        file = "_".join(one for one in (pair.key, name, part) if one)
        caption = _filled(entry.caption, {**words, "part": part})
        found.append(gallery.draw(file, functools.partial(entry.draw, *given), caption))
    return found


def _picture(run: Run, gallery: Gallery, name: str, entry: Entry) -> Block:
    """A figure of all pairs, or of the run."""
    best = run.overall.verdict.best if run.overall else ""
    whose = (
        f"{best}, the generated method that is best over all pairs,"
        if best
        else "Each pair's best generated method (picked on that pair's test images, which flatters it)"
    )
    found = gallery.draw(name, functools.partial(entry.draw, run), _filled(entry.caption, {"best": whose}))
    if entry.rank == 2 and isinstance(found, Picture):
        return Links(found.caption, [(found.href, found.href)])
    return found


def _filled(caption: str, words: dict[str, str]) -> str:
    for name, word in words.items():
        caption = caption.replace(f"{{{name}}}", word)
    return caption


def _null(pair: Pair) -> list[Block | None]:
    return [Text(contents.null_words(pair)), contents.null_test(pair)]


def _images(record: Pair) -> list[Block | None]:
    leakage = contents.leakage_words(record.data)
    return [contents.counts(record.data), Text(leakage) if leakage else None]


def _described(rows: Sequence[Row]) -> Fold | None:
    return _fold("What each method is", contents.descriptions(rows))


def _fold(title: str, *blocks: Block | None) -> Fold | None:
    """Blocks folded away; None where there is none."""
    present = _present(blocks)
    return Fold(title, present) if present else None


def _present(blocks: Sequence[Block | None]) -> list[Block]:
    return [one for one in blocks if one is not None]


def _skipped(skipped: Sequence[Skipped], fold: int = 5) -> Fold | None:
    """The pairs that were not run and why, folded away where they are more than `fold`."""
    if not skipped:
        return None
    title = "1 pair was skipped" if len(skipped) == 1 else f"{len(skipped)} pairs were skipped"
    lines = [f"{one.attribute} {one.object}: {one.reason}" for one in skipped]
    return Fold(title, [Items(lines)], open=len(skipped) <= fold)


def _data(run: Run, gallery: Gallery) -> Section:
    blocks: list[Block | None] = [Text(f"Source: {run.data.source}")] if run.data.source else []
    blocks += _images(run.pairs[0]) if len(run.pairs) == 1 else []
    blocks += [Items(run.data.notes)] if run.data.notes else []
    blocks += [_picture(run, gallery, name, entry) for name, entry in _entries("run").items()]
    return Section("Data", _present(blocks))


def how_it_was_made(run: Run) -> Section:
    """Command, timings, device, versions and config of a run."""
    blocks: list[Block | None] = [Code(run.command)] if run.command else []
    blocks.append(contents.timings(run))
    blocks += [Text(f"Device: {run.device}")] if run.device else []
    blocks.append(_fold("Versions", contents.versions(run)))
    if run.config:
        blocks.append(Fold("Config", [Code(json.dumps(run.config, indent=2, ensure_ascii=False))]))
    return Section("How it was made", _present(blocks))
