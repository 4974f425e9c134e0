"""The report of a run that repeats the reference: the finding in words, its tables, its figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelgan import results as results_lib
from kernelgan.report import figures, tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLUSTERERS = {"kmeans": "K-means", "one_class_svm": "one-class SVM", "dbscan": "DBSCAN"}
POPULATIONS = {
    "random": "random kernels",
    "gaussian": "Gaussian kernels",
    "attribute_only": "black zoo's own kernels",
    "object_only": "cat zoo's own kernels",
    "cyclegan_b2a": "generated (A)",
    "cyclegan_a2b": "generated (B)",
    "and_ensemble": "both parents side by side",
}
_ASKED = {"attribute_only": "the black zoo as trained", "object_only": "the cat zoo as trained"}
COMPARISONS = {
    "random": ("random kernels", "generated networks of both domains"),
    "black": ("the black zoo's own kernels, untranslated", "generated networks of both domains"),
    "source_a": ("the cat kernels that they were made from", "generated networks of domain A"),
    "source_b": ("the black kernels that they were made from", "generated networks of domain B"),
}
"""Who is compared with whom: the others, and the generated ones."""
SHORT = {
    "random": "both, random kernels",
    "black": "both, black kernels",
    "source_a": "A, its cat kernels",
    "source_b": "B, its black kernels",
}
_DECIDING = ("random", "black")
"""What a network that knows black cats must beat: no training at all, and one that knows black alone."""

Record = Mapping[str, Any]
Show = Callable[[str, Callable[[], "Figure"], str], str]


def is_reference(results: results_lib.Results) -> bool:
    """Whether the run repeated the reference."""
    return results.document.get("protocol") == "reference"


# The finding ----------------------------------------------------------------------------------------------


def beaten(results: results_lib.Results) -> dict[str, list[str]]:
    """For each comparison, the clusterers by which generated networks beat the others, in best or mean."""
    picked = _reference(results).get("picked") or {}
    return {
        name: [
            words
            for clusterer, words in CLUSTERERS.items()
            if min(_holm(picked, name, clusterer, what) for what in ("best", "mean"))
            < results_lib.SIGNIFICANCE
        ]
        for name in COMPARISONS
    }


def _holm(picked: Record, name: str, clusterer: str, what: str) -> float:
    """A corrected p-value; 1 where there is none."""
    test = ((picked.get(name) or {}).get(clusterer) or {}).get(what) or {}
    p_value = results_lib.number(test.get("holm_p_value"))
    return p_value if math.isfinite(p_value) else 1.0


def finding(results: results_lib.Results) -> list[str]:
    """What was claimed, what repeats, and what does not follow; in plain words, the answer first."""
    reference = _reference(results)
    return [
        _headline(results),
        *_claimed(reference),
        _repeats(results),
        _beats(results),
        _often(reference),
        _average(results),
        _asked(reference),
        *_few(results),
        "Fair is fair: that this could be checked at all is owed to the authors, who published every weight "
        "and photograph. P-values are over networks, given these photographs; they say nothing of others.",
    ]


def _few(results: results_lib.Results) -> list[str]:
    """What a run of a part of the networks cannot tell."""
    reference, methods = _reference(results), results.pairs()[0]["methods"]
    looked_at, there = (
        methods["cyclegan_a2b"]["networks"],
        min((reference.get("zoos") or {}).values(), default=0),
    )
    if looked_at >= there:
        return []
    return [
        f"Only {looked_at:,} of {there:,} generated networks in each direction were looked at: too few to "
        "tell small differences, so what is not shown here may be there."
    ]


def _headline(results: results_lib.Results) -> str:
    beats = beaten(results)
    repeat = _repeat_words(results)
    lost = [COMPARISONS[name][0] for name in _DECIDING if not beats[name]]
    if not lost:
        return (
            f"{repeat}, and its claim stands by its own protocol: picked and tuned in the same way, its "
            "generated networks beat random kernels and the black zoo's own."
        )
    return (
        f"{repeat}, but that networks for black cats were generated does not follow: picked and tuned in "
        f"the same way, they are not shown to beat {' or '.join(lost)}."
    )


def _repeat_words(results: results_lib.Results) -> str:
    reference = _reference(results)
    rows = reference.get("rows") or []
    if not rows:
        return "Its networks are assembled again (its own figures were not given to this run)"
    share = sum(_is_within(row, _one_photograph(results)) for row in rows) / len(rows)
    return "Its figures repeat" if share >= _MOST else "Its figures repeat in part"


def _beats(results: results_lib.Results) -> str:
    """What generated networks do beat, to be fair, and what they do not."""
    found = beaten(results)
    won = [
        f"{generated} beat {others} (by {' and '.join(found[name])})"
        for name, (others, generated) in COMPARISONS.items()
        if found[name]
    ]
    return f"What they do beat: {'; '.join(won)}." if won else "They are not shown to beat anything here."


def _claimed(reference: Record) -> list[str]:
    reported = reference.get("reported") or {}
    if not reported:
        return []
    best = ", ".join(
        f"{words} {reported[name]['best']:.3f} ({reported[name]['domain']}{reported[name]['model']})"
        for name, words in CLUSTERERS.items()
        if name in reported
    )
    rows = max(entry["rows"] for entry in reported.values())
    return [
        "Claimed: networks generated without a black cat tell black cats with 88% accuracy. Best of the "
        f"{rows} networks that it lists: {best}."
    ]


def _repeats(results: results_lib.Results) -> str:
    reference = _reference(results)
    checks, rows = reference.get("checks"), reference.get("rows") or []
    same = (
        "What repeats: networks assembled here from its weights have the features of an independent "
        f"computation (largest difference {checks['features']:.1e})"
        if checks
        else "What repeats: its networks were assembled from its weights"
    )
    if not rows:
        return f"{same}."
    one = _one_photograph(results)
    within = sum(_is_within(row, one) for row in rows)
    first = sum(
        abs(row["reported"]["accuracy"] - row["found"]["accuracy"]["first_seed"]) <= one for row in rows
    )
    return (
        f"{same}, and of its {len(rows)} reported accuracies {within} lie within what "
        f"{len(reference['seeds'])} seeds of UMAP and {len(reference['kmeans_seeds'])} of K-means give "
        f"here, give or take one photograph ({first} at the notebook's own seeds)."
    )


def _one_photograph(results: results_lib.Results) -> float:
    """What one photograph counts in an accuracy, and the rounding of a printed figure."""
    counts = (results.pairs()[0].get("data") or {}).get("test") or {}
    return 1 / max(1, sum(counts.values())) + 0.001


def _is_within(row: Record, margin: float) -> bool:
    """Whether a reported accuracy lies in our range."""
    found = row["found"]["accuracy"]
    return bool(found["low"] - margin <= row["reported"]["accuracy"] <= found["high"] + margin)


_MOST = 0.8


def _often(reference: Record) -> str:
    tail = reference["fixed"]["kmeans"]["tail"]
    shares = ", ".join(
        f"{POPULATIONS.get(name, name)} {100 * entry['share']:.1f}%" for name, entry in tail["shares"].items()
    )
    return (
        "How often a network is as good as the worst of the picked, before tuning (K-means, accuracy "
        f"{tail['threshold']:.3f}): {shares}."
    )


def _average(results: results_lib.Results) -> str:
    methods = results.pairs()[0]["methods"]
    accuracy = {
        name: results_lib.interval(methods.get(name), "clustering.kmeans.accuracy") for name in POPULATIONS
    }
    parts = [f"{POPULATIONS[name]} {value.mean:.3f}" for name, value in accuracy.items() if value.known]
    trivial = _reference(results).get("trivial") or {}
    parts += [
        f"{words} {trivial[name]:.3f}"
        for name, words in (
            ("always_other", "always answering no"),
            ("central_brightness", "dark in the middle, at its best threshold"),
        )
        if name in trivial
    ]
    return f"No network picked, mean accuracy of K-means under the fixed protocol: {', '.join(parts)}."


def _asked(reference: Record) -> str:
    asked = reference.get("asked") or {}
    parts = [
        f"{_ASKED.get(name) or POPULATIONS[name]} {results_lib.interval(record, 'auroc').text()}"
        for name, record in asked.items()
        if name in POPULATIONS and name != "gaussian"
    ]
    return (
        "Asked outright, which the original does not do (both parents' heads, no cluster named by test "
        f"labels), AUROC of black cats against the rest: {', '.join(parts)}."
    )


def _reference(results: results_lib.Results) -> dict[str, Any]:
    return results.document.get("reference") or {}


# The page -------------------------------------------------------------------------------------------------


def rows_table(results: results_lib.Results) -> str:
    """Every row of the reference's report beside ours."""
    reference = _reference(results)
    rows = reference.get("rows") or []
    if not rows:
        return '<p class="note">The table of reported results was not given to this run.</p>'
    head = (
        '<tr><th rowspan="2">network</th><th class="group" colspan="4">accuracy</th>'
        '<th class="group divide" colspan="2">recall<br>(printed as &ldquo;precision&rdquo;)</th>'
        '<th class="group divide" colspan="2">precision<br>(printed as &ldquo;recall&rdquo;)</th>'
        '<th class="group divide" colspan="3">entropy</th><th class="group divide" '
        'colspan="3">purity</th></tr>'
        "<tr><th>reported</th><th>ours</th><th>range</th><th>first seed</th>"
        '<th class="divide">reported</th><th>ours</th><th class="divide">reported</th><th>ours</th>'
        + '<th class="divide">reported</th><th>ours, as printed</th><th>ours, standard</th>' * 2
        + "</tr>"
    )
    body = []
    kind = ""
    margin = _one_photograph(results)
    for row in rows:
        if row["clusterer"] != kind:
            kind = row["clusterer"]
            body.append(f'<tr class="kind"><th colspan="15">{escape(CLUSTERERS.get(kind, kind))}</th></tr>')
        found, printed = row["found"], row["reported"]["as_printed"]
        accuracy = found["accuracy"]
        cells = [
            ("", tables.number(row["reported"]["accuracy"])),
            ("", f"<strong>{accuracy['mean']:.3f}</strong>{_spread(accuracy)}"),
            (
                "",
                f"{accuracy['low']:.3f} to {accuracy['high']:.3f}"
                + ("" if _is_within(row, margin) else " *"),
            ),
            ("", tables.number(accuracy["first_seed"])),
            ("divide", tables.number(printed["precision"])),
            ("", _mean(found["recall"])),
            ("divide", tables.number(printed["recall"])),
            ("", _mean(found["precision"])),
            ("divide", tables.number(printed["entropy"])),
            ("", _mean(found["entropy_as_printed"])),
            ("", _mean(found["cluster_entropy"])),
            ("divide", tables.number(printed["purity"])),
            ("", _mean(found["purity_as_printed"])),
            ("", _mean(found["cluster_purity"])),
        ]
        text = "".join(f'<td class="{style}">{cell}</td>' for style, cell in cells)
        body.append(f"<tr><th>{escape(row['domain'])}{row['model']}</th>{text}</tr>")
    seeds = ", ".join(map(str, reference["seeds"]))
    return (
        '<div class="scroll"><table '
        f'class="wide"><thead>{head}</thead><tbody>{"".join(body)}</tbody></table></div>'
        f'<p class="note">Ours: mean and standard deviation over the UMAP seeds {escape(seeds)}; the '
        "first is the notebook's. K-means under all of its own seeds too; "
        "DBSCAN at the best radius and minimum for each seed, as the reference "
        "chose them. What it prints as precision is recall and the other way round (its &ldquo;false "
        "positives&rdquo; are missed black cats); its entropy and purity are of the cluster labels within "
        "each class, where the standard ones are of the classes within each cluster. * The reported "
        "accuracy is more than one photograph outside our range.</p>"
    )


