"""The verdict in plain words: what follows from the stored `results.Verdict`. No rule is applied here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from kernelgan.baselines import PARENTS
from kernelgan.evaluation.verdict import COPIED_ANSWERS, COPY, SIGNIFICANCE, TIERS, TRAININGS, falls
from kernelgan.report import metrics
from kernelgan.results import ANSWERS, NOTHING, Comparison, Measured, Overall, Pair, Row, Run, Test, Verdict

Record = Pair | Overall

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
_INVERTED = 0.3  # an AUROC below this says the opposite of what is asked
_REFERENCES = ("trained apart", "same size", "two nets", "reference")
"""Kinds of methods that are trained, or larger, and so should be above merges."""
_FEW_RIVALS = 3
_LARGEST_GAIN = 0.5  # of an AUROC over chance


def tone(verdict: Verdict) -> str:
    """The colour of an answer: "yes", "no" or "cannot"."""
    return verdict.answer.split()[0]


def in_words(row: Row | None, name: str = "", more: Sequence[str] = ()) -> str:
    """``both parents run side by side (its_name, more)``; the name alone where it was not measured."""
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


def joined(words: Sequence[str], last: str = "and") -> str:
    """``a, b and c``."""
    return f"{', '.join(words[:-1])} {last} {words[-1]}" if len(words) > 1 else "".join(words)


def merit_title(record: Measured) -> str:
    """The name of the figure of merit."""
    return metrics.title(f"auroc.{record.merit}")


def summary(run: Run) -> list[str]:
    """The verdict on the run, the answer first: on its only pair, or over all."""
    return [*answer(run), *evidence(run)]


def answer(run: Run) -> list[str]:
    """The answer, and what it hangs on."""
    first = f"Cannot tell over the {len(run.pairs)} pairs: they have different figures of merit."
    if run.record:
        first = verdict(run.record)[0]
    leaky = [pair.title for pair in run.pairs if pair.data.leaked]
    if leaky and len(run.pairs) > 1:
        first = (
            f"Cannot tell: images of the conjunction were read in training on {joined(leaky)}, so no figure "
            "over all pairs counts. Mend the data first."
        )
    weak = [run.data.parents] if run.data.parents and run.verdict.answer != "yes" else []
    return [first, *weak, *_given(run)]


def evidence(run: Run, brief: bool = False) -> list[str]:
    """What the answer rests on; `brief` as in `verdict`."""
    lines = verdict(run.record, brief)[1:] if run.record else []
    if len(run.pairs) == 1:
        return lines
    answers = [pair.verdict.answer for pair in run.pairs]
    counts = ", ".join(f"{word} on {answers.count(word)}" for word in ANSWERS)
    lines.append(f"Pair by pair, of {len(run.pairs)}: {counts} (p-values corrected over pairs, Holm).")
    if "yes" in answers:
        lines.append(f"Yes: {', '.join(pair.title for pair in run.pairs if pair.verdict.answer == 'yes')}.")
    return [*lines, *_free_concepts(run.pairs), *_sealed(run.pairs)]


def _sealed(pairs: Sequence[Pair]) -> list[str]:
    """How many pairs are sealed, where a file of splits says so."""
    sealed = sum(pair.sealed is True for pair in pairs)
    folds = len({pair.fold for pair in pairs if pair.fold})
    words = f"{sealed} of the pairs are sealed, {len(pairs) - sealed} are for development ({folds} folds)."
    return [words] if folds else []


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


def verdict(record: Record, brief: bool = False) -> list[str]:
    """The verdict on one pair, or over all, line by line, the answer first.

    Args:
      record: with its verdict.
      brief: without the question, what the tests could find, what was behind the networks, and the other
        generated methods.
    """
    if not record.verdict.best:
        return [f"Cannot tell: no generated network was scored on {record.title}."]
    lines = [headline(record), *general(record)[brief:]]
    lines += [tell(record) for tell in (_best, _copied, _placebos, _tiers, _to_reach, _recovered)]
    lines += _marked(record)
    if not brief:
        more = (binding, _required, _others, _trainings, _behind, _detectable, _null, _scope)
        lines += [tell(record) for tell in more]
    return [line for line in lines if line]


def _best(record: Record) -> str:
    """The best generated method and its figure of merit."""
    best = record.methods[record.verdict.best]
    over = f"{best.networks} networks" if isinstance(record, Pair) else record.title
    lowest = best.auroc.get("worst_of_means", NOTHING)
    beside = f" (lowest quadrant's mean {lowest.mean:.3f})" if lowest.known else ""
    return (
        f"Best generated method: {in_words(best)}, mean {merit_title(record)} "
        f"{record.figure(best.name).text()}{beside}, over {over}."
    )


def general(record: Record) -> list[str]:
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


def headline(record: Record) -> str:
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
    does = f"compose, over {record.title}"
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


def binding(pair: Record) -> str:
    """Which quadrant decides the figure of merit of a pair, and which concept is free."""
    if not isinstance(pair, Pair) or pair.binding is None:
        return ""
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
    return f"The hardest test is against images of {joined(words)}. {follows}"


def _free_concepts(pairs: Sequence[Pair]) -> list[str]:
    """On how many pairs a concept is free."""
    free = [pair.binding.free for pair in pairs if pair.binding]
    attribute, thing = free.count(("attribute",)), free.count(("object",))
    words = (
        f"Of {len(free)} pairs, the attribute is free (nearly always told apart) on {attribute}, where the "
        f"figure measures the object, and the object on {thing}."
    )
    return [words] if free else []


def _by_outcome(record: Measured) -> dict[str, list[Comparison]]:
    """The comparisons with what must be beaten, by outcome."""
    required = [each for each in record.verdict.comparisons if each.required]
    return {outcome: [each for each in required if each.outcome == outcome] for outcome in OUTCOMES}


def named(record: Measured) -> set[str]:
    """The rivals that an answer other than yes names."""
    groups = _by_outcome(record)
    return {each.rival for outcome in ("below", "cannot tell") for each in _furthest(groups[outcome])}


def _furthest(group: Sequence[Comparison]) -> list[Comparison]:
    """The rivals furthest ahead."""
    ahead = sorted(group, key=lambda each: each.difference.mean if each.difference.known else 0.0)
    return ahead[:_FEW_RIVALS]


def _few(record: Measured, group: Sequence[Comparison], word: str = "and") -> str:
    """The rivals furthest ahead in words, each with its p-value, and how many more there are."""
    words = [
        in_words(record.methods.get(each.rival), each.rival, [p_text(each.p_value, "")])
        for each in _furthest(group)
    ]
    more = len(group) - _FEW_RIVALS
    return joined([*words, f"{more} more"] if more > 0 else words, word)


def _like_random(record: Measured) -> str:
    """``are not clearly different from random networks (0.40 against 0.42) and ``; "" where they are."""
    floor = record.verdict.floor
    if floor not in [each.rival for each in _by_outcome(record)["cannot tell"]]:
        return ""
    mine, theirs = (record.figure(name).mean for name in (record.verdict.best, floor))
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
        "placebo": _kept_gain(best),
    }
    said = [words.get(rule, f"{rule} was measured") for rule in record.verdict.broken if rule != "not above"]
    return joined(said)


def _kept_gain(row: Row | None) -> str:
    """Whether half of its gain stays with placebo parents, or it is not shown that it goes."""
    tests = [placebo.test for placebo in row.placebos.values() if not falls(placebo.test)] if row else []
    if any(test.difference.mean <= 0 for test in tests):
        return "it keeps half of its gain or more with placebo parents"
    largest = max((test.p_adjusted for test in tests), default=1.0)
    return f"that its gain falls by half with placebo parents is not shown ({p_text(largest)})"


def _placebos(record: Record) -> str:
    """What the gain over 0.5 falls to when either side's parents are exchanged."""
    placebos = record.methods[record.verdict.best].placebos
    if not placebos:
        return ""
    words = []
    for name, placebo in placebos.items():
        side = name.partition("_")[0]
        whose = getattr(record.pair, side) if isinstance(record, Pair) else f"{side}'s"
        words.append(f"{placebo.auroc.mean:.3f} with {placebo.parents} in place of the {whose} parents")
    kept = sum(not falls(placebo.test) for placebo in placebos.values())
    end = f"that is not shown with {kept} of {len(placebos)}" if kept else "so it does with all"
    return f"Placebo parents: it scores {joined(words)}. The gain over 0.5 must fall by half; {end}."


