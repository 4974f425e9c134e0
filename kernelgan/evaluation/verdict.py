"""The rules of the verdict: do the generated networks compose? Applied once, when results are written.

The best generated method is the one with the highest mean figure of merit. That choice is made on the test
set; every p-value is corrected for it. It is compared with all other methods by the tests of the differences.

Yes: it is above every null (on one pair in the matched null test too), above both parents and above every
merge of its tier or a poorer one, and it breaks none of `RULES`. No: one of these methods is above it, or it
copies a parent, on any pair. Anything else, leaked images included: cannot tell.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from kernelgan.baselines import FLOOR, PARENTS, REFERENCE, YARDSTICK
from kernelgan.results import NOTHING, Comparison, Measured, Overall, Pair, Row, Run, Test, Verdict
from kernelgan.types import Quadrant

if TYPE_CHECKING:
    from kernelgan.baselines.methods import Method

SIGNIFICANCE = 0.05
COPY = 0.25
"""Networks nearer to a parent than this are copies; 1 is the distance of a parent to its nearest fellow."""
COPIED_ANSWERS = 0.5
"""The same for answers; 1 is how far those of both parents together are from the nearer of them, or less."""

FEW_IMAGES = 20
"""With fewer test images of a quadrant, resampling them says little of others."""

TRAININGS = 3
"""A claim needs as many trainings of a generator that has steps: another training is another draw."""

TIERS = {
    "": "not known",
    "W": "weights only",
    "S": "weights, and images that the package makes",
    "U": "weights, and unlabelled training images without the conjunction",
    "G": "gradient steps on images",
}
"""What a method reads, the least first; nothing is known of "", which every tier is compared with."""

REQUIRED_KINDS = ("null", "parent", "merge")
_REQUIRED = (FLOOR, *PARENTS)

RULES = {
    "left out": "no null or merge that it must be above was left out by the config",
    "leak": "no image of the conjunction was read in training",
    "copy": "the networks are not copies of a parent, by weights or by answers, on any pair",
    "few images": f"there are at least {FEW_IMAGES} test images of each quadrant",
    "shape": "each is one network of the parents' shape",
    "size": "it is no larger than one network with two heads, on any pair",
    "one network": "at least two of the networks differ",
    "unanswered": "every pair is answered",
    "trainings": f"a generator that is trained was trained at least {TRAININGS} times",
    "no placebo": "the method was repeated with random networks in place of either side's parents",
    "placebo": "its gain over 0.5 falls by at least half with any placebo parents, on either side",
    **{f"no {kind}": f"a {kind} of its tier was measured" for kind in REQUIRED_KINDS},
    "not above": "it is above every null, parent and merge of its tier or a poorer one",
}
"""By name, what must hold for a "yes"."""


def judged(run: Run, left_out: Sequence[Method] = ()) -> Run:
    """The run with the verdict on each pair and on all of them.

    Args:
      run: its results.
      left_out: baselines that the config leaves out.
    """
    pairs = tuple(dataclasses.replace(pair, verdict=judge(pair, left_out)) for pair in run.pairs)
    overall = run.overall
    if overall is not None:
        verdict = judge(overall, left_out)
        if any(pair.data.leaked for pair in pairs):
            verdict = dataclasses.replace(verdict, answer="cannot tell")
        overall = dataclasses.replace(overall, verdict=verdict)
    return dataclasses.replace(run, pairs=pairs, overall=overall)


def judge(record: Measured, left_out: Sequence[Method] = ()) -> Verdict:
    """The verdict on one pair, or on all of them together; see `judged`."""
    scored = [row for row in record.of_kind("generated") if record.figure(row.name).known]
    if not scored:
        return Verdict(floor=FLOOR, yardstick=YARDSTICK, reference=REFERENCE)
    best = max(scored, key=lambda row: record.figure(row.name).mean)
    verdict = _judge(record, best, left_out)
    tiers = sorted({row.tier for row in scored}, key=_rank)
    if len(tiers) > 1:
        bests = [
            max((row for row in scored if row.tier == tier), key=lambda row: record.figure(row.name).mean)
            for tier in tiers
        ]
        answers = {row.tier: _judge(record, row, left_out).answer for row in bests}
        verdict = dataclasses.replace(verdict, tiers=answers)
    return verdict


def is_copy(distance: float, answers: float) -> bool:
    """Whether networks at these mean distances from the nearest parent (NaN: not known) are copies of it."""
    return distance < COPY or answers < COPIED_ANSWERS


def _rank(tier: str) -> int:
    return list(TIERS).index(tier) if tier in TIERS else 0


def _judge(record: Measured, best: Row, left_out: Sequence[Method]) -> Verdict:
    comparisons = _comparisons(record, best)
    broken = tuple(_broken(record, best, comparisons))
    if any(_must_beat(best, method) for method in left_out):
        broken = ("left out", *broken)
    if {"leak", "left out"} & {*broken}:
        answer = "cannot tell"
    elif "copy" in broken or any(one.required and one.outcome == "below" for one in comparisons):
        answer = "no"
    else:
        answer = "cannot tell" if broken else "yes"
    reached = [record.tests.get(best.name, {}).get(one.rival, Test()) for one in comparisons if one.required]
    return Verdict(
        answer=answer,
        best=best.name,
        comparisons=comparisons,
        copies="copy" in broken,
        broken=broken,
        detectable=max((test.detectable for test in reached if test.detectable >= 0), default=math.nan),
        null_p_value=_null_p_value(record, best.name),
        floor=FLOOR,
        yardstick=YARDSTICK,
        reference=REFERENCE,
    )


def _null_p_value(record: Measured, best: str) -> float:
    """The p-value of a generated method in the matched null test, corrected over pairs; NaN without one.

    The test is corrected for the best of all generated methods; another gets the same correction.
    """
    test = record.null_test if isinstance(record, Pair) else None
    if test is None:
        return math.nan
    whole = test.p_adjusted if math.isfinite(test.p_adjusted) else test.p_value
    if test.method in ("", best) or best not in test.by_method:
        return whole if test.method in ("", best) else math.nan
    own = test.by_method[best]["mean_p_value"] * (test.candidates or 1)
    return min(1.0, own * max(1.0, whole / test.p_value))


def _comparisons(record: Measured, best: Row) -> tuple[Comparison, ...]:
    """The best generated method with every other, and with what must be compared but was not measured.

    A p-value of a required rival that is ahead is corrected for the number of these too (Holm), for one of
    them is enough for a "no".
    """
    rivals = [row.name for row in record.methods.values() if row.kind != "generated"]
    rivals += [name for name in (*_REQUIRED, YARDSTICK, REFERENCE) if name not in rivals]
    return _corrected_below([_compared(record, best, rival) for rival in rivals])


def _compared(record: Measured, best: Row, rival: str) -> Comparison:
    row = record.methods.get(rival)
    required = rival in _REQUIRED or (row is not None and _must_beat(best, row))
    test = record.tests.get(best.name, {}).get(rival, Test())
    p_value = test.p_adjusted
    broke = required and row is not None and row.not_finite  # answers that are not finite score 0
    if broke or not (record.figure(rival).known and test.difference.known and math.isfinite(p_value)):
        outcome = "not measured"
    elif not p_value < SIGNIFICANCE:
        outcome = "cannot tell"
    else:
        outcome = "above" if test.difference.mean > 0 else "below"
    if rival == FLOOR and outcome == "above" and isinstance(record, Pair):
        matched = _null_p_value(record, best.name)
        if not matched < SIGNIFICANCE:
            outcome, p_value = "cannot tell", matched
    return Comparison(rival, outcome, required, test.difference, p_value)


def _must_beat(best: Row, rival: Row | Method) -> bool:
    """Whether it is a null, parent or merge of the tier of the best or a poorer one."""
    within = not best.tier or _rank(rival.tier) <= _rank(best.tier)
    return rival.kind in REQUIRED_KINDS and within


def _corrected_below(found: list[Comparison]) -> tuple[Comparison, ...]:
    from kernelgan.evaluation.null_test import holm  # scipy takes a second to import

    tested = [one for one in found if one.required and math.isfinite(one.p_value)]
    corrected = dict(zip((one.rival for one in tested), holm([one.p_value for one in tested]), strict=True))
    result = []
    for one in found:
        if one.rival in corrected and one.difference.mean < 0:
            p_value = corrected[one.rival]
            outcome = one.outcome if one.outcome != "below" or p_value < SIGNIFICANCE else "cannot tell"
            one = dataclasses.replace(one, p_value=p_value, outcome=outcome)
        result.append(one)
    return tuple(result)


def _broken(record: Measured, best: Row, comparisons: tuple[Comparison, ...]) -> Iterator[str]:
    """Names of the `RULES` that the best generated method breaks, in their order."""
    floor = record.methods.get(FLOOR)
    distance, answers = (best.novelty.get(figure, NOTHING) for figure in ("distance", "answers"))
    behind = best.behind.leaked if best.behind else 0
    if behind or (isinstance(record, Pair) and record.data.leaked):
        yield "leak"
    if is_copy(distance.mean, answers.mean) or best.copies:
        yield "copy"
    if isinstance(record, Pair) and min(_test_images(record), default=FEW_IMAGES) < FEW_IMAGES:
        yield "few images"
    if not distance.known:
        yield "shape"
    if floor and best.parameters is not None and floor.parameters and best.parameters > floor.parameters:
        yield "size"
    if isinstance(record, Pair) and best.networks == 1:
        yield "one network"
    if isinstance(record, Overall) and best.pairs is not None and best.pairs < record.pairs:
        yield "unanswered"
    if best.steps and len(best.trainings) < TRAININGS:
        yield "trainings"
    if not {f"{side}_random" for side in ("attribute", "object")} <= best.placebos.keys():
        yield "no placebo"
    if any(not falls(placebo.test) for placebo in best.placebos.values()):
        yield "placebo"
    for kind in REQUIRED_KINDS:
        if not any(_must_beat(best, row) for row in record.of_kind(kind)):
            yield f"no {kind}"
    if any(one.required and one.outcome != "above" for one in comparisons):
        yield "not above"


def _test_images(pair: Pair) -> list[int]:
    """How many there are of each quadrant that is told from the others; none where that is not known."""
    known = {label: count for label, count in pair.data.test.items() if count}
    if len(known) > 2:
        known.pop(Quadrant.REST.label, 0)  # in no figure of merit
    return list(known.values())


def falls(test: Test) -> bool:
    """Whether a placebo's gain is surely less than half of the method's, see `results.Placebo`."""
    return test.p_adjusted < SIGNIFICANCE and test.difference.mean > 0
