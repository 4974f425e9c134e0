import base64
import html
import html.parser
import io
import os
import re
from pathlib import Path

import numpy as np
import pytest
from synthetic_runs import arrays_of, enriched, full_pair, many_pairs, overall, pair_result, run_of, statistic

from kernelgan import report, results
from kernelgan.baselines import PARENTS
from kernelgan.report import contents, drawing, figures, metrics, page, prose, sections, tables, terminal


def rich_pair(attribute="black", thing="cat", **means):
    """A plausible result of one pair with every part of the contract."""
    made = enriched(pair_result(distilled=0.71, **means), attribute, thing)
    made["methods"]["average"] |= {"recovered": None, "novelty": None}
    return made


def write_run(folder, pairs, **more):
    arrays = {"contact_sheet": np.random.default_rng(1).integers(0, 256, (4, 8, 32, 32, 3), dtype=np.uint8)}
    for seed, made in enumerate(pairs):
        arrays |= arrays_of(made, seed)
    document = {
        "name": "black_cat",
        "config": {"seed": 0},
        "versions": {"jax": "0.10.0"},
        "seed": 0,
        "device": "cpu (2 devices)",
        "command": "python launch.py --config configs/black_cat.py",
        "data": {
            "source": "rendered",
            "notes": ["3 files skipped"],
            "contact_sheet": {"rows": list("abcd")},
        },
        "timings": {"data": 1.2, "zoo": 75.0, "evaluate": None},
        **more,
    }
    results.write_results(folder, run_of(*pairs, **document), arrays)
    return folder


@pytest.fixture(scope="module")
def one_pair(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("one"), [rich_pair()])


@pytest.fixture(scope="module")
def one_page(one_pair):
    path = report.write_report(one_pair)
    assert path == one_pair / "report.html"
    return path.read_text()


@pytest.fixture(scope="module")
def four_pairs(tmp_path_factory):
    planted = {"random": 0.45}, {"average": 0.8}, {"attribute_only": 0.7}, {"trained_on_conjunction": 0.95}
    names = [(a, o) for a in ("black", "red") for o in ("cat", "dog")]
    pairs = [rich_pair(a, o, **more) for (a, o), more in zip(names, planted, strict=True)]
    skipped = [{"attribute": "red", "object": "bird", "reason": "2 test images of both, 30 needed"}]
    return write_run(tmp_path_factory.mktemp("four"), pairs, skipped=skipped, overall=overall(pairs))


@pytest.fixture(scope="module")
def many():
    """55 pairs of 90 by nineteen methods, without arrays."""
    return run_of(**many_pairs())


def images_of(text):
    return [base64.b64decode(code) for code in re.findall(r'src="data:image/png;base64,([^"]+)"', text)]


def text_of(markup):
    markup = re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", markup, flags=re.S))
    return re.sub(r"\s+", " ", html.unescape(markup))


class Balance(html.parser.HTMLParser):
    """Fails where a tag is closed that was not the last opened."""

    def __init__(self, text):
        super().__init__()
        self.open = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


# The page -------------------------------------------------------------------------------------------------


def test_the_page_has_every_section_and_fact(one_page):
    headings = re.findall(r"<h2>(.*?)</h2>", one_page)
    assert headings[0].startswith("Yes: the generated networks compose black and cat.")
    assert headings[1:] == [
        "Methods, side by side",
        "What each generator did to the kernels",
        "Answers on test images",
        "Quadrant by quadrant",
        "Do the parents matter?",
        "Novelty",
        "Tests",
        "Data",
        "How it was made",
        "Appendix",
    ]
    text = text_of(one_page)
    for words in (
        "run black_cat · seed 0 · cpu (2 devices)",
        "Only networks trained on the conjunction read images of it",
        "as printed by the original",
        "3 files skipped",
        "0.700 [0.690, 0.710]",
        "What average is.",
        "5 groups of test images, so that always answering “no” scores 0.8",
        "+0.120 [+0.110, +0.130]",
        "zoo 75.0 s",
        "jax 0.10.0",
        "python launch.py --config configs/black_cat.py",
    ):
        assert words in text, words
    assert "nan" not in text.lower().split()
    assert "None" not in text