def _times(row: Row | None) -> str:
    """How often its generator was trained."""
    count = len(row.trainings) if row else 0
    return "once" if count == 1 else f"{count} times"


def _trainings(record: Record) -> str:
    """How often the generator of the best was trained, and what each training scores."""
    row = record.methods[record.verdict.best]
    each = joined([f"{mean:.3f}" for mean in row.trainings])
    words = f"Its generator was trained {_times(row)}" + (f": {each}." if len(row.trainings) > 1 else ".")
    return words if row.steps else ""


def _behind(record: Record) -> str:
    """What the gate checked of everything behind the networks of the best."""
    behind = record.methods[record.verdict.best].behind
    if behind is None:
        return ""
    learnt = f", of a generator that learnt from {behind.learnt} pairs" if behind.learnt else ""
    held_out = f"the {behind.held_out} conjunctions held out" if behind.held_out > 1 else "the conjunction"
    return (
        f"Behind its networks{learnt} are {behind.readers} zoos and sets of probes with {behind.images:,} "
        f"training images, {behind.leaked or 'none'} of them of {held_out} (by content)."
    )


def _detectable(record: Record) -> str:
    """What the tests behind the verdict could have found."""
    gain = record.verdict.detectable
    if gain <= _LARGEST_GAIN:
        return f"A gain of {gain:.3f} over each method that it must beat would be found with 80% power."
    if record.verdict.answer == "yes" or {"leak", "left out"} & {*record.verdict.broken}:
        return ""
    return (
        "The run is too small to find any gain with 80% power: more networks (at least eight) and more "
        "test images are needed."
    )