def _spread(statistic: Record) -> str:
    sd = results_lib.number(statistic.get("sd"))
    return f" <small>&plusmn; {sd:.3f}</small>" if math.isfinite(sd) else ""


def _mean(statistic: Record) -> str:
    return f"{tables.number(statistic['mean'])}{_spread(statistic)}"


def picked_table(results: results_lib.Results) -> str:
    """The same picking and tuning on either side, and its p-values."""
    reference = _reference(results)
    rows = []
    for comparison in COMPARISONS:
        tests = (reference.get("picked") or {}).get(comparison) or {}
        for name, test in tests.items():
            best, mean = test["best"], test["mean"]
            reported = (reference.get("reported") or {}).get(name)
            rows.append(
                (
                    f"{escape(SHORT[comparison])}: {escape(CLUSTERERS.get(name, name))}",
                    tables.number(reported["best"]) if reported else tables.DASH,
                    *(
                        cell
                        for figures_of in (best, mean)
                        for cell in (
                            f"<strong>{figures_of['generated']:.3f}</strong>",
                            f"<strong>{figures_of['null']:.3f}</strong>",
                            f"{figures_of['difference']:+.3f} "
                            f"<small>[{figures_of['relabelled_ci95'][0]:+.3f}, "
                            f"{figures_of['relabelled_ci95'][1]:+.3f}]</small>",
                            f"{escape(results_lib.p_text(figures_of['holm_p_value']).removeprefix('p = '))} "
                            f"<small>{escape(results_lib.p_text(figures_of['p_value']))}</small>",
                        )
                    ),
                )
            )
    head = ("", "reported best", *(("generated", "others", "difference", "p, Holm's") * 2))
    one = next(iter(reference["picked"]["random"].values()))
    table = tables.plain(head, rows, "wide").replace(
        "<thead>",
        '<thead><tr><th></th><th></th><th class="group" colspan="4">best of the picked</th>'
        '<th class="group" colspan="4">mean of the picked</th></tr>',
    )
    return table + (
        f'<p class="note">On either side the {one["picked"]} networks that do best under the fixed '
        "protocol are picked, for each clusterer by that clusterer; then each is tuned over "
        f"{int(reference.get('tuning_seeds') or len(reference['seeds']))} UMAP seeds and, for K-means, over "
        "its seeds, for DBSCAN over its radii and minima. "
        "In brackets, 95% of the differences under relabelling. One-sided p-values: "
        f"{one['draws']:,} relabellings of all networks, each with the same picking on both sides (Fisher, "
        "1935); Holm's over the six of each comparison.</p>"
    )


