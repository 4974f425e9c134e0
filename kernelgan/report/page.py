"""`report.html`: one self-contained page, and its figures as PNG files, from a run's saved results only."""

from __future__ import annotations

import base64
import functools
import json
import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kernelgan import results as results_lib
from kernelgan.report import figures, tables, terminal
from kernelgan.report.style import CSS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REPORT_FILE = "report.html"
FIGURES_FOLDER = "figures"
PAGE_BYTES = 3_900_000
"""Most bytes of the page, under the 4 MB that mail puts up with.

Figures beyond it are only written as files, which the page links to; the figures of pairs first.
"""

MATRIX_METHODS = ("random", "distilled", "and_ensemble", "trained_on_conjunction")
"""The methods whose matrix of pairs is in the page, with the best generated one and the best merge."""

_NOVELTY = (
    "How well a network does (up) against how far it is from the nearest parent (right; 1 is as far as a "
    "parent is from its nearest fellow). Faint: one mark a {}; large: the mean with its 95% intervals. "
    "In the shaded band a network is a copy of a parent."
)
_MANY_PAIRS = 12
"""With more pairs than these, only the first two figures of each are drawn: all take seconds a pair."""
_SAID_ONCE = ("Asked: ", *results_lib.MERIT_EXPLAINED.values())
"""How lines of a verdict begin that are not repeated for each of many pairs."""

_log = logging.getLogger(__name__)


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
    results = results_lib.read_results(workdir)
    gallery = _Gallery(workdir / FIGURES_FOLDER)
    page = gallery.filled(_page(results, gallery))
    return results_lib.write_atomically(workdir / REPORT_FILE, page.encode())


def show(workdir: Path) -> Path:
    """Prints a finished run's table and says where its report is, which is written if it is not there."""
    print(terminal.table(results_lib.read_results(workdir)), flush=True)
    path = workdir / REPORT_FILE
    if not path.exists():
        path = write_report(workdir)
    print(f"\nreport: {path}")
    return path


