import base64
import html
import html.parser
import io
import re

import numpy as np
import pytest
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from synthetic_runs import (
    NETWORKS,
    arrays_of,
    enriched,
    full_pair,
    many_pairs,
    overall,
    pair_result,
    statistic,
)

from kernelgan import report, results
from kernelgan.report import figures, tables
from kernelgan.types import UserError


def rich_pair(attribute="black", thing="cat", **means):
    """A plausible result of one pair with every part of the contract."""
    made = enriched(pair_result(distilled=0.71, **means), attribute, thing)
    made["methods"]["average"] |= {"recovered": None, "novelty": None}
    return made


def write_run(folder, pairs, **more):
    arrays = {"contact_sheet": np.random.default_rng(1).integers(0, 256, (4, 8, 32, 32, 3), dtype=np.uint8)}
    for seed, made in enumerate(pairs):
        arrays |= arrays_of(made, seed)
    labels = {"rows": ["black cat", "black, not cat", "cat, not black", "neither"], "columns": []}
    document = {
        "name": "black_cat",
        "config": {"seed": 0, "zoo": {"models": NETWORKS}},
        "versions": {"jax": "0.10.0", "numpy": "2.4"},
        "seed": 0,
        "device": "cpu (2 devices)",
        "command": "python launch.py --config configs/black_cat.py",
        "data": {"source": "procedural", "notes": ["3 files skipped"], "contact_sheet": labels},
        "timings": {"data": 1.2, "zoo": 75.0, "evaluate": None},
        "pairs": pairs,
        **more,
    }
    results.write_results(folder, document, arrays)
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


@pytest.fixture
def flat_figures(monkeypatch):
    """Figures are not drawn: each is the same bytes, 40 kB of them."""
    monkeypatch.setattr(figures, "png", lambda draw: bytes(40_000))


def images_of(page):
    return [base64.b64decode(code) for code in re.findall(r'src="data:image/png;base64,([^"]+)"', page)]


def text_of(page):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", page, flags=re.S)))


