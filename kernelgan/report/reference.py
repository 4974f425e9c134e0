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
NULLS = {
    "random": "random kernels",
    "untranslated": "the untranslated kernels that they were made from",
}
SHORT = {"random": "random kernels", "untranslated": "untranslated kernels"}
_MEASURES = ("precision", "recall", "cluster_entropy", "cluster_purity")

Record = Mapping[str, Any]
Show = Callable[[str, Callable[[], "Figure"], str], str]


def is_reference(results: results_lib.Results) -> bool:
    """Whether the run repeated the reference."""
    return results.document.get("protocol") == "reference"


# The finding ----------------------------------------------------------------------------------------------


def adjusted(picked: Record, null: str) -> dict[tuple[str, str], float]:
    """P-values of the picked networks by (clusterer, "best" or "mean"), after Holm (1979)."""
    raw = {
        (name, what): results_lib.number((test.get(what) or {}).get("p_value"))
        for name, test in (picked.get(null) or {}).items()
        for what in ("best", "mean")
    }
    found, worst = {}, 0.0
    for rank, key in enumerate(sorted(raw, key=lambda key: raw[key])):
        worst = max(worst, min(1.0, (len(raw) - rank) * raw[key]))
        found[key] = worst
    return found


def supported(results: results_lib.Results) -> dict[str, list[str]]:
    """For each null, the clusterers by which picked generated networks beat it, in best or in mean."""
    picked = _reference(results).get("picked") or {}
    found: dict[str, list[str]] = {}
    for null in NULLS:
        won = {name for (name, _), p in adjusted(picked, null).items() if p < results_lib.SIGNIFICANCE}
        found[null] = [words for name, words in CLUSTERERS.items() if name in won]
    return found


def finding(results: results_lib.Results) -> list[str]:
    """What was claimed, what repeats, and what does not follow; in plain words, the answer first."""
    reference = _reference(results)
    return [
        _headline(results),
        *_claimed(reference),
        _repeats(reference),
        *(_against(reference, null) for null in NULLS),
        _often(reference),
        _average(results),
        _asked(reference),
        "Fair is fair: that this could be checked at all is owed to the authors, who published every weight "
        "and photograph. P-values are over networks, given these photographs; they say nothing of others.",
    ]


def _headline(results: results_lib.Results) -> str:
    beats = supported(results)
    lost = [words for null, words in NULLS.items() if not beats[null]]
    repeat = _share_within(_reference(results)) >= _MOST
    figures_words = "Its figures repeat" if repeat else "Its figures repeat in part"
    if not lost:
        return (
            f"{figures_words}, and its claim stands by its own protocol: picked and tuned alike, its "
            "generated networks beat random ones and the ones that they were made from."
        )
    but = (
        f" (random kernels they do beat, by {' and '.join(beats['random'])})"
        if beats["random"] and not beats["untranslated"]
        else ""
    )
    return (
        f"{figures_words}, but that networks for black cats were generated does not follow: picked and "
        f"tuned in the same way, they do not beat {' or '.join(lost)}{but}."
    )


def _claimed(reference: Record) -> list[str]:
    reported = reference.get("reported") or {}
    if not reported:
        return ["Claimed: 88% on black cats (its table of results was not given to this run)."]
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


def _repeats(reference: Record) -> str:
    checks, rows = reference.get("checks"), reference.get("rows") or []
    same = (
        "What repeats: networks assembled here from its weights have the features of an independent "
        f"computation (largest difference {checks['features']:.1e})"
        if checks
        else "What repeats: its networks were assembled from its weights"
    )
    if not rows:
        return f"{same}."
    within = sum(_is_within(row) for row in rows)
    return (
        f"{same}, and of its {len(rows)} reported accuracies {within} lie within what "
        f"{len(reference['seeds'])} seeds of UMAP give here."
    )


def _share_within(reference: Record) -> float:
    rows = reference.get("rows") or []
    return sum(_is_within(row) for row in rows) / len(rows) if rows else 1.0


def _is_within(row: Record) -> bool:
    """Whether a reported accuracy lies in our range, give or take one photograph of the 89 (0.011)."""
    found = row["found"]["accuracy"]
    return found["low"] - _ONE_PHOTOGRAPH <= row["reported"]["accuracy"] <= found["high"] + _ONE_PHOTOGRAPH


_ONE_PHOTOGRAPH = 0.012
_MOST = 0.8


def _against(reference: Record, null: str) -> str:
    tests = (reference.get("picked") or {}).get(null) or {}
    p_values = adjusted(reference["picked"], null)
    parts = [
        f"{words} best {test['best']['generated']:.3f} to {test['best']['null']:.3f} "
        f"({results_lib.p_text(p_values[name, 'best'])}), mean {test['mean']['generated']:.3f} to "
        f"{test['mean']['null']:.3f} ({results_lib.p_text(p_values[name, 'mean'])})"
        for name, words in CLUSTERERS.items()
        if (test := tests.get(name))
    ]
    one = next(iter(tests.values()))
    return (
        f"Against {NULLS[null]}: of {one['candidates']:,} generated and {one['null_networks']:,} of these "
        f"the {one['picked']} best each, tuned: {'; '.join(parts)}. One-sided p by relabelling, Holm's "
        f"over the {len(p_values)}."
    )


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
    return f"Nothing picked, mean accuracy of K-means under the fixed protocol: {', '.join(parts)}."


