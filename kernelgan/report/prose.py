"""The verdict in plain words: what follows from the stored `results.Verdict`. No rule is applied here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from kernelgan.baselines import PARENTS
from kernelgan.evaluation.verdict import COPIED_ANSWERS, COPY, SIGNIFICANCE, TIERS, TRAININGS, falls
from kernelgan.report import metrics
from kernelgan.results import (
    ANSWERS,
    NOTHING,
    Comparison,
    Measured,
    Overall,
    Pair,
    Row,
    Run,
    Test,
    Verdict,
)

OUTCOMES = {
    "above": "above",
    "below": "below",
    "cannot tell": "not clearly different from",
    "not measured": "not compared with",
}
MARKS = {"yes": "✓ Yes", "no": "✗ No", "cannot tell": "? Cannot tell"}
MARKED = {
    "inverted": "images of neither concept score far above those of both",
    "below a merge": "it is trained, or larger than a parent, and yet a merge that is neither scores higher",
}
"""What the word beside a figure of merit means, see `marks`."""
_FEW_CONCEPTS = 5
_INVERTED = 0.3
"""An AUROC below which a detector says the opposite of what it is asked."""
_REFERENCES = ("trained apart", "same size", "two nets", "reference")
"""Kinds of methods that are trained, or larger, and so should be above merges."""
_FEW_RIVALS = 3
_LARGEST_GAIN = 0.5
"""Of an AUROC over chance."""


def tone(verdict: Verdict) -> str:
    """The colour of an answer: "yes", "no" or "cannot"."""
    return verdict.answer.split()[0]


def in_words(row: Row | None, name: str = "", more: Sequence[str] = ()) -> str:
    """``both parents run side by side (its_name)``; the name alone where there is no label.

    Args:
      row: the method; None where it was not measured.
      name: its name, for that case.
      more: what to add in the brackets.
    """
    name, label = (row.name, row.label) if row else (name, "")
    inside = [word for word in ([name] if label else []) + list(more) if word]
    return f"{label or name} ({', '.join(inside)})" if inside else name


def p_text(p_value: float, missing: str = "p = -") -> str:
    """``p = 0.012``, ``p < 0.001``, or `missing`."""
    if not math.isfinite(p_value):
        return missing
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"


def p_value(record: Measured, generated: str, rival: str) -> float:
    """Of a test between a generated method and another, as the verdict counts it; NaN without a test.

    Of the best generated method the verdict's own: a rival that is ahead is corrected for the number of those
    that must be beaten, and random networks are tested by permutation too.
    """
    stated = [
        each.p_value
        for each in record.verdict.comparisons
        if each.rival == rival and generated == record.verdict.best and math.isfinite(each.p_value)
    ]
    return stated[0] if stated else record.tests.get(generated, {}).get(rival, Test()).p_adjusted


def clear(p_value: float) -> bool:
    """Whether a p-value is below the level that the verdict uses."""
    return p_value < SIGNIFICANCE


def joined(words: Sequence[str], last: str = "and") -> str:
    """``a, b and c``."""
    return f"{', '.join(words[:-1])} {last} {words[-1]}" if len(words) > 1 else "".join(words)


def merit_title(record: Measured) -> str:
    """The name of the figure of merit."""
    return metrics.title(f"auroc.{record.merit}")


def summary(run: Run, brief: bool = False) -> list[str]:
    """The verdict on the whole run, the answer first: that on its only pair, or over its pairs.

    Args:
      run: with its verdicts.
      brief: see `verdict`.
    """
    if len(run.pairs) == 1:
        first, *rest = verdict(run.pairs[0], brief)
        return [first, *_given(run), *rest]
    lines = verdict(run.overall, brief) if run.overall else [
        f"Cannot tell over the {len(run.pairs)} pairs: they have different figures of merit, so they were "
        "not compared together."
    ]  # fmt: skip
    leaky = [pair.title for pair in run.pairs if pair.data.leaked]
    if leaky:
        lines[0] = (
            f"Cannot tell: images of the conjunction were read in training on {joined(leaky)}, so no figure "
            "over all pairs counts. Mend the data first."
        )
    lines[1:1] = _given(run)
    titles = {
        answer: [pair.title for pair in run.pairs if pair.verdict.answer == answer] for answer in ANSWERS
    }
    counts = ", ".join(f"{answer} on {len(titles[answer])}" for answer in ANSWERS)
    lines.append(f"Pair by pair, of {len(run.pairs)}: {counts} (p-values corrected over pairs, Holm).")
    lines += [f"Yes: {', '.join(titles['yes'])}."] if titles["yes"] else []
    return [*lines, *_free_concepts(run.pairs), *_sealed(run.pairs)]


def _sealed(pairs: Sequence[Pair]) -> list[str]:
    """How many pairs are sealed, where a file of splits says so."""
    count = sum(pair.sealed is True for pair in pairs)
    folds = {pair.fold for pair in pairs if pair.fold}
    if not folds:
        return []
    return [
        f"{count} of the pairs are sealed, {len(pairs) - count} are for development ({len(folds)} folds)."
    ]


def _given(run: Run) -> list[str]:
    """On what a "yes" rests where the parents were trained elsewhere."""
    zoo = run.config.get("zoo") or {}
    files = [zoo[field] for field in ("attribute_file", "object_file") if zoo.get(field)]
    if run.verdict.answer != "yes" or not files:
        return []
    names = joined([Path(file).name for file in files])
    return [
        f"That holds only if the parents in {names} never saw the conjunction, which no gate could check."
    ]


def verdict(record: Measured, brief: bool = False) -> list[str]:
    """The verdict on one pair, or over all, line by line, the answer first.

    Args:
      record: with its verdict.
      brief: without what the tests could find, what was behind the networks, the other generated methods.
    """
    if not record.verdict.best:
        return [f"Cannot tell: no generated network was scored on {_subject(record)}."]
    best = record.methods[record.verdict.best]
    over = f"{best.networks} networks" if isinstance(record, Pair) else _subject(record)
    main = [
        headline(record),
        *general(record),
        f"Best generated method: {in_words(best)}, mean {merit_title(record)} "
        f"{record.figure(best.name).text()}{_lowest_mean(best)}, over {over}.",
        *_copied(record),
        *_placebos(record),
        *_tiers(record),
        *_to_reach(record),
        *_recovered(record),
        *_marked(record),
    ]
    if brief:
        return main
    return [
        *main,
        *(binding(record) if isinstance(record, Pair) else []),
        _required(record),
        *_others(record),
        *_trainings(best),
        *_behind(best),
        *_detectable(record),
        *([_null(record)] if isinstance(record, Pair) else []),
        _scope(record),
    ]


def _lowest_mean(row: Row) -> str:
    """The lowest of the quadrants' means, beside the mean of each network's lowest."""
    found = row.auroc.get("worst_of_means", NOTHING)
    return f" (lowest quadrant's mean {found.mean:.3f})" if found.known else ""


def general(record: Measured) -> list[str]:
    """The question and the figure of merit; a page of several pairs says this once."""
    attribute, thing, both = "an attribute (such as black)", "an object (such as cat)", "images of both"
    images = {}
    if isinstance(record, Pair):
        attribute, thing = record.pair.attribute, record.pair.object
        both, images = f"a {record.title}", record.data.test
    return [
        f"The question: can networks made from networks for {attribute} and networks for {thing} recognise "
        f"{both}, though none of these networks was ever shown an example?",
        metrics.explained(f"auroc.{record.merit}", images),
    ]


def headline(record: Measured) -> str:
    """The answer and what it rests on, in one or two sentences."""
    answer, required = record.verdict.answer, _by_outcome(record)
    if isinstance(record, Pair) and record.data.leaked:
        return (
            f"Cannot tell: {record.data.leaked} images of the conjunction were read in training, so none of "
            "these figures counts. Mend the data first."
        )
    if "left out" in record.verdict.broken:
        return (
            "No verdict: rows that the generated networks must beat were left out. Set "
            "--config.baselines.methods='()' and run again; it measures these alone."
        )
    does = f"compose, over {_subject(record)}"
    if isinstance(record, Pair):
        does = f"compose {record.pair.attribute} and {record.pair.object}"
    if answer == "yes":
        largest = max(each.p_value for each in required["above"])
        return (
            f"Yes: the generated networks {does}. They are above all {len(required['above'])} that they must "
            "beat: random networks, the parents alone and every merge of two "
            f"({'all' if largest < 0.001 else 'largest'} {p_text(largest)})."
        )
    if answer == "no":
        below = required["below"]
        reason = f"are below {_few(record, below)}" if below else "are copies of a parent"
        return f"No: the generated networks do not {does}. They {_like_random(record)}{reason}."
    reason = f"they are above all that they must beat, but {_broken(record)}"
    for outcome in ("not measured", "cannot tell"):
        if required[outcome]:
            verb = "are" if outcome == "cannot tell" else "were"
            reason = f"they {verb} {OUTCOMES[outcome]} {_few(record, required[outcome], 'or')}"
    return f"Cannot tell whether the generated networks {does}: {reason}."


def sizes(record: Measured) -> str:
    """How large a generated network is beside a parent and beside both; "" where that is not known."""
    generated = record.methods.get(record.verdict.best)
    parent, both = (record.methods.get(name) for name in (PARENTS[0], record.verdict.yardstick))
    counts = [row.parameters if row else None for row in (generated, parent, both)]
    if not all(counts):
        return ""
    mine, of_parent, of_both = (count or 0 for count in counts)
    more = 100 * mine / of_parent - 100
    return (
        f"A network of {record.verdict.best} has {mine:,} parameters: {abs(more):.0f}% "
        f"{'fewer' if more < 0 else 'more'} than a parent, {100 * mine / of_both:.0f}% of both parents."
    )


def binding(pair: Pair) -> list[str]:
    """Which quadrant decides the figure of merit, and which concept is free."""
    if pair.binding is None:
        return []
    names = {"attribute": pair.pair.attribute, "object": pair.pair.object}
    alone = {
        "vs_attribute_only": f"{names['attribute']} alone",
        "vs_object_only": f"{names['object']} alone",
        "vs_neither": "neither",
    }
    by_quadrant: dict[str, list[str]] = {}
    for method, quadrant in pair.binding.quadrants.items():
        by_quadrant.setdefault(alone.get(quadrant, quadrant), []).append(method)
    words = [f"{quadrant} for {joined(methods)}" for quadrant, methods in by_quadrant.items()]
    free = [names[concept] for concept in pair.binding.free]
    if len(free) == len(names):
        follows = "Both concepts are free: they are nearly always told apart, and few methods can fail."
    elif free:
        (other,) = [name for concept, name in names.items() if concept not in pair.binding.free]
        name = free[0][:1].upper() + free[0][1:]
        follows = f"{name} is free (nearly always told apart), so the figure measures {other}."
    else:
        follows = "Neither concept is free: the figure measures both."
    return [f"The hardest test is against images of {joined(words)}. {follows}"]


def _free_concepts(pairs: Sequence[Pair]) -> list[str]:
    """On how many pairs a concept is free."""
    judged = [pair.binding for pair in pairs if pair.binding]
    if not judged:
        return []
    counts = {
        concept: sum(concept in each.free and len(each.free) == 1 for each in judged)
        for concept in ("attribute", "object")
    }
    return [
        f"Of {len(judged)} pairs, the attribute is free (nearly always told apart) on {counts['attribute']}, "
        f"where the figure measures the object, and the object on {counts['object']}."
    ]


def _subject(record: Measured) -> str:
    """``black cat``, or ``55 pairs``."""
    if isinstance(record, Pair):
        return record.title
    return f"{record.pairs} pairs" if isinstance(record, Overall) else "these images"


def _by_outcome(record: Measured) -> dict[str, list[Comparison]]:
    """The comparisons with what must be beaten, by outcome."""
    required = [each for each in record.verdict.comparisons if each.required]
    return {outcome: [each for each in required if each.outcome == outcome] for outcome in OUTCOMES}


def _few(record: Measured, group: Sequence[Comparison], word: str = "and") -> str:
    """The rivals furthest ahead in words, each with its p-value, and how many more there are."""
    gaps = {each.rival: each.difference.mean if each.difference.known else 0.0 for each in group}
    nearest = sorted(group, key=lambda each: gaps[each.rival])[:_FEW_RIVALS]
    words = [
        in_words(record.methods.get(each.rival), each.rival, [p_text(each.p_value, "")]) for each in nearest
    ]
    more = len(group) - _FEW_RIVALS
    return joined([*words, f"{more} more"] if more > 0 else words, word)


def _like_random(record: Measured) -> str:
    """``are not clearly different from random networks (0.40 against 0.42) and ``; "" where they are."""
    best, floor = record.verdict.best, record.verdict.floor
    if floor not in [each.rival for each in _by_outcome(record)["cannot tell"]]:
        return ""
    mine, theirs = record.figure(best).mean, record.figure(floor).mean
    return f"are not clearly different from random networks ({mine:.3f} against {theirs:.3f}) and "


def _broken(record: Measured) -> str:
    """Why a high score of the best generated method would not mean that it composes."""
    best, floor = (record.methods.get(name) for name in (record.verdict.best, record.verdict.floor))
    words = {
        "leak": "images of the conjunction were read in training",
        "shape": "it is not one network of the parents' shape, so whether it copies them cannot be said",
        "few images": "there are too few test images of a quadrant",
        "size": f"it has more parameters ({best and best.parameters}) than one network with two heads "
        f"({floor and floor.parameters})",
        "one network": "its networks are all the same",
        "unanswered": f"it answers only {best and best.pairs} of the pairs",
        "trainings": f"its generator was trained {_times(best)}, and a claim needs {TRAININGS} trainings",
        "no placebo": "it was not repeated with placebo parents",
        "placebo": "it keeps more than half of its gain with placebo parents",
    }
    said = [words.get(rule, f"{rule} was measured") for rule in record.verdict.broken if rule != "not above"]
    return joined(said)


def _placebos(record: Measured) -> list[str]:
    """What the gain over 0.5 falls to when either side's parents are exchanged."""
    placebos = record.methods[record.verdict.best].placebos
    if not placebos:
        return []
    kept = [name for name, placebo in placebos.items() if not falls(placebo.test)]
    words = [
        f"{placebo.auroc.mean:.3f} with {placebo.parents} in place of the {_side(record, name)} parents"
        for name, placebo in placebos.items()
    ]
    end = f"not so with {len(kept)} of {len(placebos)}" if kept else "so it does with all"
    return [f"Placebo parents: it scores {joined(words)}. The gain over 0.5 must fall by half; {end}."]


