"""The verdict in plain words: what follows from the stored `results.Verdict`. No rule is applied here."""

from __future__ import annotations

import math
from collections.abc import Sequence

from kernelgan.evaluation.verdict import COPY, SIGNIFICANCE
from kernelgan.report import metrics
from kernelgan.results import ANSWERS, Comparison, Measured, Overall, Pair, Row, Run, Statistic

OUTCOMES = {
    "above": "above",
    "below": "below",
    "cannot tell": "not clearly different from",
    "not measured": "not compared with",
}
MARKS = {"yes": "✓ Yes", "no": "✗ No", "cannot tell": "? Cannot tell"}
PICKED = (
    "P-values are corrected for having picked the best generated method and, in a run of several pairs, for "
    "the number of pairs."
)
TRAINED_ONCE = (
    "P-values treat all networks of a generated method as independent; they come from one training of the "
    "generator, so another training is not covered."
)
_FEW_CONCEPTS = 5
_FEW_RIVALS = 3


def in_words(row: Row | None, name: str = "", more: Sequence[str] = ()) -> str:
    """``both parents run side by side (its_name)``; the name alone where there is no label.

    Args:
      row: the method; None where it was not measured.
      name: its name, for that case.
      more: what to add in the brackets.
    """
    name, label = (row.name, row.label) if row else (name, "")
    inside = [*([name] if label else []), *(one for one in more if one)]
    return f"{label or name} ({', '.join(inside)})" if inside else name


def p_text(p_value: float, missing: str = "p = -") -> str:
    """``p = 0.012``, ``p < 0.001``, or `missing`."""
    if not math.isfinite(p_value):
        return missing
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"


def joined(words: Sequence[str], last: str = "and") -> str:
    """``a, b and c``."""
    return f"{', '.join(words[:-1])} {last} {words[-1]}" if len(words) > 1 else "".join(words)


def merit_title(record: Measured) -> str:
    """The name of the figure of merit."""
    return metrics.title(f"auroc.{record.merit}")


def summary(run: Run) -> list[str]:
    """The verdict on the whole run, the answer first: that on its only pair, or over its pairs."""
    if len(run.pairs) == 1:
        return verdict(run.pairs[0])
    if run.overall is None:
        lines = [
            f"Cannot tell over the {len(run.pairs)} pairs: they were not compared together, as they have "
            "different figures of merit."
        ]
    else:
        lines = verdict(run.overall)
    leaky = [pair.title for pair in run.pairs if pair.data.leaked]
    if leaky:
        lines[0] = (
            f"Cannot tell: images of the conjunction were read in training on {joined(leaky)}, so no figure "
            "over all pairs counts. Mend the data first."
        )
    by_answer = {one: [pair.title for pair in run.pairs if pair.verdict.answer == one] for one in ANSWERS}
    counts = ", ".join(f"{answer} on {len(titles)}" for answer, titles in by_answer.items())
    lines.append(
        f"Pair by pair, of {len(run.pairs)}: {counts} (p-values corrected for {len(run.pairs)} pairs, Holm)."
    )
    return [*lines, f"Yes: {', '.join(by_answer['yes'])}."] if by_answer["yes"] else lines


def verdict(record: Measured) -> list[str]:
    """The verdict on one pair, or over all, line by line, the answer first."""
    found = record.verdict
    if not found.best:
        return [f"Cannot tell: no generated network was scored on {_subject(record)}."]
    best = record.methods[found.best]
    over = f", over {_subject(record)}" if isinstance(record, Overall) else ""
    if isinstance(record, Pair) and best.networks is not None:
        over = f", over {best.networks} networks"
    return [
        headline(record),
        question(record),
        f"Best generated method: {in_words(best)}, mean {merit_title(record)} "
        f"{record.figure(best.name).text()}{over}.",
        metrics.explained(f"auroc.{record.merit}", _images(record)),
        *_copied(record),
        _required(record),
        *_to_reach(record),
        *([_null(record)] if isinstance(record, Pair) else []),
        *_recovered(record),
        _scope(record),
    ]


