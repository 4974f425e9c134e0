"""The report of a run: which sections there are, and what is in each."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Sequence
from pathlib import Path

from kernelgan.files import write_atomically
from kernelgan.report import contents, page, prose
from kernelgan.report.figures import OF_PAIR, OF_RUN
from kernelgan.report.page import Block, Box, Fold, Gallery, Section, Text
from kernelgan.results import Pair, Row, Run, read_results

REPORT_FILE = "report.html"
FIGURES_FOLDER = "figures"
MANY_PAIRS = 12
"""With more pairs than these, only two figures of each are drawn: all take seconds a pair."""

_FOOTER = (
    "Written by kernelgan from results.json and arrays.npz. Every mean is over all networks of a method "
    "(where clustered: the first), never the best. Brackets are 95% intervals."
)


def write_report(workdir: str | Path) -> Path:
    """Writes `report.html` and `figures/*.png` from the run's `results.json` and `arrays.npz`.

    Returns:
      The path of the page.

    Raises:
      UserError: there are no results, or they are damaged.
    """
    workdir = Path(workdir)
    run = read_results(workdir)
    sections = run_sections(run, Gallery(workdir / FIGURES_FOLDER))
    title = run.pairs[0].title if len(run.pairs) == 1 else f"{len(run.pairs)} concept pairs"
    name = run.name and f"run {run.name}"
    commit = run.commit and f"commit {run.commit[:10]}"
    facts = (name, f"seed {run.seed}", run.date[:10], commit, run.device)
    text = page.render(title, sections, facts=facts, footer=_FOOTER)
    return write_atomically(workdir / REPORT_FILE, text.encode())


def run_sections(run: Run, gallery: Gallery) -> list[Section]:
    """The sections of a run's report, its figures drawn."""
    alone = len(run.pairs) == 1
    answer = Box(prose.MARKS[run.verdict.answer], prose.tone(run.verdict), prose.summary(run))
    body = _one_pair(run, gallery) if alone else _several(run, gallery)
    words = [
        Text(words) for words in (f"Source: {run.data.source}", *run.data.notes, run.data.parents) if words
    ]
    table = contents.images(run.pairs[0].data) if alone else None
    data = [*words, table, _of_run(run, gallery, "contact_sheet")]
    return [
        Section("", [answer]),
        *body,
        Section("Data", _present(data)),
        Section("How it was made", how_it_was_made(run)),
        *([_appendix(run, run.pairs[0], gallery)] if alone else []),
    ]


def _one_pair(run: Run, gallery: Gallery) -> list[Section]:
    pair = run.pairs[0]
    draw = functools.partial(_of_pair, run, pair, gallery)
    described = _described(list(pair.methods.values()))
    sections: dict[str, list[Block | None]] = {
        "Methods, side by side": [contents.methods(pair), *draw("distributions"), described],
        "What each generator did to the kernels": [*draw("kernels"), contents.kernels(run, pair)],
        "Answers on test images": [*draw("answers")],
        "Quadrant by quadrant": [*draw("quadrants")],
        "Do the parents matter?": [contents.placebos(pair)],
        "Novelty": [*draw("novelty")],
        "Tests": _tests(pair),
    }
    return [Section(title, _present(blocks)) for title, blocks in sections.items() if _present(blocks)]


def _appendix(run: Run, pair: Pair, gallery: Gallery) -> Section:
    """What few readers need, folded away."""
    draw = functools.partial(_of_pair, run, pair, gallery)
    folds = (
        _fold("Training of the parents and generators", *draw("zoo_curves"), *draw("generator_curves")),
        _fold("The parents on their own concepts", contents.zoos(pair)),
        _fold("Features: cosine similarity and novelty", *draw("cosine"), contents.features(pair)),
        _fold("Clusterings of the features", *draw("embeddings"), contents.clustering(pair)),
    )
    return Section("Appendix", _present(folds))