def fixed_table(results: results_lib.Results) -> str:
    """Every population under the fixed protocol, with no network picked."""
    reference, methods = _reference(results), results.pairs()[0]["methods"]
    rows = []
    for name, words in POPULATIONS.items():
        method = methods.get(name)
        if method is None:
            continue
        cells = [f"{method['networks']:,}"]
        for clusterer in CLUSTERERS:
            statistic = method["clustering"][clusterer]["accuracy"]
            value = results_lib.interval(statistic)
            share = reference["fixed"][clusterer]["tail"]["shares"].get(name)
            text = f"{100 * share['share']:.1f}%" if share else tables.DASH
            p_value = results_lib.number((share or {}).get("p_value"))
            if math.isfinite(p_value):
                text += f" <small>{escape(results_lib.p_text(p_value))}</small>"
            cells += [
                f"<strong>{value.text()}</strong>",
                tables.number(results_lib.number(statistic.get("best"))),
                text,
            ]
        rows.append((escape(words), *cells))
    together = [f"{reference['fixed']['kmeans']['tail']['shares']['generated']['networks']:,}"]
    for clusterer in CLUSTERERS:
        fixed = reference["fixed"][clusterer]
        share = fixed["tail"]["shares"]["generated"]["share"]
        together += [
            f"<strong>{fixed['mean']['mean']:.3f}</strong>",
            tables.number(fixed["best"]["observed"]),
            f"{100 * share:.1f}%",
        ]
    rows.append(("generated, both domains", *together))
    pixels = (reference.get("trivial") or {}).get("pixels") or {}
    rows.append(
        (
            "pixels for features",
            "1",
            *(
                cell
                for name in CLUSTERERS
                for cell in (tables.number(pixels[name]), tables.DASH, tables.DASH)
            ),
        )
    )
    head = ["", "networks"]
    for name, words in CLUSTERERS.items():
        threshold = reference["fixed"][name]["tail"]["threshold"]
        head += [f"{words}: mean", "best", f"at least {threshold:.3f}"]
    return tables.plain(head, rows, "wide") + (
        '<p class="note">Accuracy under one fixed protocol: the notebook\'s seeds; DBSCAN at the best radius '
        "for each network. The last column of each clusterer: how often a network is as good as the worst of "
        "the generated ones that would be picked; p (Fisher's exact test) that generated networks are that "
        "good more often than these.</p>"
    )