def brief(pair: Pair) -> list[str]:
    """The same without what is said once for all pairs."""
    said_once = {question(pair), metrics.explained(f"auroc.{pair.merit}", _images(pair))}
    return [line for line in verdict(pair) if line not in said_once]


def question(record: Measured) -> str:
    """What is asked."""
    attribute, thing, both = "an attribute (such as black)", "an object (such as cat)", "images of both"
    if isinstance(record, Pair):
        attribute, thing = record.pair.attribute, record.pair.object
        both = f"a {record.title}"
    return (
        f"Asked: can networks made from networks for {attribute} and networks for {thing} tell {both}, "
        "though none of these networks was ever shown one?"
    )


def headline(record: Measured) -> str:
    """The answer and what it rests on, in one or two sentences."""
    found = record.verdict
    if isinstance(record, Pair) and record.data.leaked:
        return (
            f"Cannot tell: {record.data.leaked} images of the conjunction were read in training, so none of "
            "these figures counts. Mend the data first."
        )
    does = f"compose, over {_subject(record)}"
    if isinstance(record, Pair):
        does = f"compose {record.pair.attribute} and {record.pair.object}"
    required = [one for one in found.comparisons if one.required]
    groups = {
        outcome: sorted((one for one in required if one.outcome == outcome), key=_gap) for outcome in OUTCOMES
    }
    if found.answer == "yes":
        largest = max(one.p_value for one in required)
        return (
            f"Yes: the generated networks {does}. They are above all {len(required)} that they must beat: "
            "random networks, the parents alone and every merge of two "
            f"({'all' if largest < 0.001 else 'largest'} {p_text(largest)})."
        )
    if found.answer == "no":
        below = groups["below"]
        reason = f"are below {_few(record, below)}" if below else "are copies of a parent"
        return f"No: the generated networks do not {does}. They {_like_random(record, required)}{reason}."
    reason = f"they are above all that they must beat, but {_unfit(record)}"
    if groups["cannot tell"]:
        reason = f"they are not clearly different from {_few(record, groups['cannot tell'], 'or')}"
    elif groups["not measured"]:
        reason = f"they were not compared with {_few(record, groups['not measured'], 'or')}"
    return f"Cannot tell whether the generated networks {does}: {reason}."


def _subject(record: Measured) -> str:
    """``black cat``, or ``55 pairs``."""
    if isinstance(record, Pair):
        return record.title
    return f"{record.pairs} pairs" if isinstance(record, Overall) else "these images"


def _images(record: Measured) -> dict[str, int]:
    return record.data.test if isinstance(record, Pair) else {}


def _gap(comparison: Comparison) -> float:
    return comparison.difference.mean if comparison.difference.known else 0.0


def _few(record: Measured, group: Sequence[Comparison], word: str = "and") -> str:
    """The first of some rivals in words, each with its p-value, and how many more there are."""
    words = [
        in_words(record.methods.get(one.rival), one.rival, [p_text(one.p_value, "")])
        for one in group[:_FEW_RIVALS]
    ]
    more = len(group) - _FEW_RIVALS
    return joined([*words, f"{more} more"] if more > 0 else words, word)


def _like_random(record: Measured, required: Sequence[Comparison]) -> str:
    """``are not clearly different from random networks (0.40 against 0.42) and ``; "" where they are."""
    found = record.verdict
    if not any(one.rival == found.floor and one.outcome == "cannot tell" for one in required):
        return ""
    mine, theirs = record.figure(found.best).mean, record.figure(found.floor).mean
    return f"are not clearly different from random networks ({mine:.3f} against {theirs:.3f}) and "