def _several(run: Run, gallery: Gallery) -> list[Section]:
    """All pairs together, then each."""
    draw = functools.partial(_of_run, run, gallery)
    sections = []
    if run.overall:
        rows = {row.name: row for pair in reversed(run.pairs) for row in pair.methods.values()}
        board: list[Block | None] = [
            draw("leaderboard"),
            contents.leaderboard(run.overall),
            _fold("Tests over all pairs", contents.tests(run.overall), contents.placebos(run.overall)),
            _described([rows[name] for name in run.overall.methods if name in rows]),
        ]
        sections += [
            Section("Leaderboard", _present(board)),
            Section("Utility and novelty", [draw("novelty_overall")]),
        ]
    skipped = [Text(f"{each.attribute} {each.object}: {each.reason}", "note") for each in run.skipped]
    table = [contents.pairs(run.pairs), _fold(f"Pairs skipped: {len(skipped)}", *skipped)]
    note = Text(contents.methods_note(run.pairs[0]), "note")  # said once for all pairs
    return [
        *sections,
        Section("Every attribute with every object", [draw("matrix"), draw("matrix_differences")]),
        Section("The pairs", _present(table)),
        Section("Pair by pair", [note, *(_compact(run, pair, gallery) for pair in run.pairs)]),
    ]


def _compact(run: Run, pair: Pair, gallery: Gallery) -> Fold:
    """One pair of several, folded away."""
    badge, tone = prose.MARKS[pair.verdict.answer], prose.tone(pair.verdict)
    said_once = prose.general(pair)
    draw = functools.partial(_of_pair, run, pair, gallery)
    figures = [*draw("distributions"), *draw("novelty")]
    if len(run.pairs) <= MANY_PAIRS:
        others = [name for name in OF_PAIR if name not in ("distributions", "novelty")]
        figures += [block for name in others for block in draw(name, embed=False)]
    blocks: list[Block | None] = [
        Box(badge, tone, [line for line in prose.verdict(pair) if line not in said_once], compact=True),
        contents.methods(pair, brief=True),
        _fold("Tests between methods", *_tests(pair)),
        _fold("The parents, features, novelty", contents.zoos(pair), contents.features(pair)),
        _fold("Clustering", contents.clustering(pair, brief=True)),
        _fold("Images", contents.images(pair.data)),
        _fold("Figures", *figures),
    ]
    return Fold(pair.title, _present(blocks), ident=pair.key, badge=badge, tone=tone)


def _of_pair(run: Run, pair: Pair, gallery: Gallery, name: str, embed: bool = True) -> list[Block]:
    """A figure of a pair, once for each of its parts."""
    figure = OF_PAIR[name]
    parts = figure.parts(run, pair) if figure.parts else [""]
    if not parts:
        return [Text(f"Figure left out: arrays.npz has nothing for {name}.", "note")]
    blocks: list[Block] = []
    for part in parts:
        draw = functools.partial(figure.draw, run, pair, *([part] if part else []))
        file = "_".join(word for word in (pair.key, name, part) if word)
        blocks.append(gallery.draw(file, draw, figure.caption.replace("{part}", part), embed))
    return blocks


def _of_run(run: Run, gallery: Gallery, name: str) -> Block:
    """A figure of all pairs, or of the run."""
    return gallery.draw(name, functools.partial(OF_RUN[name].draw, run), OF_RUN[name].caption)


def _tests(pair: Pair) -> list[Block | None]:
    none = Text("No matched null test was run, so no claim is made against chance.")
    return [contents.tests(pair), contents.null_test(pair) or none]


def _described(rows: Sequence[Row]) -> Fold | None:
    return _fold("What each method is", contents.descriptions(rows))


def _fold(title: str, *blocks: Block | None) -> Fold | None:
    """Blocks folded away; None where there is none."""
    present = _present(blocks)
    return Fold(title, present) if present else None


def _present(blocks: Sequence[Block | None]) -> list[Block]:
    return [block for block in blocks if block is not None]


def how_it_was_made(run: Run) -> list[Block]:
    """Command, timings, device, versions and config of a run."""
    state = {True: "clean", False: "with changes that are not committed", None: "state unknown"}[run.clean]
    seconds = {stage: time for stage, time in run.timings.items() if math.isfinite(time)}
    stages = ", ".join(f"{stage} {time:.1f} s" for stage, time in seconds.items())
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    return [
        Text(run.command, "code"),
        Text(f"Time: {sum(seconds.values()):.1f} s together: {stages}."),
        Text(f"Device: {run.device}. Versions: {versions}."),
        *_present([contents.making(list(run.pairs[0].methods.values()), run.timings)]),
        *([Text(f"Written: {run.date}.")] if run.date else []),
        *([Text(f"Commit: {run.commit} ({state}).")] if run.commit else []),
        Fold("Config", [Text(json.dumps(run.config, indent=2, ensure_ascii=False), "code")]),
    ]