def test_a_page_has_the_figures_beside_the_merit_where_there_are_any_and_the_sizes():
    made = rich_pair()
    for name, record in made["methods"].items():
        record["auroc"]["worst_of_means"] = statistic(0.812)
        record["parameters"] = {"attribute_only": 1000, "and_ensemble": 2000}.get(name, 1220)
    made["methods"]["distilled"]["auroc"]["worst_calibrated"] = statistic(0.834)
    (pair,) = run_of(made).pairs
    shown = contents.methods(pair)
    titles = [column.title for column in shown.columns]
    rows = {row.cells[0].text: dict(zip(titles, row.cells, strict=True)) for row in shown.rows}
    assert {row["lowest mean"].text for row in rows.values()} == {"0.812"}
    assert {name for name, row in rows.items() if row["calibrated"].text == "0.834"} == {"distilled"}
    assert rows["average"]["calibrated"].text == "-"
    terminal_titles = [column.title for column in shown.on("terminal").columns]
    assert not {"lowest mean", "calibrated"} & set(terminal_titles)
    assert "1,220 parameters: 22% more than a parent, 61% of both parents" in shown.caption
    assert "mean 0.812" in " ".join(prose.verdict(pair))
    bare = contents.methods(run_of(rich_pair()).pairs[0])
    assert not {"lowest mean", "calibrated"} & {column.title for column in bare.columns}


def test_the_page_is_well_formed_and_self_contained(one_page):
    Balance(one_page)
    bare = re.sub(r'src="data:[^"]*"', "", one_page)
    assert not re.search(r"https?:|//[a-z]|<script |<link|@import|url\(", bare)
    assert len(one_page.encode()) < 4_000_000


def test_every_embedded_figure_is_a_png_and_is_also_a_file(one_pair, one_page):
    from PIL import Image

    images = images_of(one_page)
    assert "left out" not in one_page
    files = {path.name: path.read_bytes() for path in (one_pair / "figures").iterdir()}
    assert sorted(files.values()) == sorted(images)
    of_pair = ("answers", "cosine", "distributions", "embeddings", "generator_curves_cyclegan")
    of_pair += ("kernels_conv1", "kernels_conv2", "novelty", "quadrants", "zoo_curves")
    assert set(files) == {"contact_sheet.png", *(f"black_cat_{name}.png" for name in of_pair)}
    for image in images:
        with Image.open(io.BytesIO(image)) as opened:
            assert opened.format == "PNG"
            assert min(opened.size) > 100
            assert np.asarray(opened.convert("L")).std() > 5


def test_a_report_older_than_the_results_is_made_anew(tmp_path, flat_figures):
    write_run(tmp_path, [rich_pair()])
    path = report.show(tmp_path)
    path.write_text("kept")
    assert report.show(tmp_path).read_text() == "kept"
    os.utime(path, ns=(0, 0))
    assert report.show(tmp_path).read_text() != "kept"


def test_text_from_outside_is_escaped(tmp_path, flat_figures):
    evil = "<b>&\"'"
    made = rich_pair(evil, "c&t")
    more_of_it = {"description": "<u>", "label": "<s>", "family": "<f>"}
    made["methods"]["<i>new"] = made["methods"]["cyclegan_b2a"] | more_of_it
    made["null_test"]["by_method"] = {"<i>new": {}}
    data = {"source": "<q>", "notes": ["<em>"]}
    more = {"name": "<name>", "device": "<device>", "command": "<command>", "config": {"<key>": "<value>"}}
    write_run(tmp_path, [made], data=data, versions={"<jax>": "<1>"}, timings={"<t>": 1}, **more)
    text = report.write_report(tmp_path).read_text()
    for tag in (*"biusfqt1", "em", "name", "device", "command", "key", "value", "jax"):
        assert f"<{tag}>" not in text, tag
    assert "&lt;b&gt;&amp;&#34;&#39; c&amp;t" in text
    Balance(text)


@pytest.fixture
def quick_figures(monkeypatch):
    """Figures are made, and not rendered."""
    monkeypatch.setattr(drawing, "png", lambda draw: draw() and b"png")


def test_a_run_without_arrays_still_has_a_report(one_pair, tmp_path, quick_figures):
    (tmp_path / "results.json").write_bytes((one_pair / "results.json").read_bytes())
    text = report.write_report(tmp_path).read_text()
    drawn = {path.stem.removeprefix("black_cat_") for path in (tmp_path / "figures").iterdir()}
    assert drawn == {"distributions", "quadrants", "novelty"}  # they keep their means
    assert len(images_of(text)) == len(drawn)
    lost = "answers", "kernels", "history/zoo", "generator_curves", "cosine", "embedding", "contact_sheet"
    for what in lost:
        assert re.search(f"left out: arrays.npz has (no|nothing for) {what}", text), what