def asked_table(results: results_lib.Results) -> str:
    """The networks' own answers."""
    rows = [
        (
            escape(_ASKED.get(name) or POPULATIONS.get(name, name)),
            f"{record['networks']:,}",
            f"<strong>{results_lib.interval(record, 'auroc').text()}</strong>",
            results_lib.interval(record, "balanced_accuracy").text(),
        )
        for name, record in (_reference(results).get("asked") or {}).items()
    ]
    return tables.plain(("", "networks", "AUROC against the rest", "balanced accuracy"), rows, "counts") + (
        '<p class="note">Each network answers by itself, with the parents\' own dense layers, so no test '
        "label names a cluster and nothing is tuned. The parents are as trained; black cats are black, so "
        "that black alone already tells them from most of the rest. Means over networks, 95% intervals "
        "over networks and photographs.</p>"
    )


def sections(results: results_lib.Results, show: Show) -> list[str]:
    """The body of the page.

    Args:
      results: of a run that repeated the reference.
      show: ``(file name, draw, caption) -> HTML``.
    """
    pair, beats = results.pairs()[0], beaten(results)
    first, *rest = finding(results)
    badge, tone = (
        ("✓ Stands", "yes") if all(beats[name] for name in _DECIDING) else ("✗ Does not follow", "no")
    )
    lines = "".join(f"<li>{escape(line)}</li>" for line in rest)
    verdict = (
        f'<section class="verdict {tone}"><span class="badge">{badge}</span><h2>{escape(first)}</h2>'
        f"<ul>{lines}</ul></section>"
    )
    notes = "".join(
        f'<p class="note">{escape(str(note))}</p>' for note in results.document["data"].get("notes") or ()
    )
    return [
        verdict,
        _section(
            "The same picking on both sides",
            show(
                "relabelled",
                lambda: relabelled(results),
                "Mean accuracy of the picked generated networks less that of the picked others (line), and "
                "the same in every relabelling of which is which (bars). A line among the bars shows "
                "nothing; to their left, the others are better.",
            ),
            picked_table(results),
        ),
        _section(
            "No network picked",
            show(
                "accuracies",
                lambda: accuracies(results),
                "Accuracy of every network under the fixed protocol: bars as high as the share of networks "
                "there, a mark at each mean. Picking rewards a wide spread, not a high mean.",
            ),
            fixed_table(results),
        ),
        _section("Its report beside ours", rows_table(results), notes),
        _section(
            "What the clusterers see",
            show(
                "planes",
                lambda: planes(results),
                "UMAP of the features of the photographs, first seed. The right-hand network has random "
                "kernels.",
            ),
        ),
        _section("Asked outright", asked_table(results)),
        _section(
            "All figures",
            tables.clustering(pair, "All networks of each population, the reference's photographs."),
            tables.features(pair),
            tables.descriptions(pair),
        ),
    ]


