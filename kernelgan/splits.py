"""Folds of concept pairs, and which of them are sealed: a small file that is made before anything trains.

A fold is a diagonal of the matrix of attributes by objects (a Latin square): every concept has at most one
partner in it, and every pair is held out in exactly one fold. Choices are made on development folds. A run
that opens test images of sealed pairs must be registered, see `kernelgan.attempts`.

``python -m kernelgan.splits FILE --attributes=black,red --objects=cat,car --sealed=1`` makes a file; the
SHA-256 of its content is in it and is checked when it is read.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kernelgan.files import given_path, write_atomically
from kernelgan.types import Config, PairName, UserError

USES = ("all", "development", "sealed")
"""Which folds a run takes its pairs from."""


@dataclasses.dataclass(frozen=True)
class Splits:
    """Folds of the pairs of some concepts.

    Attributes:
      attributes: their names.
      objects: their names.
      seed: of the orders that the diagonals are drawn from.
      seen: pairs on which choices were made before; all are in the first fold, which is never sealed.
      folds: the pairs that each fold holds out.
      sealed: numbers of the sealed folds, from 1; the last.
    """

    attributes: tuple[str, ...]
    objects: tuple[str, ...]
    seed: int
    seen: tuple[PairName, ...]
    folds: tuple[tuple[PairName, ...], ...]
    sealed: tuple[int, ...]

    def fold(self, pair: PairName) -> int:
        """The number, from 1, of the fold that holds a pair out.

        Raises:
          UserError: none does, for a concept is unknown.
        """
        for number, fold in enumerate(self.folds, start=1):
            if pair in fold:
                return number
        raise UserError(
            f"the splits have no pair {' '.join(pair)!r}; expected attributes among "
            f"{', '.join(self.attributes)} and objects among {', '.join(self.objects)}."
        )

    def is_sealed(self, pair: PairName) -> bool:
        """Whether a pair's test images may be opened by registered runs only; raises as `fold`."""
        return self.fold(pair) in self.sealed

    def chosen(self, use: str, among: Sequence[PairName] = ()) -> list[PairName]:
        """The pairs of all folds, or of those for development, or of the sealed ones.

        Args:
          use: one of `USES`.
          among: take only these, in their order; none: all pairs.
        """
        pairs = list(among) or list(itertools.product(self.attributes, self.objects))
        return [pair for pair in pairs if use == "all" or self.is_sealed(pair) == (use == "sealed")]

    @property
    def content(self) -> dict[str, Any]:
        """What the file says, as JSON has it, without the digest."""
        return {
            "seed": self.seed,
            "attributes": list(self.attributes),
            "objects": list(self.objects),
            "seen": [list(pair) for pair in self.seen],
            "folds": [
                {
                    "use": USES[2] if number in self.sealed else USES[1],
                    "pairs": [list(pair) for pair in fold],
                }
                for number, fold in enumerate(self.folds, start=1)
            ],
        }

    @property
    def sha256(self) -> str:
        """The digest of the content, in hexadecimal."""
        return hashlib.sha256(json.dumps(self.content, sort_keys=True).encode()).hexdigest()


def make(
    attributes: Sequence[str],
    objects: Sequence[str],
    *,
    seed: int,
    sealed: int,
    seen: Sequence[PairName] = (),
) -> Splits:
    """Draws the folds: as many as the longer side has concepts.

    Args:
      attributes: different names.
      objects: different names.
      seed: of the orders of both.
      sealed: how many folds are sealed, the last; at least 1, and not the first.
      seen: pairs on which choices were made before, each concept in one of them at most.

    Raises:
      UserError: a name is twice or unknown, or the number of sealed folds does not fit.
    """
    size = max(len(attributes), len(objects))
    for names in (attributes, objects):
        if len(set(names)) < len(names):
            raise UserError(f"{', '.join(names)}: a concept is named twice; name each once.")
    sides = tuple(zip(*seen, strict=True)) or ((), ())
    for names, known in zip(sides, (attributes, objects), strict=True):
        if not set(names) <= set(known) or len(set(names)) < len(names):
            raise UserError(
                f"seen names {', '.join(names)}; expected names among {', '.join(known)}, each at most once: "
                "pairs that are in the same fold have no concept in common."
            )
    if not 1 <= sealed < size:
        raise UserError(
            f"sealed is {sealed}; expected a number from 1 to {size - 1}: there are {size} folds."
        )
    rng = np.random.default_rng(seed)
    rows, columns = ([*names, *[""] * (size - len(names))] for names in (attributes, objects))
    rows = [rows[place] for place in rng.permutation(size)]
    partner = dict(seen)
    free = [columns[place] for place in rng.permutation(size) if columns[place] not in partner.values()]
    columns = [partner.get(row) or free.pop() for row in rows]
    folds = []
    for shift in range(size):
        diagonal = zip(rows, columns[shift:] + columns[:shift], strict=True)
        folds.append(tuple(sorted(pair for pair in diagonal if all(pair))))
    numbers = tuple(range(size - sealed + 1, size + 1))
    return Splits(tuple(attributes), tuple(objects), seed, tuple(seen), tuple(folds), numbers)