class Balance(html.parser.HTMLParser):
    """Fails where a tag is closed that was not the last one opened."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_has_every_section_in_order(one_page):
    headings = re.findall(r"<h2>(.*?)</h2>", one_page)
    assert headings[0].startswith("Yes: the generated networks compose black and cat.")
    assert headings[1:] == [
        "Methods, side by side",
        "Against the null and every other method",
        "Utility and novelty",
        "Answers on test images",
        "Kernels before and after translation",
        "Training",
        "Feature space",
        "Data",
        "How it was made",
    ]
    text = text_of(one_page)
    for words in (
        "run black_cat · seed 0 · cpu (2 devices)",
        "No image of the conjunction was read",
        "as printed by the reference",
        "3 files skipped",
        "0.700 [0.690, 0.710]",
        "1 min 15 s",
        "its first network, not its best",
        "What average is.",
        "always answering “no” scores 0.75",
        "Chance is 0.5 in each, and less in the hardest",
        "The parents",
        "+0.120 p &lt; 0.001",
        "0.10.0",
    ):
        assert words in text, words
    assert "nan" not in text.lower().split()
    assert "None" not in text


def test_the_page_is_well_formed_and_self_contained(one_page):
    parser = Balance()
    parser.feed(one_page)
    assert parser.open == []
    assert not re.search(
        r"https?:|//[a-z]|<script|<link|@import|url\(", re.sub(r'src="data:[^"]*"', "", one_page)
    )
    assert len(one_page.encode()) < 4_000_000


def test_every_embedded_figure_is_a_png_and_is_also_a_file(one_pair, one_page):
    from PIL import Image

    images = images_of(one_page)
    assert "left out" not in one_page
    assert len(images) == 10
    files = {path.name: path.read_bytes() for path in (one_pair / "figures").iterdir()}
    assert sorted(files.values()) == sorted(images)
    assert "black_cat_distributions.png" in files
    for image in images:
        with Image.open(io.BytesIO(image)) as opened:
            assert opened.format == "PNG"
            opened.load()
            assert min(opened.size) > 200
            assert np.asarray(opened.convert("L")).std() > 5


def test_writing_the_report_again_gives_the_same_bytes(one_pair, one_page):
    assert report.write_report(one_pair).read_text() == one_page
    names = sorted(path.name for path in one_pair.iterdir())
    assert names == ["arrays.npz", "figures", "report.html", "results.json"]


def test_text_from_outside_is_escaped(tmp_path):
    evil = "<b>&\"'"
    made = rich_pair(evil, "c&t")
    made["methods"]["<i>new"] = made["methods"]["cyclegan_b2a"] | {"description": "<u>", "kind": "<s>"}
    made["null_test"]["by_method"] = {"<i>new": {}}
    data = {"source": "<q>", "notes": ["<em>"]}
    more = {"name": "<name>", "device": "<device>", "command": "<command>", "config": {"<key>": "<value>"}}
    write_run(tmp_path, [made], data=data, versions={"<jax>": "<1>"}, timings={"<t>": 1}, **more)
    page = report.write_report(tmp_path).read_text()
    for tag in ("b", "i", "u", "s", "q", "em", "name", "device", "command", "key", "value", "jax", "1", "t"):
        assert f"<{tag}>" not in page, tag
    assert "&lt;b&gt;&amp;&quot;&#x27; c&amp;t" in page
    Balance().feed(page)


def test_a_run_without_arrays_still_has_a_report(one_pair, tmp_path):
    (tmp_path / "results.json").write_bytes((one_pair / "results.json").read_bytes())
    page = report.write_report(tmp_path).read_text()
    assert len(images_of(page)) == 2  # the distributions and the novelty keep their means
    for what in (
        "answers",
        "kernels",
        "history/zoo",
        "history/cyclegan",
        "cosine",
        "embedding",
        "contact_sheet",
    ):
        assert re.search(f"left out: arrays.npz has no {what}", page), what


def test_odd_arrays_and_bare_methods_do_not_stop_the_report(tmp_path):
    made = {
        "pair": {"attribute": "black", "object": "cat"},
        "methods": {"random": {}, "cyclegan_a2b": {"kind": "generated", "auroc": {"worst": {"mean": None}}}},
    }
    arrays = {
        "worst/random": np.full(4, np.nan),
        "cosine/random": np.full((4, 4), np.nan),
        "embedding_quadrant": np.zeros(3, np.int8),
        "embedding/random": np.zeros((3, 2)),
        "kernels/conv1/attribute_parent": np.zeros((1, 5, 5, 1, 2)),
        "history/zoo_object/train_loss": np.full((2, 3), np.nan),
        "history/cyclegan/conv1/cycle": np.array([np.nan]),
        "test_images": np.zeros((2, 8, 8, 3), np.uint8),
        "test_quadrant": np.array([0, 4], np.int8),
        "answers/random": np.array([np.nan, 0.2]),
    }
    arrays = {f"black_cat/{name}": value for name, value in arrays.items()}
    results.write_results(tmp_path, {"pairs": [made]}, arrays)
    page = report.write_report(tmp_path).read_text()
    assert "Cannot tell: no generated network was scored" in page
    assert "could not be drawn" not in page
    assert "Cannot tell" in report.table(results.read_results(tmp_path))


def test_a_figure_that_fails_is_a_line_in_the_page(one_pair, tmp_path, monkeypatch):
    def fails(*_):
        raise ValueError("a < b")

    (tmp_path / "results.json").write_bytes((one_pair / "results.json").read_bytes())
    monkeypatch.setattr(figures, "distributions", fails)
    assert "it could not be drawn: a &lt; b" in report.write_report(tmp_path).read_text()


def test_several_pairs_get_a_leaderboard_matrices_and_a_section_each(four_pairs, flat_figures):
    page = report.write_report(four_pairs).read_text()
    headings = re.findall(r"<h2>(.*?)</h2>", page)
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
        assert page.count(f'id="{key}"') == page.count(f'href="#{key}"') == 1
    assert len(images_of(page)) == 5 + 3 * 4
    assert "left out" not in page
    assert 'href="figures/red_dog_cosine.png"' in page
    assert (four_pairs / "figures" / "red_dog_cosine.png").exists()
    assert "<details open><summary>1 pair was skipped" in page
    assert "red bird: 2 test images of both, 30 needed" in page
    Balance().feed(page)


def test_the_leaderboard_is_of_overall_best_first(four_pairs):
    record = results.read_results(four_pairs).document["overall"]
    record["methods"]["average"]["auroc"]["worst"]["mean"] = 0.999
    html_of_it = tables.leaderboard(record)
    rows = re.findall(r'<tr class="([^"]*)"><th>(.*?)</th>', html_of_it)
    assert rows[0] == ("", "the average of both parents&#x27; weights (average)")
    assert [style for style, name in rows if "cyclegan" in name] == ["best"] * 2
    assert [style for style, name in rows if "ensemble" in name or "conjunction" in name] == ["mark"] * 2
    assert "0.999" in html_of_it
    assert "There is no record" in tables.leaderboard({})


def test_both_leaderboards_have_the_corrected_p_value_where_there_is_one(four_pairs):
    run = results.read_results(four_pairs)
    record = run.document["overall"]
    against = record["methods"]["average"]["against"]
    against |= {"p_value": 0.0111, "p_adjusted": 0.0333}
    plain = record["methods"]["distilled"]["against"]
    plain |= {"p_value": 0.0222}
    page, text = tables.leaderboard(record), report.table(run)
    for shown in ("0.033", "0.022"):
        assert page.count(shown) == text.count(shown) == 1
    assert "0.011" not in page + text
    for note in (text_of(page), " ".join(text.split())):
        assert "they come from one trained translator a pair" in note
        assert "the best of them is reported" in note


def test_a_page_of_many_pairs_draws_two_figures_of_each(four_pairs, flat_figures, monkeypatch, tmp_path):
    run = results.read_results(four_pairs)
    results.write_results(tmp_path, run.document, run.arrays)
    monkeypatch.setattr("kernelgan.report.page._MANY_PAIRS", 3)
    page = report.write_report(tmp_path).read_text()
    files = {path.name for path in (tmp_path / "figures").glob("red_dog_*")}
    assert files == {"red_dog_distributions.png", "red_dog_novelty.png"}
    assert len(images_of(page)) == 5 + 2 * 4
    assert page.count("which trains this pair alone") == 4
    flags = "--config.pairs.attributes=\"('red',)\" --config.pairs.objects=\"('dog',)\""
    assert flags in html.unescape(page)


def test_a_full_page_refers_to_the_files(four_pairs, flat_figures, monkeypatch):
    monkeypatch.setattr("kernelgan.report.page.PAGE_BYTES", 0)
    page = report.write_report(four_pairs).read_text()
    assert images_of(page) == []
    assert "\0" not in page
    assert 'href="figures/matrix.png"' in page


def test_the_figures_in_a_page_are_as_many_as_fit(four_pairs, flat_figures, monkeypatch):
    monkeypatch.setattr("kernelgan.report.page.PAGE_BYTES", 500_000)
    page = report.write_report(four_pairs).read_text()
    assert 0 < len(images_of(page)) < 5 + 3 * 4
    assert 500_000 - 55_000 < len(page.encode()) <= 500_000  # not one more
    assert 'alt="Every method over all pairs' in page  # of all pairs before those of one


@pytest.fixture(scope="module")
def many():
    """55 pairs of 90 by nineteen methods, without arrays."""
    return results.Results(results.normalised(many_pairs()))


def test_the_text_of_a_page_of_many_pairs_is_small(many, tmp_path, monkeypatch):
    from kernelgan.report import page as page_lib

    def missing(*_, **__):
        raise figures.MissingError("not here")

    monkeypatch.setattr(figures, "png", missing)
    gallery = page_lib._Gallery(tmp_path)
    text = gallery.filled(page_lib._page(many, gallery))
    assert len(text.encode()) < 2_500_000  # of 4 MB: the rest is for figures
    assert text.count('<details class="pair">') == 55
    assert "<details><summary>35 pairs were skipped</summary>" in text
    Balance().feed(text)


def test_a_matrix_leaves_pairs_that_were_not_run_blank(many):
    figure = figures.matrix(many, ["random", "and_ensemble"])
    for axes in figure.axes:
        assert len(axes.texts) == 55
        (image,) = axes.images
        assert image.get_array().shape == (9, 10)
        assert np.isfinite(image.get_array()).sum() == 55


def test_differences_are_the_best_generated_minus_the_other_about_zero(many):
    """Of the method that is best over all pairs; each pair's own only where there is no such record."""
    best = results.best_generated(many.document["overall"])
    own = [results.best_generated(made) for made in many.pairs()]
    assert best in own
    assert set(own) != {best}
    alone = results.Results({"pairs": many.pairs()})
    for run, title, chosen in (
        (many, f"{best} minus and_ensemble", [best] * len(own)),
        (alone, "each pair's best generated minus and_ensemble", own),
    ):
        figure = figures.differences(run, ["and_ensemble", "unheard_of"])
        (axes,) = figure.axes
        (image,) = axes.images
        assert axes.get_title() == title
        assert image.norm.vmin == -image.norm.vmax
        rows = [label.get_text() for label in axes.get_yticklabels()]
        columns = [label.get_text() for label in axes.get_xticklabels()]
        for made, name in zip(many.pairs(), chosen, strict=True):
            place = rows.index(made["pair"]["attribute"]), columns.index(made["pair"]["object"])
            expected = results.merit(made, name).mean - results.merit(made, "and_ensemble").mean
            assert image.get_array()[place] == pytest.approx(expected)


