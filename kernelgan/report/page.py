"""`report.html`: one self-contained page, and its figures as PNG files, from a run's saved results only."""

from __future__ import annotations

import base64
import functools
import json
import logging
import math
import re
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kernelgan import results as results_lib
from kernelgan.report import figures, reference, tables, terminal
from kernelgan.report.style import CSS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REPORT_FILE = "report.html"
FIGURES_FOLDER = "figures"
EMBEDDED_BYTES = 3_000_000
"""Most bytes of base64 text in the page, which leaves tables 1 MB of the 4 MB that mail puts up with.

Figures beyond it are only written as files, and the page says so.
"""

MATRIX_METHODS = (
    *("random", "attribute_only", "object_only", "average", "cyclegan_a2b", "cyclegan_b2a"),
    *("distilled", "and_ensemble", "trained_on_conjunction"),
)

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
    page = _page(results, gallery)
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
        self.embedded = 0
        folder.mkdir(parents=True, exist_ok=True)

    def show(self, name: str, draw: Callable[[], Figure], caption: str, embed: bool = True) -> str:
        """A figure element; a line of text where the run did not leave what it takes, or the page is full.

        Args:
          name: of the file, without a suffix.
          draw: makes the figure.
          caption: plain text.
          embed: False writes the file and mentions it.
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
        code = base64.b64encode(image).decode()
        if not embed or self.embedded + len(code) > EMBEDDED_BYTES:
            where = escape(f"{self.folder.name}/{path.name}")
            return f'<p class="note">To keep this page small, a figure is only in <code>{where}</code>.</p>'
        self.embedded += len(code)
        alternative, text = escape(caption, quote=True), escape(caption)
        source = f"data:image/png;base64,{code}"
        return (
            f'<figure><div class="scroll"><img alt="{alternative}" src="{source}"></div>'
            f"<figcaption>{text}</figcaption></figure>"
        )


def _page(results: results_lib.Results, gallery: _Gallery) -> str:
    document = results.document
    pairs = results.pairs()
    title = results_lib.pair_title(pairs[0]) if len(pairs) == 1 else f"{len(pairs)} concept pairs"
    if reference.is_reference(results):
        title = "black cat, as the reference has it"
        body = reference.sections(results, gallery.show)
    elif len(pairs) == 1:
        body = [_verdict(pairs[0]), *_full_pair(results, pairs[0], gallery)]
    else:
        body = [*_several(results, gallery), *(_compact_pair(results, pair, gallery) for pair in pairs)]
    if not reference.is_reference(results):
        body.append(_data(results, gallery))
    body.append(_run(document))
    footer = (
        "Means are over all networks of a population unless it says picked."
        if reference.is_reference(results)
        else "Every mean is over all networks of a method (where clustered: the first), never the best one."
    )
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


def _verdict(pair: Mapping[str, Any], compact: bool = False) -> str:
    given = results_lib.answer(pair)
    symbol = {"yes": "✓ Yes", "no": "✗ No", "cannot tell": "? Cannot tell"}[given]
    first, *rest = results_lib.verdict(pair)
    lines = "".join(f"<li>{escape(line)}</li>" for line in rest)
    frame, heading = ("div", "h3") if compact else ("section", "h2")
    return (
        f'<{frame} class="verdict {given.split()[0]}"><span class="badge">{symbol}</span>'
        f"<{heading}>{escape(first)}</{heading}><ul>{lines}</ul></{frame}>"
    )


def _full_pair(results: results_lib.Results, pair: Mapping[str, Any], gallery: _Gallery) -> list[str]:
    """Every section of a run of one pair."""
    key = results_lib.pair_key(pair)
    draw = functools.partial(_draw, results, pair, gallery, key)
    attribute, thing = pair["pair"]["attribute"], pair["pair"]["object"]
    layers = figures.kernel_layers(results, pair)
    return [
        _section("Methods, side by side", tables.methods(pair), tables.descriptions(pair)),
        _section("Against the null", _distribution(results, pair, gallery), tables.null_test(pair)),
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
    """The sections about all pairs of a run of several."""
    first, *rest = results_lib.summary(results)
    verdict = (
        f'<section class="verdict cannot"><h2>{escape(first)}</h2><ul>'
        + "".join(f"<li>{escape(line)}</li>" for line in rest)
        + "</ul></section>"
    )
    links = "".join(
        f'<a href="#{escape(results_lib.pair_key(pair), quote=True)}">{escape(results_lib.pair_title(pair))}'
        f" ({results_lib.answer(pair)})</a> "
        for pair in results.pairs()
    )
    present = {name for pair in results.pairs() for name in pair["methods"]}
    generated = [
        name
        for pair in results.pairs()
        for name, method in results_lib.methods_in_order(pair)
        if method.get("kind") == "generated" and name not in MATRIX_METHODS
    ]
    names = [name for name in (*MATRIX_METHODS, *dict.fromkeys(generated)) if name in present]
    picture = gallery.show(
        "matrix",
        lambda: figures.matrix(results, names),
        f"Mean {results_lib.merit_name(results.pairs()[0])} for every attribute (row) and object (column); "
        "one scale for all methods.",
    )
    rows = [
        (escape(name), escape(kind), tables.number(mean), str(count))
        for name, kind, mean, count in terminal.leaderboard(results)
    ]
    board = tables.plain(("method", "kind", "mean over pairs", "pairs"), rows, "counts")
    return [
        verdict,
        f"<nav>{links}</nav>",
        _section("Every attribute with every object", picture),
        _section("Leaderboard", board),
    ]


def _compact_pair(results: results_lib.Results, pair: Mapping[str, Any], gallery: _Gallery) -> str:
    key = results_lib.pair_key(pair)
    extra = [
        ("zoo_curves", figures.zoo_curves),
        ("cyclegan_curves", figures.cyclegan_curves),
        ("cosine", figures.cosine),
        ("embeddings", figures.embeddings),
    ]
    extra += [
        (f"kernels_{layer}", functools.partial(figures.kernels, layer=layer))
        for layer in figures.kernel_layers(results, pair)
    ]
    files = [_draw(results, pair, gallery, key, name, draw, "", embed=False) for name, draw in extra]
    written = [line for line in files if "left out" not in line]
    note = (
        f'<p class="note">{len(written)} more figures of this pair (training, kernels, feature space) are in '
        f"<code>{FIGURES_FOLDER}/</code>, under names that start with <code>{escape(key)}</code>.</p>"
    )
    return _section(
        results_lib.pair_title(pair),
        _verdict(pair, compact=True),
        tables.methods(pair),
        f"<details><summary>Distributions and answers</summary>{_distribution(results, pair, gallery)}"
        f"{_answers(results, pair, gallery)}</details>",
        f"<details><summary>Null test, zoos, features, clustering</summary>{tables.null_test(pair)}"
        f"{tables.zoos(pair)}{tables.features(pair)}{tables.clustering(pair)}</details>",
        tables.counts(pair.get("data") or {}),
        note if written else "",
        anchor=key,
    )


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