def _section(heading: str, *content: str) -> str:
    return f"<section>\n<h2>{escape(heading)}</h2>\n" + "\n".join(content) + "\n</section>"


# The terminal ---------------------------------------------------------------------------------------------


def lines(results: results_lib.Results) -> list[str]:
    """The comparisons, and its report beside ours with one line a network, as text."""
    return [*_comparison_lines(results), "", *_row_lines(results)]


def _comparison_lines(results: results_lib.Results) -> list[str]:
    picked = _reference(results).get("picked") or {}
    head = f"{'the picked, tuned':<22}{'':<15}" + f"{'best':>18}{'p, Holm':>17}{'mean':>18}{'p, Holm':>17}"
    under = f"{'':<37}" + f"{'generated, others':>18}{'':>17}" * 2
    rule = "-" * len(head)
    found = [head, under.rstrip(), rule]
    for name in COMPARISONS:
        for number, (clusterer, words) in enumerate(CLUSTERERS.items()):
            test = (picked.get(name) or {}).get(clusterer)
            if test is None:
                continue
            cells = "".join(
                f"{test[what]['generated']:>12.3f} {test[what]['null']:.3f}"
                f"{results_lib.p_text(test[what]['holm_p_value']):>17}"
                for what in ("best", "mean")
            )
            found.append(f"{SHORT[name] if number == 0 else '':<22}{words:<15}{cells}")
    return [*found, rule, "one-sided p by relabelling, Holm's over the six of a comparison"]