def _asked(reference: Record) -> str:
    asked = reference.get("asked") or {}
    parts = [
        f"{POPULATIONS[name]} {results_lib.interval(record, 'auroc').text()}"
        for name, record in asked.items()
        if name in POPULATIONS and name != "gaussian"
    ]
    return (
        "Asked outright (both parents' heads, no cluster named by test labels), AUROC of black cats "
        f"against the rest: {', '.join(parts)}."
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
    for row in rows:
        if row["clusterer"] != kind:
            kind = row["clusterer"]
            body.append(f'<tr class="kind"><th colspan="15">{escape(CLUSTERERS.get(kind, kind))}</th></tr>')
        found, printed = row["found"], row["reported"]["as_printed"]
        accuracy = found["accuracy"]
        cells = [
            ("", tables.number(row["reported"]["accuracy"])),
            ("", f"<strong>{accuracy['mean']:.3f}</strong>{_spread(accuracy)}"),
            ("", f"{accuracy['low']:.3f} to {accuracy['high']:.3f}" + ("" if _is_within(row) else " *")),
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
        "first is the notebook's. DBSCAN at the best radius and minimum for each seed, as the reference "
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
    for null in NULLS:
        tests = (reference.get("picked") or {}).get(null) or {}
        holm = adjusted(reference["picked"], null)
        for name, test in tests.items():
            best, mean = test["best"], test["mean"]
            reported = (reference.get("reported") or {}).get(name)
            rows.append(
                (
                    f"{escape(CLUSTERERS.get(name, name))} against {escape(SHORT[null])}",
                    tables.number(reported["best"]) if reported else tables.DASH,
                    *(
                        cell
                        for what, figures_of in (("best", best), ("mean", mean))
                        for cell in (
                            f"<strong>{figures_of['generated']:.3f}</strong>",
                            f"<strong>{figures_of['null']:.3f}</strong>",
                            f"{figures_of['difference']:+.3f} "
                            f"<small>[{figures_of['relabelled_ci95'][0]:+.3f}, "
                            f"{figures_of['relabelled_ci95'][1]:+.3f}]</small>",
                            escape(results_lib.p_text(figures_of["p_value"])),
                            escape(results_lib.p_text(holm[name, what])),
                        )
                    ),
                )
            )
    head = ("", "reported best", *(("generated", "null", "difference", "p", "p (Holm)") * 2))
    one = next(iter(reference["picked"]["random"].values()))
    table = tables.plain(head, rows, "wide").replace(
        "<thead>",
        '<thead><tr><th></th><th></th><th class="group" colspan="5">best of the picked</th>'
        '<th class="group" colspan="5">mean of the picked</th></tr>',
    )
    return table + (
        f'<p class="note">On either side the {one["picked"]} networks that do best under the fixed '
        "protocol are "
        "picked, for each clusterer by that clusterer; then each is tuned over "
        f"{int(reference.get('tuning_seeds') or len(reference['seeds']))} UMAP seeds and, for DBSCAN, over "
        "its radii and minima. In brackets, 95% of the differences under relabelling. One-sided p-values: "
        f"{one['draws']:,} relabellings of all networks, each with the same picking on both sides (Fisher, "
        "1935); Holm's over the six of each null.</p>"
    )


def fixed_table(results: results_lib.Results) -> str:
    """Every population under the fixed protocol, with nothing picked."""
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
            escape(POPULATIONS.get(name, name)),
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
    pair, beats = results.pairs()[0], supported(results)
    first, *rest = finding(results)
    badge, tone = ("✓ Stands", "yes") if all(beats.values()) else ("✗ Does not follow", "no")
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
            "Nothing picked",
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
    """Its report beside ours as text, one line a network: reported accuracy, and ours over the seeds."""
    rows = _reference(results).get("rows") or []
    if not rows:
        return []
    by_network: dict[tuple[str, int], dict[str, Record]] = {}
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
            mark = " " if _is_within(row) else "*"
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
    figure = figures.new(figures.WIDTH, 4.2)
    panels = figure.subplots(len(NULLS), len(CLUSTERERS))
    for row, null in zip(panels, NULLS, strict=True):
        for axes, (clusterer, words) in zip(row, CLUSTERERS.items(), strict=True):
            values = results.array(pair, f"relabelled/{null}/{clusterer}/mean")
            if values is None:
                raise figures.MissingError(f"arrays.npz has no relabelled/{null}/{clusterer}/mean")
            test = reference["picked"][null][clusterer]["mean"]
            axes.hist(np.asarray(values), bins=40, color=figures.GREY, alpha=0.6, label="relabelled")
            axes.axvline(test["difference"], color=figures.VERMILLION, lw=1.8, label="observed")
            axes.axvline(0, color=figures.INK, lw=0.8, ls=":")
            axes.set_title(f"{words}, {results_lib.p_text(test['p_value'])}", fontsize=9)
            axes.set_yticks([])
        row[0].set_ylabel(f"against\n{SHORT[null]}")
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