def _unfit(record: Measured) -> str:
    """Why the best generated method cannot be said to compose, in words."""
    found = record.verdict
    if found.unfit == "shape":
        return "it is not one network of the parents' shape, so whether it copies them cannot be said"
    if found.unfit == "size":
        mine, floor = record.methods[found.best].parameters, record.methods[found.floor].parameters
        return f"it has more parameters ({mine}) than one network with two heads ({floor})"
    return f"{found.unfit} was measured"


def _copied(record: Measured) -> list[str]:
    if not record.verdict.copies:
        return []
    novelty = record.methods[record.verdict.best].novelty
    overlap = novelty.get("error_overlap", Statistic())
    shared = (
        f", and {100 * overlap.mean:.0f}% of the images that either gets wrong both get wrong"
        if overlap.known
        else ""
    )
    return [
        f"They are copies of a parent: their weights lie at {novelty['distance'].mean:.2f} of the distance "
        f"between a parent and its nearest fellow (under {COPY:g} is a copy){shared}."
    ]


def _required(record: Measured) -> str:
    """How many of the methods that must be beaten were, and which were not."""
    required = [one for one in record.verdict.comparisons if one.required]
    words = []
    for outcome, said in OUTCOMES.items():
        names = [one.rival for one in required if one.outcome == outcome]
        if names:
            words.append(f"{said} {joined(names)}")
    return f"Of the {len(required)} that it must beat (nulls, parents and merges) it is {'; '.join(words)}."


def _to_reach(record: Measured) -> list[str]:
    """How it does against what it should come up to, each with the difference and its p-value."""
    words = []
    for one in record.verdict.comparisons:
        if not one.required and one.outcome != "not measured":
            more = [f"{one.difference.mean:+.3f}", p_text(one.p_value)]
            words.append(
                f"{OUTCOMES[one.outcome]} {in_words(record.methods.get(one.rival), one.rival, more)}"
            )
    return [f"What it should come up to: it is {'; '.join(words)}."] if words else []


def _null(pair: Pair) -> str:
    """What the matched null test says, and that the choice of a method is in it."""
    p_value, picked = pair.verdict.null_p_value, len(pair.of_kind("generated"))
    if math.isfinite(p_value):
        picking = (
            f"times {picked}, for it is the best of {picked} generated methods"
            if picked > 1
            else "of one method, so nothing was picked"
        )
        return f"Against chance: {p_text(p_value)} by permutation with random networks, {picking}."
    if pair.null_test and pair.null_test.method not in ("", pair.verdict.best):
        return (
            f"The test against chance is of {pair.null_test.method}: no p-value for this one, and no claim."
        )
    return "Without a test against chance (no p-value) no claim is made."


def _recovered(record: Measured) -> list[str]:
    """The share recovered, or that the test cannot tell anything apart."""
    found = record.verdict
    ceiling, floor = record.figure(found.ceiling), record.figure(found.floor)
    if ceiling.bounded and floor.bounded and not ceiling.low > floor.high:
        return [
            "Beware: even the networks trained on the conjunction are not clearly above random networks, so "
            "this test can hardly tell anything apart."
        ]
    recovered = record.methods[found.best].recovered
    if not recovered.known:
        return []
    share = round(100 * recovered.mean)
    much = f"{share}%" if share > 0 else f"nothing ({share}%)"
    return [
        f"It recovers {much} of the way from random networks to networks trained on the conjunction itself, "
        "which are the ceiling."
    ]


def _scope(record: Measured) -> str:
    """What the p-values do not cover."""
    few = ""
    levels = [record.attributes, record.objects] if isinstance(record, Overall) else []
    if any(count is not None and count < _FEW_CONCEPTS for count in levels):
        few = f"With {levels[0]} attribute(s) and {levels[1]} object(s), only very large differences show. "
    return few + "P-values cover other images and networks of these trainings, not another training (seed)."


def clear(p_value: float) -> bool:
    """Whether a p-value is below the level that the verdict uses."""
    return p_value < SIGNIFICANCE