def test_the_caption_of_the_differences_says_how_the_best_was_picked(four_pairs, flat_figures, tmp_path):
    run = results.read_results(four_pairs)
    best = results.best_generated(run.document["overall"])
    page = report.write_report(four_pairs).read_text()
    assert f"{best}, the generated method that is best over all pairs, minus" in page
    results.write_results(tmp_path, run.document | {"overall": None}, run.arrays)
    page = report.write_report(tmp_path).read_text()
    assert "best over all pairs, minus" not in page
    assert "best generated method (picked on that pair&#x27;s test images, which flatters it) minus" in page


@pytest.mark.parametrize("of", ["pair", "pairs"])
def test_labels_of_the_novelty_plot_do_not_overlap(many, of):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    made = full_pair()
    run = results.Results(many.document, arrays_of(made))
    figure = figures.novelty(run, made) if of == "pair" else figures.novelty_overall(run)
    (axes,) = figure.axes
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    # Not the annotation's own: that has its leader in it.
    texts = {text.get_text(): Text.get_window_extent(text, renderer) for text in axes.texts}
    assert {"average", "hypernetwork", "random", "copy of a parent"} <= set(texts)
    boxes = [Bbox.from_extents(box.x0, box.y0, box.x0 + 0.98 * box.width, box.y1) for box in texts.values()]
    for index, box in enumerate(boxes):
        assert not box.count_overlaps(boxes[:index]), list(texts)[index]