def _tiers(record: Record) -> str:
    """The answers within each tier, where there are several."""
    by_tier = record.verdict.tiers.items()
    answers = [f"{answer} in tier {tier} ({TIERS[tier]})" for tier, answer in by_tier if tier]
    return f"By what the generators read, the answer is {joined(answers)}." if answers else ""


def _copied(record: Record) -> str:
    """By what the networks are copies of a parent."""
    if not record.verdict.copies:
        return ""
    row = record.methods[record.verdict.best]
    figures = ("error_overlap", "distance", "answers")
    overlap, distance, answers = (row.novelty.get(figure, NOTHING) for figure in figures)
    where = f" on {row.copies} of {record.title}" if isinstance(record, Overall) and row.copies else ""
    words = (
        f"They are copies of a parent{where}: their weights lie at {distance.mean:.2f} of the distance "
        f"between a parent and its nearest fellow (under {COPY:g} is a copy)"
    )
    if answers.known:
        words += f", their answers at {answers.mean:.2f} (under {COPIED_ANSWERS:g} is a copy)"
    if overlap.known:
        words += f", and {100 * overlap.mean:.0f}% of the images that either gets wrong both get wrong"
    return f"{words}."


def _required(record: Record) -> str:
    """How many of the methods that must be beaten were, and which were not."""
    groups = _by_outcome(record)
    words = [
        f"{OUTCOMES[outcome]} {joined([each.rival for each in group])}"
        for outcome, group in groups.items()
        if group
    ]
    total = sum(map(len, groups.values()))
    return f"Of the {total} that it must beat (nulls, parents and merges) it is {'; '.join(words)}."


