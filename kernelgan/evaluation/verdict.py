"""The rules of the verdict: do the generated networks compose? Applied once, when results are written.

The best generated method is the one with the highest mean figure of merit. That choice is made on the test
set; every p-value is corrected for it. It is compared with all other methods by the tests of the differences.

Yes: it is above every null (on one pair in the matched null test too), above both parents and above every
merge; it is one network of the parents' shape and no larger than one with two heads. No: one of these methods
is above it, or it copies a parent. Anything else, leaked images included: cannot tell.
"""

from __future__ import annotations

import dataclasses
import math

from kernelgan.baselines import FLOOR, PARENTS, REFERENCE, YARDSTICK
from kernelgan.results import NOTHING, Comparison, Measured, Pair, Run, Test, Verdict

SIGNIFICANCE = 0.05
COPY = 0.25
"""Networks nearer to a parent than this are copies; 1 is the distance of a parent to its nearest fellow."""

REQUIRED_KINDS = ("null", "parent", "merge")
_REQUIRED = (FLOOR, *PARENTS)


def judged(run: Run) -> Run:
    """The run with the verdict on each pair and on all of them."""
    pairs = tuple(dataclasses.replace(pair, verdict=judge(pair)) for pair in run.pairs)
    overall = run.overall
    if overall is not None:
        verdict = judge(overall)
        if any(pair.data.leaked for pair in pairs):
            verdict = dataclasses.replace(verdict, answer="cannot tell")
        overall = dataclasses.replace(overall, verdict=verdict)
    return dataclasses.replace(run, pairs=pairs, overall=overall)


def judge(record: Measured) -> Verdict:
    """The verdict on one pair, or on all of them together."""
    scored = [row for row in record.of_kind("generated") if record.figure(row.name).known]
    empty = Verdict(floor=FLOOR, yardstick=YARDSTICK, reference=REFERENCE)
    if not scored:
        return empty
    best = max(scored, key=lambda row: record.figure(row.name).mean).name
    comparisons = _comparisons(record, best)
    copies = record.methods[best].novelty.get("distance", NOTHING).mean < COPY
    unfit = _unfit(record, best)
    outcomes = [one.outcome for one in comparisons if one.required]
    if isinstance(record, Pair) and record.data.leaked:
        answer = "cannot tell"
    elif "below" in outcomes or copies:
        answer = "no"
    else:
        above = all(outcome == "above" for outcome in outcomes)
        answer = "yes" if above and not unfit else "cannot tell"
    return dataclasses.replace(
        empty,
        answer=answer,
        best=best,
        comparisons=comparisons,
        copies=copies,
        unfit=unfit,
        null_p_value=_null_p_value(record, best),
    )


def _null_p_value(record: Measured, best: str) -> float:
    """The p-value of the matched null test, corrected over pairs; NaN where it is missing or of another."""
    test = record.null_test if isinstance(record, Pair) else None
    if test is None or test.method not in ("", best):
        return math.nan
    return test.p_adjusted if math.isfinite(test.p_adjusted) else test.p_value


def _comparisons(record: Measured, best: str) -> tuple[Comparison, ...]:
    """The best generated method with every other, and with what must be compared but was not measured.

    A p-value of a required rival that is ahead is corrected for the number of these too (Holm), for one of
    them is enough for a "no".
    """
    rivals = [row.name for row in record.methods.values() if row.kind != "generated"]
    rivals += [name for name in (*_REQUIRED, YARDSTICK, REFERENCE) if name not in rivals]
    return _corrected_below([_compared(record, best, rival) for rival in rivals])


def _compared(record: Measured, best: str, rival: str) -> Comparison:
    row = record.methods.get(rival)
    required = rival in _REQUIRED or (row is not None and row.kind in REQUIRED_KINDS)
    test = record.tests.get(best, {}).get(rival, Test())
    p_value = test.p_adjusted
    if not (record.figure(rival).known and test.difference.known and math.isfinite(p_value)):
        outcome = "not measured"
    elif not p_value < SIGNIFICANCE:
        outcome = "cannot tell"
    else:
        outcome = "above" if test.difference.mean > 0 else "below"
    if rival == FLOOR and outcome == "above" and isinstance(record, Pair):
        matched = _null_p_value(record, best)
        if not matched < SIGNIFICANCE:
            outcome, p_value = "cannot tell", matched
    return Comparison(rival, outcome, required, test.difference, p_value)


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


def _unfit(record: Measured, best: str) -> str:
    """Why the best cannot be said to compose however well it scores, see `Verdict.unfit`; "" if it can."""
    row, floor = record.methods[best], record.methods.get(FLOOR)
    if not row.novelty.get("distance", NOTHING).known:
        return "shape"
    if floor and row.parameters is not None and floor.parameters and row.parameters > floor.parameters:
        return "size"
    return next((f"no {kind}" for kind in REQUIRED_KINDS if not record.of_kind(kind)), "")