def _times(row: Row | None) -> str:
    """How often its generator was trained."""
    count = len(row.trainings) if row else 0
    return "once" if count == 1 else f"{count} times"


def _trainings(row: Row) -> list[str]:
    """How often its generator was trained, and what each training scores."""
    if not row.steps:
        return []
    each = joined([f"{mean:.3f}" for mean in row.trainings])
    return [f"Its generator was trained {_times(row)}" + (f": {each}." if len(row.trainings) > 1 else ".")]


def _behind(row: Row) -> list[str]:
    """What the gate checked of everything behind its networks."""
    if row.behind is None:
        return []
    behind = row.behind
    learnt = f", of a generator that learnt from {behind.learnt} pairs" if behind.learnt else ""
    held_out = f"the {behind.held_out} conjunctions held out" if behind.held_out > 1 else "the conjunction"
    return [
        f"Behind its networks{learnt} are {behind.readers} zoos and sets of probes with {behind.images:,} "
        f"training images, {behind.leaked or 'none'} of them of {held_out} (by content)."
    ]


def _side(record: Measured, placebo: str) -> str:
    side = placebo.partition("_")[0]
    return getattr(record.pair, side) if isinstance(record, Pair) else f"{side}'s"


def _detectable(record: Measured) -> list[str]:
    """What the tests behind the verdict could have found."""
    gain = record.verdict.detectable
    if not gain <= _LARGEST_GAIN:
        if record.verdict.answer == "yes" or {"leak", "left out"} & {*record.verdict.broken}:
            return []
        return [
            "The run is too small to find any gain with 80% power: more networks (at least eight) and more "
            "test images are needed."
        ]
    return [f"A gain of {gain:.3f} over each method that it must beat would be found with 80% power."]