class _Gallery:
    """Draws figures, writes each to its folder and gives the HTML that embeds it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.figures: dict[str, tuple[str, str]] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def show(self, name: str, draw: Callable[[], Figure], caption: str, embed: bool = True) -> str:
        """A mark that `filled` replaces by the figure; a line of text where the run left not what it takes.

        Args:
          name: of the file, without a suffix.
          draw: makes the figure.
          caption: plain text.
          embed: False writes the file and links to it.
        """
        try:
            image = figures.png(draw)
        except figures.MissingError as missing:
            return f'<p class="note">Figure left out: {escape(str(missing.args[0]))}.</p>'
        except (ValueError, TypeError, IndexError, KeyError) as error:
            # Arrays of an unexpected shape must not cost the reader the rest of the report.
            _log.warning("Figure %s could not be drawn: %s", name, error)
            return f'<p class="note">Figure left out, it could not be drawn: {escape(str(error))}.</p>'
        path = self.folder / f"{re.sub(r'[^A-Za-z0-9_-]+', '_', name)}.png"
        results_lib.write_atomically(path, image)
        where = f"{self.folder.name}/{path.name}"
        link = f'<p class="note">Figure: <a href="{where}">{where}</a></p>'
        if not embed:
            return link
        code = base64.b64encode(image).decode()
        alternative, text = escape(caption, quote=True), escape(caption)
        mark = f"\0{len(self.figures)}\0"
        self.figures[mark] = (
            link,
            f'<figure><div class="scroll"><img alt="{alternative}" src="data:image/png;base64,{code}"></div>'
            f"<figcaption>{text}</figcaption></figure>",
        )
        return mark

    def filled(self, page: str) -> str:
        """The page with its figures, in the order they were drawn, as long as it stays under `PAGE_BYTES`."""
        size = len(page.encode()) + sum(len(link.encode()) for link, _ in self.figures.values())
        chosen = {}
        for mark, (link, figure) in self.figures.items():
            more = len(figure.encode()) - len(link.encode())
            fits = size + more <= PAGE_BYTES
            size += more if fits else 0
            chosen[mark] = figure if fits else link
        return re.sub("\0[0-9]+\0", lambda found: chosen[found[0]], page)


def _page(results: results_lib.Results, gallery: _Gallery) -> str:
    document = results.document
    pairs = results.pairs()
    title = results_lib.pair_title(pairs[0]) if len(pairs) == 1 else f"{len(pairs)} concept pairs"
    if len(pairs) == 1:
        body = [
            _verdict(results_lib.verdict(pairs[0]), results_lib.answer(pairs[0])),
            *_full_pair(results, pairs[0], gallery),
        ]
    else:
        body = _several(results, gallery)
    body.append(_data(results, gallery))
    body.append(_run(document))
    footer = "Every mean is over all networks of a method (where clustered: the first), never the best one."
    facts = [
        f"run {document['name']}" if document.get("name") else "",
        f"seed {document['seed']}" if document.get("seed") is not None else "",
        str(document.get("device") or ""),
    ]
    meta = escape(" · ".join(fact for fact in facts if fact))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)} · kernelgan</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n"
        f'<header><p class="eyebrow">kernelgan report</p><h1>{escape(title)}</h1><p class="meta">{meta}</p>'
        "</header>\n"
        + "\n".join(body)
        + "\n<footer><p>Written by kernelgan from results.json and arrays.npz. "
        f"{footer} Brackets are 95% intervals.</p></footer>\n</main>\n</body>\n</html>\n"
    )


def _section(heading: str, *content: str, anchor: str = "") -> str:
    mark = f' id="{escape(anchor, quote=True)}"' if anchor else ""
    return (
        f"<section{mark}>\n<h2>{escape(heading)}</h2>\n"
        + "\n".join(part for part in content if part)
        + "\n</section>"
    )


def _verdict(lines: Sequence[str], given: str, compact: bool = False) -> str:
    """The answer and what it rests on, in a box of its own."""
    # A p-value is not to be torn apart at the end of a line.
    unbroken = (re.sub(r"\bp ([=<]) ", "p\N{NO-BREAK SPACE}\\1\N{NO-BREAK SPACE}", line) for line in lines)
    first, *rest = (escape(line) for line in unbroken)
    listed = "".join(f"<li>{line}</li>" for line in rest)
    frame, heading = ("div", "h3") if compact else ("section", "h2")
    return (
        f'<{frame} class="verdict {given.split()[0]}"><span class="badge">{tables.ANSWERS[given]}</span>'
        f"<{heading}>{first}</{heading}><ul>{listed}</ul></{frame}>"
    )


def _full_pair(results: results_lib.Results, pair: Mapping[str, Any], gallery: _Gallery) -> list[str]:
    """Every section of a run of one pair."""
    key = results_lib.pair_key(pair)
    draw = functools.partial(_draw, results, pair, gallery, key)
    attribute, thing = pair["pair"]["attribute"], pair["pair"]["object"]
    layers = figures.kernel_layers(results, pair)
    return [
        _section("Methods, side by side", tables.methods(pair), tables.descriptions(pair)),
        _section(
            "Against the null and every other method",
            _distribution(results, pair, gallery),
            tables.tests(pair),
            tables.null_test(pair),
        ),
        _section("Utility and novelty", draw("novelty", figures.novelty, _NOVELTY.format("network"))),
        _section("Answers on test images", _answers(results, pair, gallery)),
        _section(
            "Kernels before and after translation",
            *(
                draw(
                    f"kernels_{layer}",
                    functools.partial(figures.kernels, layer=layer),
                    f"{layer}: the first networks, not chosen. a2b translates kernels of the {attribute} zoo "
                    f"into the {thing} domain, b2a the reverse. One column a filter; three input channels "
                    "are shown as red, green and blue (grey is zero), otherwise one row an input channel. "
                    "Each panel has its own scale.",
                )
                for layer in layers
            ),
            "" if layers else '<p class="note">Figure left out: arrays.npz has no kernels.</p>',
        ),
        _section(
            "Training",
            tables.zoos(pair),
            draw(
                "zoo_curves",
                figures.zoo_curves,
                "The parents' zoos: median network and middle 80%, by epoch.",
            ),
            draw(
                "cyclegan_curves",
                figures.cyclegan_curves,
                "The translators' losses by step, one panel a layer.",
            ),
        ),
        _section(
            "Feature space",
            tables.features(pair),
            draw(
                "cosine",
                figures.cosine,
                "Mean cosine similarity of the features of images in one quadrant with those in another.",
            ),
            draw(
                "embeddings",
                figures.embeddings,
                "UMAP of the first network's features on the test images: the true quadrants above, what "
                "K-means made of them below.",
            ),
            tables.clustering(pair),
        ),
    ]


def _several(results: results_lib.Results, gallery: _Gallery) -> list[str]:
    """The sections of a run of several pairs: all together, then one by one."""
    pairs, overall = results.pairs(), results.document.get("overall") or {}
    skipped = tables.skipped(results.document.get("skipped") or ())
    sections = [_verdict(results_lib.summary(results), results_lib.run_answer(results))]
    if overall:
        sections.append(
            _section(
                "Leaderboard",
                gallery.show(
                    "leaderboard",
                    lambda: figures.leaderboard(results),
                    "Every method over all pairs, best first: mean and 95% interval over pairs, one small "
                    "mark a pair.",
                ),
                tables.leaderboard(overall),
                tables.merit_note(overall),
                _folded("Tests over all pairs", tables.tests(overall)),
                _folded("What each method is", _described(pairs)),
            )
        )
        sections.append(
            _section(
                "Utility and novelty",
                gallery.show(
                    "novelty", lambda: figures.novelty_overall(results), _NOVELTY.format("pair's mean")
                ),
            )
        )
    sections.append(_matrices(results, gallery))
    sections.append(_section("The pairs", tables.pairs(pairs), skipped))
    # The page is to stay small: what all pairs have in common is said once.
    sections.append(
        _section(
            "Pair by pair",
            tables.methods_note(pairs[0], brief=True),
            *(_compact_pair(results, pair, gallery, all_figures=len(pairs) <= _MANY_PAIRS) for pair in pairs),
        )
    )
    return sections


def _matrices(results: results_lib.Results, gallery: _Gallery) -> str:
    """Attributes by objects: the methods that matter, differences, and the others as a file."""
    record = results.document.get("overall") or results.pairs()[0]
    present = [name for name, _ in results_lib.methods_in_order(record)]
    best, merge = results_lib.best_generated(record), _best_merge(record)
    shown = [name for name in present if name in (best, merge, *MATRIX_METHODS)]
    others = [name for name in present if name not in shown]
    figure_of_merit = f"Mean {results_lib.merit_name(record)} for every attribute (row) and object (column)"
    content = [
        gallery.show(
            "matrix",
            lambda: figures.matrix(results, shown),
            f"{figure_of_merit}; one scale for all methods, a pair that was not run is blank.",
        ),
        gallery.show(
            "matrix_differences",
            lambda: figures.differences(results, [name for name in (merge, "and_ensemble") if name]),
            f"{_whose_differences(results)} minus the best merge over all pairs and minus both parents run "
            "side by side (and_ensemble): orange where the generated networks are behind, purple where they "
            "are ahead.",
        ),
    ]
    if others:
        content.append(
            gallery.show("matrix_others", lambda: figures.matrix(results, others), "", embed=False).replace(
                "Figure:", f"The other {len(others)} methods:"
            )
        )
    return _section("Every attribute with every object", *content)


def _whose_differences(results: results_lib.Results) -> str:
    """The subject of the caption of `figures.differences`."""
    best = figures.best_over_pairs(results)
    if best:
        return f"{best}, the generated method that is best over all pairs,"
    return "Each pair's best generated method (picked on that pair's test images, which flatters it)"


def _best_merge(record: Mapping[str, Any]) -> str | None:
    """The merge with the highest mean figure of merit."""
    return next((name for name, method in results_lib.ranked(record) if method.get("kind") == "merge"), None)


def _described(pairs: Sequence[Mapping[str, Any]]) -> str:
    """What each method of any pair is."""
    methods = {name: method for pair in reversed(pairs) for name, method in pair["methods"].items()}
    return tables.descriptions({"methods": methods}, fold=False)


def _folded(heading: str, content: str) -> str:
    return f"<details><summary>{escape(heading)}</summary>{content}</details>" if content else ""


def _compact_pair(
    results: results_lib.Results, pair: Mapping[str, Any], gallery: _Gallery, *, all_figures: bool
) -> str:
    """One pair of several, folded away; a link to what is inside unfolds it."""
    key = results_lib.pair_key(pair)
    given = results_lib.answer(pair)
    drawn = _distribution(results, pair, gallery)
    drawn += _draw(results, pair, gallery, key, "novelty", figures.novelty, _NOVELTY.format("network"))
    drawn += _more_figures(results, pair, gallery) if all_figures else _how_to_get_more(pair)
    content = [
        _verdict(
            [line for line in results_lib.verdict(pair) if not line.startswith(_SAID_ONCE)],
            given,
            compact=True,
        ),
        tables.methods(pair, brief=True),
        _folded("Tests between methods", tables.tests(pair)),
        _folded("Against random networks", tables.null_test(pair)),
        _folded("The parents, features, novelty", tables.zoos(pair) + tables.features(pair, brief=True)),
        _folded("Clustering", tables.clustering(pair, brief=True)),
        _folded("Images", tables.counts(pair.get("data") or {})),
        _folded("Figures", drawn),
    ]
    summary = f'<span class="{given.split()[0]} answer">{tables.ANSWERS[given]}</span>'
    return (
        f'<details class="pair"><summary>{escape(results_lib.pair_title(pair))} {summary}</summary>'
        f'<div id="{escape(key, quote=True)}">{"".join(content)}</div></details>'
    )


def _how_to_get_more(pair: Mapping[str, Any]) -> str:
    """Where the figures are that a page of many pairs does without."""
    names = {f"pairs.{side}s": (str(pair["pair"][side]),) for side in ("attribute", "object")}
    flags = " ".join(f'--config.{field}="{value}"' for field, value in names.items())
    return (
        f'<p class="note">Answers, kernels, training and feature space are drawn of at most {_MANY_PAIRS} '
        f"pairs: for them give the run's command with <code>{escape(flags)}</code> and another "
        "<code>--workdir</code>, which trains this pair alone.</p>"
    )


def _more_figures(results: results_lib.Results, pair: Mapping[str, Any], gallery: _Gallery) -> str:
    """The answers, and links to the figures that are files."""
    key = results_lib.pair_key(pair)
    files = {
        "training of the zoos": ("zoo_curves", figures.zoo_curves),
        "of the translators": ("cyclegan_curves", figures.cyclegan_curves),
        "cosine similarity": ("cosine", figures.cosine),
        "feature space": ("embeddings", figures.embeddings),
    } | {
        f"kernels {layer}": (f"kernels_{layer}", functools.partial(figures.kernels, layer=layer))
        for layer in figures.kernel_layers(results, pair)
    }
    links = []
    for words, (name, draw) in files.items():
        link = re.search('href="([^"]*)"', _draw(results, pair, gallery, key, name, draw, "", embed=False))
        if link:
            links.append(f'<a href="{link[1]}">{escape(words)}</a>')
    listed = f'<p class="note">As files: {", ".join(links)}.</p>' if links else ""
    return _answers(results, pair, gallery) + listed


def _draw(
    results: results_lib.Results,
    pair: Mapping[str, Any],
    gallery: _Gallery,
    key: str,
    name: str,
    figure: Callable[..., Figure],
    caption: str,
    embed: bool = True,
) -> str:
    return gallery.show(f"{key}_{name}", lambda: figure(results, pair), caption, embed)


def _distribution(results: results_lib.Results, pair: Mapping[str, Any], gallery: _Gallery) -> str:
    caption = (
        "Each small mark is one network, boxes hold the middle half, the large mark is the mean with its 95% "
        "interval. The shaded band is where 95% of the networks with random kernels lie: a single network "
        "inside it shows nothing."
    )
    return _draw(
        results, pair, gallery, results_lib.pair_key(pair), "distributions", figures.distributions, caption
    )


def _answers(results: results_lib.Results, pair: Mapping[str, Any], gallery: _Gallery) -> str:
    method = figures.answering_method(results, pair)
    if method is None:
        return '<p class="note">Figure left out: arrays.npz has no answers.</p>'
    caption = (
        f"Answers of {method}: its first network, not its best; the first images of each quadrant, not "
        "chosen. The number is its probability of the conjunction; ✓ and a solid frame: right at threshold "
        "1/2; ✗ and a dashed frame: wrong."
    )
    draw = functools.partial(figures.answers, method=method)
    return _draw(results, pair, gallery, results_lib.pair_key(pair), "answers", draw, caption)


def _data(results: results_lib.Results, gallery: _Gallery) -> str:
    document = results.document
    data = document.get("data") or {}
    content = [f"<p>Source: <code>{escape(str(data['source']))}</code></p>"] if data.get("source") else []
    if len(results.pairs()) == 1:
        content.append(tables.counts(data))
    notes = data.get("notes") or ()
    notes = [notes] if isinstance(notes, str) else notes
    if notes:
        content.append(f"<ul>{''.join(f'<li>{escape(str(note))}</li>' for note in notes)}</ul>")
    content.append(
        gallery.show(
            "contact_sheet",
            lambda: figures.contact_sheet(results),
            "A sample of the images, as the networks see them.",
        )
    )
    return _section("Data", *content)


def _run(document: Mapping[str, Any]) -> str:
    """How the run was made: command, config, versions, device, timings."""
    content = []
    if document.get("command"):
        content.append(f"<pre>{escape(str(document['command']))}</pre>")
    timings = {name: results_lib.number(seconds) for name, seconds in (document.get("timings") or {}).items()}
    if timings:
        rows = [(escape(name), tables.seconds(seconds)) for name, seconds in timings.items()]
        rows.append(
            ("together", tables.seconds(sum(value for value in timings.values() if math.isfinite(value))))
        )
        content.append(tables.plain(("stage", "time"), rows, "counts"))
    versions = [
        (escape(str(name)), escape(str(value))) for name, value in (document.get("versions") or {}).items()
    ]
    if document.get("device"):
        content.append(f"<p>Device: {escape(str(document['device']))}</p>")
    if versions:
        listed = tables.plain(("package", "version"), versions, "counts")
        content.append(f"<details><summary>Versions</summary>{listed}</details>")
    if document.get("config"):
        text = escape(json.dumps(document["config"], indent=2, ensure_ascii=False))
        content.append(f"<details><summary>Config</summary><pre>{text}</pre></details>")
    return _section("How it was made", *content)
