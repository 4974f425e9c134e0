"""What is said of exported networks: a model card, and the files of a zoo for others to use.

The files are those of public model zoos (Schürholt et al., "Model Zoos", NeurIPS 2022): the networks, an
index with a split and the last metrics of each, all metrics by epoch, and a card.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from kernelgan import results, weights
from kernelgan.evaluation.verdict import TIERS
from kernelgan.files import write_atomically
from kernelgan.interop import RELEASED
from kernelgan.report import metrics
from kernelgan.results import Pair, Row, Run
from kernelgan.types import Array, UserError

_SHARES = {"train": 0.7, "validation": 0.15, "test": 0.15}
_VALIDATION = ", validation"
"""After the name of a figure of a zoo."""
_FIGURES = (
    *("auroc.worst", "auroc.vs_attribute_only", "auroc.vs_object_only", "auroc.vs_neither", "auroc.vs_rest"),
    *("balanced_accuracy", "average_precision", "recall", "recovered", "novelty.distance"),
)
_USE = (
    "PyTorch's names and layout. Input: RGB from -1 to 1. Two logits: no, yes. Four: attribute no, yes, "
    "object no, yes; the score of both is log sigmoid(yes - no) of each, added."
)


def card(run: Path, network: str, zoo: Mapping[str, object] | None = None) -> dict[str, str]:
    """What is known of exported networks: what they are, made from what, their figures, the run.

    Args:
      run: its work directory; of one that has not finished there are no figures.
      network: a name of `export.networks`.
      zoo: of a parents' zoo, its record in the plan.

    Returns:
      Text by heading, in order.
    """
    said = {"name": network}
    if zoo is not None:
        excluded = ", ".join(map(str, zoo["excluded"]))  # type: ignore[call-overload]
        said |= {"what it is": f"networks trained on {zoo['concept']}", "images left out": excluded}
    said["how to use it"] = _USE
    try:
        done = results.read_results(run)
    except UserError:
        return said | {"figures": "none: the run has not finished"}
    pair, row = _row(done, network)
    if row is not None:
        said |= _of_row(pair, row)
    elif zoo is not None:
        scores = pair.zoo.get(str(zoo["kind"]), {}) if zoo["concept"] in pair.title.split(" ") else {}
        said |= {f"{metrics.title(name)}{_VALIDATION}": value.text() for name, value in scores.items()}
    return said | {
        "images": done.data.source,
        **({"notes": "; ".join(done.data.notes)} if done.data.notes else {}),
        "run": done.name,
        "seed": str(done.seed),
        "date": done.date,
        "commit": done.commit + {True: "", False: " with changes", None: ""}[done.clean],
        "command": done.command,
        "written with": ", ".join(f"{name} {version}" for name, version in done.versions.items()),
    }


def _row(done: Run, network: str) -> tuple[Pair, Row | None]:
    key, _, name = network.rpartition("/")
    pair = next((pair for pair in done.pairs if pair.key == key), done.pairs[0])
    return pair, pair.methods.get(name)


def merits(run: Path, network: str, count: int) -> dict[str, np.ndarray]:
    """The figure of merit of each of the first ``count`` networks of a row, where it was measured."""
    try:
        done = results.read_results(run)
    except UserError:
        return {}
    pair, row = _row(done, network)
    found = done.arrays_under(pair, "worst").get(row.name) if row else None
    return {} if found is None or len(found) < count else {f"auroc_{pair.merit}": found[:count]}


def _of_row(pair: Pair, row: Row) -> dict[str, str]:
    figures = results.statistics(row)
    made = f"networks for {pair.pair.attribute} and networks for {pair.pair.object}"
    said = {
        "what it is": f"{row.label or row.name} ({row.kind}): {row.description}",
        "made from": f"{made}, by {row.family}" if row.family else made,
        "reads": f"tier {row.tier}: {TIERS.get(row.tier, row.tier)}" if row.tier else "",
        "images handed": "" if row.images is None else str(row.images),
        "training steps": "" if row.steps is None else str(row.steps),
        "parameters of a network": "" if row.parameters is None else str(row.parameters),
        "networks measured": "" if row.networks is None else str(row.networks),
        **{metrics.title(path): figures[path].text() for path in _FIGURES if path in figures},
        "digest": row.digest,
    }
    if row.name == pair.verdict.best:
        said["verdict: do they compose?"] = pair.verdict.answer
    return {name: text for name, text in said.items() if text}


def markdown(said: Mapping[str, str]) -> str:
    """A card as a page."""
    lines = [f"# {said['name']}", "", "| | |", "| --- | --- |"]
    rows = [f"| {name} | {' '.join(text.split())} |".replace("|  |", "| - |") for name, text in said.items()]
    images = "validation" if any(name.endswith(_VALIDATION) for name in said) else "test"
    note = f"Figures are means over all networks with 95% intervals, on {images} images."
    return "\n".join([*lines, *rows, "", note, ""])


def write(
    folder: Path, arrays: Mapping[str, Array], said: Mapping[str, str], history: Mapping[str, np.ndarray]
) -> None:
    """Writes stacked networks in the form of a public model zoo.

    The files: `RELEASED`, ``index.csv``, ``README.md``; where there is a history by epoch, ``metrics.csv``.

    Args:
      folder: new or empty.
      arrays: by PyTorch's names, each ``(M, ...)``.
      said: the card.
      history: by metric ``(M, E)`` of training, or ``(M,)``.
    """
    count = len(next(iter(arrays.values())))
    by_epoch = {name: values for name, values in history.items() if np.ndim(values) == 2}
    last = {name: values[:, -1] if np.ndim(values) == 2 else values for name, values in history.items()}
    splits = split(count)
    index = [[n, splits[n], *(f"{last[name][n]:.6g}" for name in last)] for n in range(count)]
    weights.write_arrays(folder / RELEASED, arrays, said)
    _table(folder / "index.csv", ["network", "split", *last], index)
    if by_epoch:
        epochs = next(iter(by_epoch.values())).shape[1]
        lines = [
            [n, epoch + 1, *(f"{by_epoch[name][n, epoch]:.6g}" for name in by_epoch)]
            for n in range(count)
            for epoch in range(epochs)
        ]
        _table(folder / "metrics.csv", ["network", "epoch", *by_epoch], lines)
    shares = ", ".join(f"{splits.count(name)} {name}" for name in _SHARES)
    said = {**said, "networks": f"{count} ({shares}), stacked in {RELEASED}, numbered as in index.csv"}
    write_atomically(folder / "README.md", markdown(said).encode())


def split(count: int) -> list[str]:
    """The split of each of ``count`` networks: 70% train, 15% validation, 15% test, always the same."""
    order, ends = np.random.default_rng(0).permutation(count), np.cumsum([*_SHARES.values()])
    places = np.searchsorted(np.round(ends * count), order, side="right")
    return [list(_SHARES)[min(place, len(_SHARES) - 1)] for place in places]


def _table(path: Path, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *rows])
    write_atomically(path, text.getvalue().encode())