def _tiers(record: Measured) -> list[str]:
    """The answers within each tier, where there are several."""
    answers = [
        f"{answer} in tier {tier} ({TIERS[tier]})" for tier, answer in record.verdict.tiers.items() if tier
    ]
    return [f"By what the generators read, the answer is {joined(answers)}."] if answers else []


def _copied(record: Measured) -> list[str]:
    if not record.verdict.copies:
        return []
    row = record.methods[record.verdict.best]
    overlap, distance, answers = (
        row.novelty.get(figure, NOTHING) for figure in ("error_overlap", "distance", "answers")
    )
    shared = (
        f", and {100 * overlap.mean:.0f}% of the images that either gets wrong both get wrong"
        if overlap.known
        else ""
    )
    where = f" on {row.copies} of {record.pairs} pairs" if isinstance(record, Overall) and row.copies else ""
    by_answers = (
        f", their answers at {answers.mean:.2f} (under {COPIED_ANSWERS:g} is a copy)" if answers.known else ""
    )
    return [
        f"They are copies of a parent{where}: their weights lie at {distance.mean:.2f} of the distance "
        f"between a parent and its nearest fellow (under {COPY:g} is a copy){by_answers}{shared}."
    ]


def _required(record: Measured) -> str:
    """How many of the methods that must be beaten were, and which were not."""
    groups = _by_outcome(record)
    words = [
        f"{OUTCOMES[outcome]} {joined([each.rival for each in group])}"
        for outcome, group in groups.items()
        if group
    ]
    total = sum(map(len, groups.values()))
    return f"Of the {total} that it must beat (nulls, parents and merges) it is {'; '.join(words)}."