def test_odd_arrays_and_bare_methods_do_not_stop_the_report(tmp_path, quick_figures):
    bare = {
        "random": {"kind": "null"},
        "cyclegan_a2b": {"kind": "generated", "auroc": {"worst": {"mean": None}}},
    }
    made = {"pair": {"attribute": "black", "object": "cat"}, "methods": bare}
    odd = "kernels/conv1/new answers/random history/zoo_object/train_loss history/f/cycle cosine/random"
    arrays = {f"black_cat/{name}": np.full((), np.nan) for name in odd.split()}
    results.write_results(tmp_path, run_of(made), arrays)
    text = report.write_report(tmp_path).read_text()
    assert "Cannot tell: no generated network was scored" in text
    assert text.count("Figure left out") >= 8
    assert "Cannot tell" in report.table(results.read_results(tmp_path))


@pytest.mark.parametrize("few", [True, False])
def test_several_pairs_get_a_leaderboard_matrices_and_a_fold_each(
    four_pairs, flat_figures, monkeypatch, tmp_path, few
):
    run = results.read_results(four_pairs)
    most = len(run.pairs) + few - 1  # pairs with all their figures
    parts = [entry.parts(run, run.pairs[-1]) if entry.parts else [""] for entry in figures.OF_PAIR.values()]
    files = sum(map(len, parts)) if few else 2
    results.write_results(tmp_path, run, run.arrays)
    monkeypatch.setattr(sections, "MANY_PAIRS", most)
    text = report.write_report(tmp_path).read_text()
    headings = re.findall(r"<h2>(.*?)</h2>", text)
    assert headings[0].startswith("Yes: the generated networks compose, over 4 pairs. They are above all 4 ")
    assert headings[1:] == [
        "Leaderboard",
        "Utility and novelty",
        "Every attribute with every object",
        "The pairs",
        "Pair by pair",
        "Data",
        "How it was made",
    ]
    for key in ("black_cat", "black_dog", "red_cat", "red_dog"):
        assert text.count(f'id="{key}"') == text.count(f'href="#{key}"') == 1
    assert len(images_of(text)) == len(figures.OF_RUN) + 2 * 4
    assert ('href="figures/red_dog_cosine.png"' in text) == few
    assert len(list((tmp_path / "figures").glob("red_dog_*"))) == files
    assert "red bird: 2 test images of both, 30 needed" in text
    Balance(text)


def test_the_figures_in_a_page_are_as_many_as_fit(four_pairs, flat_figures, monkeypatch):
    monkeypatch.setattr(page, "FIGURE_BYTES", 300_000)
    text = report.write_report(four_pairs).read_text()
    assert len(images_of(text)) == 5  # 53 kB each
    assert 'alt="Every method over all pairs' in text  # of all pairs before those of each pair
    assert 'href="figures/red_dog_distributions.png"' in text


def test_the_text_of_a_page_of_many_pairs_is_small(many, tmp_path, monkeypatch):
    def missing(*_, **__):
        raise drawing.MissingError("not here")

    monkeypatch.setattr(drawing, "png", missing)
    text = page.render("many", sections.run_sections(many, page.Gallery(tmp_path)))
    assert len(text.encode()) + page.FIGURE_BYTES < 4_000_000
    assert text.count('<details class="pair">') == 55
    assert "Pairs skipped: 35" in text


# What a metric's chance level is --------------------------------------------------------------------------

ALL, REST = {"a&o": 10, "a&!o": 20, "!a&o": 30, "!a&!o": 40}, {"a&o": 10, "a&!o": 0, "rest": 30}


@pytest.mark.parametrize(
    ("metric", "images", "level"),
    [
        ("auroc.worst", ALL, 0.5),
        ("balanced_accuracy", ALL, 0.75),
        ("balanced_accuracy", REST, 0.5),
        ("average_precision", ALL, 0.1),
        ("average_precision", REST, 0.25),
        ("balanced_accuracy", {}, np.nan),
        ("novelty.distance", ALL, np.nan),
    ],
)
def test_chance_levels(metric, images, level):
    np.testing.assert_equal(metrics.chance(metric, images), level)


# Tables ---------------------------------------------------------------------------------------------------