def write(path: Path, made: Splits) -> Path:
    """Writes the file of some splits.

    Raises:
      UserError: other splits are there, or it cannot be written.
    """
    if path.exists() and read(path) != made:
        raise UserError(
            f"{path} holds other splits: which pairs are sealed is chosen once, before anything trains. Give "
            "another name."
        )
    try:
        return write_atomically(path, _text(made).encode())
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}).") from error


def _text(made: Splits) -> str:
    """JSON, a line for each field and each fold."""
    content = made.content
    folds = ",\n  ".join(map(json.dumps, content.pop("folds")))
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in content.items()]
    lines += [f'"folds": [\n  {folds}\n ]', f'"sha256": "{made.sha256}"']
    return "{\n " + ",\n ".join(lines) + "\n}\n"


def read(path: Path) -> Splits:
    """Reads a file of splits.

    Raises:
      UserError: it cannot be read, is no such file, or was changed after it was made.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        digest, folds = content["sha256"], content["folds"]
        uses = [fold["use"] for fold in folds]
        found = Splits(
            tuple(content["attributes"]),
            tuple(content["objects"]),
            content["seed"],
            tuple((attribute, thing) for attribute, thing in content["seen"]),
            tuple(tuple((attribute, thing) for attribute, thing in fold["pairs"]) for fold in folds),
            tuple(number for number, use in enumerate(uses, start=1) if use == "sealed"),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} cannot be read as a file of splits ({error}). Make it with python -m "
            "kernelgan.splits, or take back the committed file."
        ) from error
    if digest != found.sha256:
        raise UserError(
            f"{path} was changed after it was made: its content has the SHA-256 {found.sha256}, and it says "
            f"{digest}. Take back the committed file."
        )
    return found


def of_config(config: Config) -> Splits | None:
    """What ``config.pairs.splits`` names; None where it names no file.

    Raises:
      UserError: see `read`.
    """
    file = config.pairs.splits
    return read(given_path(file, "pairs.splits")) if file else None


def pairs_of(config: Config) -> list[PairName]:
    """The pairs of a run: every attribute with every object, of the folds that it takes."""
    pairs = list(itertools.product(config.pairs.attributes, config.pairs.objects))
    splits = of_config(config)
    return splits.chosen(config.pairs.folds, pairs) if splits else pairs


def problems(config: Config) -> list[str]:
    """What is wrong with ``pairs.splits`` and ``pairs.folds``; a sealed run without a registry, for one."""
    given = config.pairs
    if not given.splits:
        if given.folds == "all":
            return []
        return [
            f"pairs.folds is {given.folds!r} without pairs.splits; expected a file that says which they are"
        ]
    try:
        splits = of_config(config)
        assert splits is not None
    except UserError as error:
        return [str(error)]
    unknown = [name for name in given.attributes if name not in splits.attributes]
    unknown += [name for name in given.objects if name not in splits.objects]
    if unknown:
        return [
            f"pairs.splits is {given.splits!r}, which has no {', '.join(unknown)}; expected attributes among "
            f"{', '.join(splits.attributes)} and objects among {', '.join(splits.objects)}"
        ]
    pairs = pairs_of(config)
    if not pairs:
        named = [" ".join(pair) for pair in itertools.product(given.attributes, given.objects)]
        return [
            f"pairs.folds is {given.folds!r}, and none of {', '.join(named[:5])} is; expected a pair that is"
        ]
    sealed = [" ".join(pair) for pair in pairs if splits.is_sealed(pair)]
    if sealed and not config.registry:
        more = f" and {len(sealed) - 1} more" if len(sealed) > 1 else ""
        return [
            f"registry is empty, but this run would open test images of sealed pairs ({sealed[0]}{more}, by "
            f"{given.splits}); expected a registered run, --config.registry=FILE.csv, in which every attempt "
            "counts, or --config.pairs.folds=development"
        ]
    return []


def _pairs(text: str) -> list[PairName]:
    pairs = [tuple(word.split(":")) for word in text.split(",") if word]
    if any(len(pair) != 2 for pair in pairs):
        raise UserError(f"--seen is {text!r}; expected pairs such as black:cat,red:car")
    return [(attribute, thing) for attribute, thing in pairs]


def main(argv: Sequence[str] | None = None) -> int:
    """The command; gives its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m kernelgan.splits", description="Draws folds of pairs, and seals some."
    )
    parser.add_argument("file", metavar="FILE", help="JSON, to be committed before anything trains")
    parser.add_argument("--attributes", required=True, help="names, with commas between")
    parser.add_argument("--objects", required=True, help="names, with commas between")
    parser.add_argument(
        "--seen", default="", help="pairs that choices were made on before: black:cat,red:car"
    )
    parser.add_argument("--sealed", type=int, required=True, help="how many folds are sealed")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (0)")
    given = parser.parse_args(argv)
    try:
        sides = [[name for name in text.split(",") if name] for text in (given.attributes, given.objects)]
        made = make(sides[0], sides[1], seed=given.seed, sealed=given.sealed, seen=_pairs(given.seen))
        write(given_path(given.file, "FILE"), made)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    counts = {use: len(made.chosen(use)) for use in USES[1:]}
    print(f"{given.file}: {len(made.folds)} folds; pairs: {counts}; SHA-256 {made.sha256}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