def _others(record: Measured) -> list[str]:
    """Each other generated method: how many of the same methods it is above, and the strongest it is not."""
    required = [each.rival for each in record.verdict.comparisons if each.required]
    words = []
    for row in record.methods.values():
        tests = record.tests.get(row.name, {})
        if row.kind != "generated" or row.name == record.verdict.best or not record.figure(row.name).known:
            continue
        above = [
            rival
            for rival in required
            if rival in tests and tests[rival].difference.mean > 0 and clear(tests[rival].p_adjusted)
        ]
        rest = [rival for rival in required if rival not in above]
        rest.sort(key=lambda rival: -record.figure(rival).mean)
        more = f", not {joined(rest[:_FEW_RIVALS], 'or')}" if rest else ""
        figure = record.figure(row.name).mean
        words.append(f"{row.name} ({figure:.3f}) is above {len(above)} of them{more}")
    return [f"The other generated methods: {'; '.join(words)}."] if words else []


def _to_reach(record: Measured) -> list[str]:
    """How it does against the goals, each with the difference; the tables have the p-values."""
    goals = [each for each in record.verdict.comparisons if not each.required]
    words = []
    for outcome in ("above", "cannot tell", "below"):
        named = [f"{each.rival} ({each.difference.mean:+.3f})" for each in goals if each.outcome == outcome]
        words += [f"{OUTCOMES[outcome]} {joined(named)}"] if named else []
    return [f"Of the goals, which it need not beat, it is {'; '.join(words)}."] if words else []