def test_the_leaderboard_is_of_overall_best_first_with_corrected_p_values():
    document = many_pairs(4)
    methods = document["overall"]["methods"]
    methods["average"]["auroc"]["worst"]["mean"] = 0.999
    methods["average"]["against"] |= {"p_value": 0.0111, "p_adjusted": 0.0333}
    methods["distilled"]["against"] |= {"p_value": 0.0222}
    methods["zipit"]["pairs"] = 3
    run = run_of(**document)
    table = contents.leaderboard(run.overall)
    shown = table.on("page")
    tints = {row.cells[0].text: row.emphasis for row in shown.rows}
    assert next(iter(tints)) == "the average of both parents' weights (average)"
    assert {tint for name, tint in tints.items() if "cyclegan" in name} == {"best"}
    assert {tint for name, tint in tints.items() if "ensemble" in name or "conjunction" in name} == {"mark"}
    means = [float(row.cells[2].text) for row in shown.rows]
    assert means == sorted(means, reverse=True)
    assert "zipit 3" in table.caption
    words = " ".join(f"{cell.text} {cell.small}" for row in shown.rows for cell in row.cells)
    text = report.table(run)
    for p_value in ("0.033", "0.022"):
        assert words.count(p_value) == text.count(p_value) == 1
    assert "0.011" not in words + text


def test_the_table_of_tests_has_every_rival_of_every_generated_method():
    made = full_pair()
    made["tests"]["hypernetwork"]["zipit"] = {"difference": statistic(0.25), "p_adjusted": 0.012}
    made["tests"]["hypernetwork"]["average"] = {"difference": statistic(0.25), "p_adjusted": 0.12}
    shown = contents.tests(run_of(made).pairs[0])
    assert [row.cells[0].text for row in shown.rows] == list(run_of(made).pairs[0].methods)
    place = [column.title for column in shown.columns].index("hypernetwork")
    by_rival = {row.cells[0].text: row.cells[place : place + 2] for row in shown.rows}
    assert (by_rival["zipit"][1].text, by_rival["zipit"][1].strong) == ("0.012", True)
    assert (by_rival["average"][1].text, by_rival["average"][1].strong) == ("0.120", False)
    assert (by_rival["zipit"][0].text, by_rival["zipit"][0].small) == ("+0.250", "[+0.240, +0.260]")
    assert contents.tests(run_of(made | {"tests": {}}).pairs[0]) is None


def test_a_table_on_the_terminal_and_on_a_page():
    columns = ["name", tables.Column("score", group="numbers"), tables.Column("size", where="page")]
    rows = [["a|b", tables.Cell("0.5", "[0.4, 0.6]", strong=True), "3"], ["<c>", "2", "4"]]
    shown = tables.table(columns, rows, "Title", "Caption.")
    printed = terminal.text(shown).splitlines()
    assert (printed[0], printed[-1]) == ("Title", "Caption.")
    assert any(line.split() == ["a|b", "0.5", "[0.4,", "0.6]"] for line in printed)
    markup = page.render("t", [page.Section("s", [shown])])
    assert "<strong>0.5</strong> <small>[0.4, 0.6]</small>" in markup
    assert '<th class="group" colspan="1">numbers</th>' in markup
    assert "<td>3</td>" in markup


# The terminal ---------------------------------------------------------------------------------------------


def test_the_terminal_says_the_answer_once_and_last_in_80_columns(one_pair, four_pairs, many):
    for run in (results.read_results(one_pair), results.read_results(four_pairs), many):
        text = report.table(run)
        assert max(map(len, text.splitlines())) <= terminal.WIDTH == 80
        assert "nan" not in text.lower().split()
        assert "\x1b" not in text
        first, text = " ".join(prose.summary(run)[0].split()), " ".join(text.split())
        assert text.count(first) == 1
        assert text.endswith(first)


def test_the_terminal_table_of_a_pair_is_aligned_and_has_what_to_look_at_first_best_first(one_pair):
    run = results.read_results(one_pair)
    (pair,) = run.pairs
    text = report.table(run)
    lines = [line for line in text.splitlines() if re.match(r"[> ] \w+ +\d\.\d{3} \[", line)]
    rows = {line[2:].split()[0]: line for line in lines}
    assert [*rows] == [row.name for row in pair.ranked() if row.name in rows]
    assert {name for name, line in rows.items() if line[0] == ">"} == {"cyclegan_a2b", "cyclegan_b2a"}
    assert {"random", *PARENTS, "and_ensemble", "trained_on_conjunction"} <= set(rows)
    assert {pair.methods[name].kind for name in rows} == {row.kind for row in pair.methods.values()}
    merges = [row.name for row in pair.ranked() if row.kind == "merge"]
    assert set(merges) & set(rows) == {merges[0]}
    assert f"has all {len(pair.methods)} methods" in text
    assert len({line.index("[") for line in rows.values()}) == 1
    assert "0.700 [0.690, 0.710]" in rows["cyclegan_b2a"]
    assert "the best" in rows["cyclegan_b2a"]