def test_the_leaderboard_figure_has_every_method_and_the_lines(many):
    (axes,) = figures.leaderboard(many).axes
    written = [text.get_text() for text in axes.texts]
    for name in many.document["overall"]["methods"]:
        assert results.in_words(name) in written
    labels = axes.get_legend_handles_labels()[1]
    assert labels[:2] == ["both parents run side by side", "networks trained on the conjunction itself"]
    with pytest.raises(figures.MissingError):
        figures.leaderboard(results.Results({"pairs": many.pairs()}))


def test_the_table_of_tests_has_every_rival_of_every_generated_method():
    made = full_pair()
    made["tests"]["hypernetwork"]["zipit"] = {"difference": statistic(0.25), "p_adjusted": 0.012}
    made["tests"]["hypernetwork"]["average"] = {"difference": statistic(0.25), "p_adjusted": 0.12}
    text = tables.tests(made)
    assert text.count("<tr>") == 1 + len(made["methods"])
    assert "<strong>0.012</strong>" in text
    assert "<td>0.120</td>" in text
    assert "+0.250 <small>[+0.240, +0.260]</small>" in text
    assert tables.tests({"methods": made["methods"]}) == ""


def test_the_terminal_says_the_answer_first_and_last(one_pair, four_pairs, many):
    for run in (results.read_results(one_pair), results.read_results(four_pairs), many):
        text = report.table(run)
        lines = text.splitlines()
        assert max(map(len, lines)) <= 110
        assert not any(line.endswith(" ") for line in lines)
        assert "nan" not in text.lower().split()
        first = results.summary(run)[0]
        assert re.sub(r"\s+", " ", text).startswith(first)
        assert re.sub(r"\s+", " ", text).count(first) == 2


def test_the_terminal_table_of_a_pair_is_aligned_and_complete(one_pair):
    made = results.read_results(one_pair)
    lines = report.table(made).splitlines()
    rows = [line for line in lines if re.match(r"[> ] [a-z]", line) and "[" in line and "0." in line]
    rows = [line for line in rows if line.split()[-4:] and line[2:].split()[0] in made.pairs()[0]["methods"]]
    assert len(rows) == len(made.pairs()[0]["methods"])
    assert len({line.index("[") for line in rows}) == 1
    (best,) = [line for line in rows if line.startswith(">")]
    assert best.startswith("> cyclegan_b2a")
    assert "0.700 [0.690, 0.710]" in best
    (average,) = [line for line in rows if line.startswith("  average")]
    assert average.endswith("-  +0.120 p<0.001")  # not recovered, then the best generated minus it
    assert "always answering no gets" in " ".join(lines)


def test_the_terminal_of_many_pairs_has_a_leaderboard_and_a_line_each(many):
    lines = report.table(many).splitlines()
    board = [line for line in lines if re.match(r"[>= ] \w+ +\w.*\d\.\d{3} \[", line)]
    means = [float(re.search(r"(0\.\d{3}) \[", line)[1]) for line in board]
    assert len(board) == len(many.document["overall"]["methods"])
    assert means == sorted(means, reverse=True)
    assert [line[2:].split()[0] for line in board if line[0] == "="] == [
        "trained_on_conjunction",
        "and_ensemble",
    ]
    assert sum(line[0] == ">" for line in board) == 3
    assert all(
        any(line.startswith(f"{results.pair_title(made)} ") for line in lines) for made in many.pairs()
    )
    assert any(line.startswith("Skipped 35: ") for line in lines)
    assert "and 32 more in the report" in re.sub(r"\s+", " ", " ".join(lines))


def test_the_terminal_names_methods_not_measured_on_all_pairs():
    document = many_pairs(4)
    document["overall"]["methods"]["zipit"]["pairs"] = 3
    text = report.table(results.Results(results.normalised(document)))
    assert "Not measured on all pairs: zipit 3." in re.sub(r"\s+", " ", text)


def test_damaged_results_are_the_users_error(tmp_path):
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(UserError, match=r"results\.json is not valid JSON"):
        report.write_report(tmp_path)