def _row_lines(results: results_lib.Results) -> list[str]:
    rows = _reference(results).get("rows") or []
    if not rows:
        return []
    by_network: dict[tuple[str, int], dict[str, Record]] = {}
    margin = _one_photograph(results)
    for row in rows:
        by_network.setdefault((row["domain"], row["model"]), {})[row["clusterer"]] = row
    head = f"{'accuracy':<9}" + "".join(f"{words:>33}" for words in CLUSTERERS.values())
    under = f"{'network':<9}" + f"{'reported':>9} {'ours, lowest to highest':>23}" * len(CLUSTERERS)
    rule = "-" * len(head)
    found = [head, under, rule]
    for (domain, model), entries in by_network.items():
        cells = ""
        for clusterer in CLUSTERERS:
            row = entries.get(clusterer)
            if row is None:
                cells += f"{'-':>33}"
                continue
            ours = row["found"]["accuracy"]
            mark = " " if _is_within(row, margin) else "*"
            text = f"{ours['mean']:.3f}, {ours['low']:.3f} to {ours['high']:.3f}"
            cells += f"{row['reported']['accuracy']:>9.3f}{mark}{text:>23}"
        found.append(f"{domain + str(model):<9}{cells}")
    seeds = len(_reference(results)["seeds"])
    return [
        *found,
        rule,
        f"ours: mean over {seeds} seeds of UMAP. * more than one photograph outside our range.",
    ]


# Figures --------------------------------------------------------------------------------------------------