def test_the_terminal_of_many_pairs_has_a_leaderboard_and_a_line_each(many):
    lines = report.table(many).splitlines()
    board = [line for line in lines if re.match(r"[>= ] \w+ +\d\.\d{3} \[", line)]
    assert len(board) < len(many.overall.methods)
    assert f"has all {len(many.overall.methods)} methods" in " ".join(lines)
    marked = [line[2:].split()[0] for line in board if line[0] == "="]
    assert marked == ["trained_on_conjunction", "and_ensemble"]
    assert sum(line[0] == ">" for line in board) == 3
    assert all(any(line.startswith(f"{pair.title} ") for line in lines) for pair in many.pairs)
    assert "Skipped pairs: 35" in "\n".join(lines)
    explained = metrics.METRICS["novelty.error_overlap"].explained[:20]  # a column of the page alone
    assert explained in contents.leaderboard(many.overall).caption
    assert "Novelty: distance" in " ".join("\n".join(lines).split())  # a column of both
    assert explained not in " ".join("\n".join(lines).split())


# Figures --------------------------------------------------------------------------------------------------


def test_kernels_and_histories_are_those_of_the_arrays_whatever_they_are_called(one_pair):
    run = results.read_results(one_pair)
    (pair,) = run.pairs
    run.arrays["black_cat/kernels/conv1/my_generator"] = np.ones((2, 5, 5, 3, 6))
    run.arrays["black_cat/history/my_family/loss"] = np.linspace(1, 0.1, 20)
    titles = [axes.get_title() for axes in figures.kernels(run, pair, "conv1").axes]
    assert {"black parents", "cat parents", "cyclegan_a2b", "my_generator"} < set(titles)
    assert figures.families(run, pair) == ["cyclegan", "my_family"]
    (axes,) = figures.generator_curves(run, pair, "my_family").axes
    assert axes.get_title() == "my_family"


def test_a_matrix_leaves_pairs_that_were_not_run_blank(many):
    shown = figures.matrix(many).axes
    assert [axes.get_title() for axes in shown if axes.images] == list(many.overall.methods)
    (image,) = shown[0].images
    assert image.get_array().shape == (9, 10)
    assert np.isfinite(image.get_array()).sum() == len(shown[0].texts) == 55


@pytest.mark.parametrize("together", [True, False])
def test_differences_are_the_best_generated_minus_the_other_about_zero(together):
    """Of the method that is best over all pairs; each pair's own only where there is no such record."""
    document = many_pairs(20)
    many = run_of(**document)
    best = many.overall.verdict.best
    own = [pair.verdict.best for pair in many.pairs]
    assert set(own) != {best}
    run = many if together else run_of(**document | {"overall": None})
    title, chosen = (best, [best] * len(own)) if together else ("best of each pair", own)
    axes = figures.differences(run).axes[1]
    (image,) = axes.images
    assert axes.get_title() == f"{title} minus and_ensemble"
    assert image.norm.vmin == -image.norm.vmax
    rows = [label.get_text() for label in axes.get_yticklabels()]
    columns = [label.get_text() for label in axes.get_xticklabels()]
    for pair, name in zip(many.pairs, chosen, strict=True):
        place = rows.index(pair.pair.attribute), columns.index(pair.pair.object)
        expected = pair.figure(name).mean - pair.figure("and_ensemble").mean
        assert image.get_array()[place] == pytest.approx(expected)


def test_labels_of_the_novelty_plot_do_not_overlap(many):
    run = run_of(full_pair())
    for figure in (figures.novelty(run, run.pairs[0]), figures.novelty_overall(many)):
        (axes,) = figure.axes
        figure.draw_without_rendering()
        assert {"average", "hypernetwork", "random"} <= {text.get_text() for text in axes.texts}
        heights = [text.xyann[1] for text in axes.texts]
        pixels = np.sort(axes.transData.transform([(0, height) for height in heights])[:, 1])
        assert np.diff(pixels).min() > 8 * figure.dpi / 72  # the size of the font


def test_the_strips_have_every_method_and_the_goals(many):
    (axes,) = figures.leaderboard(many).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == [row.name for row in many.overall.ranked()]
    told = axes.get_legend_handles_labels()[1]
    assert told[:2] == ["both parents run side by side", "networks trained on the conjunction itself"]


def test_no_file_of_the_report_names_a_method_or_a_family():
    from kernelgan.baselines.methods import BASELINES

    english = {"random", "gaussian", "average", "pixels", "concatenate"}
    names = set(BASELINES) - english | {"cyclegan"}
    folder = Path(report.__file__).parent
    for path in [*folder.rglob("*.py"), *folder.rglob("*.j2"), folder.parent / "results.py"]:
        assert not [name for name in names if re.search(rf"\b{name}\b", path.read_text())], path.name