def _others(record: Record) -> str:
    """Each other generated method: how many of the same methods it is above, and the strongest it is not."""
    required = [each.rival for each in record.verdict.comparisons if each.required]
    words = []
    for row in record.of_kind("generated"):
        tests = record.tests.get(row.name, {})
        if row.name == record.verdict.best or not record.figure(row.name).known:
            continue
        rest = [
            rival
            for rival in required
            if not (tests.get(rival, Test()).difference.mean > 0 and tests[rival].p_adjusted < SIGNIFICANCE)
        ]
        rest.sort(key=lambda rival: -record.figure(rival).mean)
        more = f", not {joined(rest[:_FEW_RIVALS], 'or')}" if rest else ""
        figure = record.figure(row.name).mean
        words.append(f"{row.name} ({figure:.3f}) is above {len(required) - len(rest)} of them{more}")
    return f"The other generated methods: {'; '.join(words)}." if words else ""


def _to_reach(record: Record) -> str:
    """How it does against the goals, each with the difference; the tables have the p-values."""
    goals = [each for each in record.verdict.comparisons if not each.required]
    words = []
    for outcome in ("above", "cannot tell", "below"):
        named = [f"{each.rival} ({each.difference.mean:+.3f})" for each in goals if each.outcome == outcome]
        words += [f"{OUTCOMES[outcome]} {joined(named)}"] if named else []
    return f"Of the goals, which it need not beat, it is {'; '.join(words)}." if words else ""


def _null(pair: Record) -> str:
    """What the matched null test of a pair says; the choice of a method is in it."""
    if not isinstance(pair, Pair):
        return ""
    p_value, candidates = pair.verdict.null_p_value, len(pair.of_kind("generated"))
    if math.isfinite(p_value):
        picked = f", times {candidates} for the choice of the best method" if candidates > 1 else ""
        return f"Against chance: {p_text(p_value)} by permutation with random networks{picked}."
    if pair.null_test and pair.null_test.method not in ("", pair.verdict.best):
        return f"The test against chance is of {pair.null_test.method}: no p-value for this method, no claim."
    return "Without a test against chance (no p-value) no claim is made."


def _recovered(record: Record) -> str:
    """The share recovered, or that these images can show no difference."""
    reference, floor = record.figure(record.verdict.reference), record.figure(record.verdict.floor)
    if reference.bounded and floor.bounded and not reference.low > floor.high:
        return (
            "Beware: even the networks trained on the conjunction are not clearly above random networks, so "
            "this test can hardly show any difference."
        )
    share = 100 * record.methods[record.verdict.best].recovered.mean
    if not math.isfinite(share) or record.verdict.reference in marks(record):
        return ""
    much = f"{share:.0f}%" if round(share) > 0 else f"nothing ({round(share)}%)"
    return (
        f"It recovers {much} of the way from chance (0.5, or random networks where they are above it) to "
        "networks trained on the conjunction."
    )


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
    sentences = {
        "inverted": "{} put images of neither concept above those of both, which says the opposite. "
        "Check which logit says yes (zoo.attribute_positive, zoo.object_positive) and the labels",
        "below a merge": "a merge that was not trained is above {}. If these were trained, check for "
        "how long and on how many images; shares recovered mean little",
    }
    lines = []
    for word, text in sentences.items():
        names = [name for name, mark in found.items() if mark == word]
        lines += [f"Beware: {text.format(joined(names))}."] if names else []
    return lines


def _scope(record: Record) -> str:
    """What the p-values do not cover."""
    few = ""
    levels = [record.attributes, record.objects] if isinstance(record, Overall) else []
    if any(count is not None and count < _FEW_CONCEPTS for count in levels):
        few = f"With {levels[0]} attribute(s) and {levels[1]} object(s), only very large differences show. "
    covered = "images and networks of these trainings, not another training (seed)"
    if len(record.methods[record.verdict.best].trainings) > 1:
        covered = "images, networks and trainings of the generator, not other parents"
    return f"{few}P-values cover other {covered}."