def accuracies(results: results_lib.Results) -> Figure:
    """Accuracy of every network under the fixed protocol, and what was reported."""
    pair, reference = results.pairs()[0], _reference(results)
    figure = figures.new(figures.WIDTH, 3.6)
    panels = figure.subplots(1, len(CLUSTERERS), sharey=True)
    for axes, (clusterer, words) in zip(panels, CLUSTERERS.items(), strict=True):
        found = results.arrays_under(pair, f"accuracy/{clusterer}")
        names = [name for name in POPULATIONS if name in found]
        if not names:
            raise figures.MissingError(f"arrays.npz has no accuracy/{clusterer}")
        for y, name in enumerate(names):
            values = np.asarray(found[name], np.float64)
            color, marker = figures.KIND_STYLE[pair["methods"][name]["kind"]]
            levels, counts = np.unique(values, return_counts=True)
            # Accuracies are whole photographs: one bar a level, as high as the share of networks there.
            height = -0.8 * counts / counts.max()  # the axis runs downwards
            axes.bar(levels, height, width=0.009, bottom=y + 0.4, color=color, alpha=0.75, lw=0)
            style: dict[str, Any] = {"color": color, "mec": figures.INK, "mew": 0.8}
            axes.plot(values.mean(), y + 0.4, marker=marker, ms=6, ls="", zorder=4, **style)
        reported = (reference.get("reported") or {}).get(clusterer)
        if reported:
            axes.axvline(reported["best"], color=figures.VERMILLION, lw=1.4, ls="--", label="best reported")
        other = results_lib.number((reference.get("trivial") or {}).get("always_other"))
        if math.isfinite(other):
            axes.axvline(other, color=figures.GREY, lw=1, ls=":", label="always answering no")
        axes.set_yticks(range(len(names)), [POPULATIONS[name] for name in names])
        axes.set_ylim(len(names) - 0.45, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.set_title(words)
        axes.set_xlabel("accuracy")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=2)
    return figure


def relabelled(results: results_lib.Results) -> Figure:
    """How far apart the picked of two sides are, on average: in every relabelling, and as observed."""
    pair, reference = results.pairs()[0], _reference(results)
    figure = figures.new(figures.WIDTH, 7.6)
    panels = figure.subplots(len(COMPARISONS), len(CLUSTERERS))
    for row, name in zip(panels, COMPARISONS, strict=True):
        for axes, (clusterer, words) in zip(row, CLUSTERERS.items(), strict=True):
            values = results.array(pair, f"relabelled/{name}/{clusterer}/mean")
            if values is None:
                raise figures.MissingError(f"arrays.npz has no relabelled/{name}/{clusterer}/mean")
            test = reference["picked"][name][clusterer]["mean"]
            axes.hist(np.asarray(values), bins=40, color=figures.GREY, alpha=0.6, label="relabelled")
            axes.axvline(test["difference"], color=figures.VERMILLION, lw=1.8, label="observed")
            axes.axvline(0, color=figures.INK, lw=0.8, ls=":")
            axes.set_title(f"{words}, {results_lib.p_text(test['holm_p_value'])} (Holm's)", fontsize=9)
            axes.set_yticks([])
            axes.locator_params(axis="x", nbins=4)
        row[0].set_ylabel(SHORT[name].replace(", ", " against\n"))
    for axes in panels[-1]:
        axes.set_xlabel("generated less the others")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=2)
    return figure


def planes(results: results_lib.Results) -> Figure:
    """UMAP planes of the reported best, and of the best of each side under the fixed protocol."""
    pair = results.pairs()[0]
    positive = results.array(pair, "positive")
    found = results.arrays_under(pair, "embedding")
    if positive is None or not found:
        raise figures.MissingError("arrays.npz has no embedding or no labels of the photographs")
    figure = figures.new(figures.WIDTH, 3.2)
    panels = np.atleast_1d(figure.subplots(1, len(found)))
    for axes, (title, points) in zip(panels, found.items(), strict=True):
        for mask, color, marker, label in (
            (~positive, figures.GREY, "x", "other photographs"),
            (positive, figures.BLACK, "o", "black cats"),
        ):
            axes.scatter(*points[mask].T, s=16, color=color, marker=marker, lw=0.8, label=label, alpha=0.8)
        axes.set_title(title, fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=2)
    return figure