def _null(pair: Pair) -> str:
    """What the matched null test says; the choice of a method is in it."""
    p_value, candidates = pair.verdict.null_p_value, len(pair.of_kind("generated"))
    if math.isfinite(p_value):
        picked = f", times {candidates} for the choice of the best method" if candidates > 1 else ""
        return f"Against chance: {p_text(p_value)} by permutation with random networks{picked}."
    if pair.null_test and pair.null_test.method not in ("", pair.verdict.best):
        return f"The test against chance is of {pair.null_test.method}: no p-value for this method, no claim."
    return "Without a test against chance (no p-value) no claim is made."


def _recovered(record: Measured) -> list[str]:
    """The share recovered, or that these images can show no difference."""
    reference, floor = record.figure(record.verdict.reference), record.figure(record.verdict.floor)
    if reference.bounded and floor.bounded and not reference.low > floor.high:
        return [
            "Beware: even the networks trained on the conjunction are not clearly above random networks, so "
            "this test can hardly show any difference."
        ]
    share = 100 * record.methods[record.verdict.best].recovered.mean
    if not math.isfinite(share):
        return []
    much = f"{share:.0f}%" if round(share) > 0 else f"nothing ({round(share)}%)"
    return [
        f"It recovers {much} of the way from chance (0.5, or random networks where they are above it) to "
        "networks trained on the conjunction."
    ]


def marks(record: Measured) -> dict[str, str]:
    """By method, a word beside a figure of merit that would mislead; of most methods there is none.

    See `MARKED`.
    """
    merges = [record.figure(row.name).mean for row in record.of_kind("merge")]
    best_merge = max(filter(math.isfinite, merges), default=-math.inf)
    found = {}
    for name, row in record.methods.items():
        against = row.auroc.get("vs_neither", row.auroc.get("vs_rest", NOTHING))
        if against.known and (against.high if against.bounded else against.mean) < _INVERTED:
            found[name] = "inverted"
        elif row.kind in _REFERENCES and record.figure(name).mean < best_merge:
            found[name] = "below a merge"
    return found


def _marked(record: Measured) -> list[str]:
    """What the marks mean for a reader."""
    found = marks(record)
    names = {word: [name for name, mark in found.items() if mark == word] for word in found.values()}
    sentences = {
        "inverted": "{} put images of neither concept above those of both, which says the opposite. "
        "Check which logit says yes (zoo.attribute_positive, zoo.object_positive) and the labels",
        "below a merge": "a merge that was not trained is above {}. If these were trained, check for "
        "how long and on how many images; shares recovered mean little",
    }
    return [
        f"Beware: {text.format(joined(names[word]))}." for word, text in sentences.items() if word in names
    ]


def _scope(record: Measured) -> str:
    """What the p-values do not cover."""
    few = ""
    levels = [record.attributes, record.objects] if isinstance(record, Overall) else []
    if any(count is not None and count < _FEW_CONCEPTS for count in levels):
        few = f"With {levels[0]} attribute(s) and {levels[1]} object(s), only very large differences show. "
    if len(record.methods[record.verdict.best].trainings) > 1:
        return (
            few + "P-values cover other images, networks and trainings of the generator, not other parents."
        )
    return few + "P-values cover other images and networks of these trainings, not another training (seed)."
