"""Networks out of a run's checkpoints, as files that PyTorch users can load.

``python -m kernelgan.export RUN --network=black --out=black.safetensors``
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np
from absl import logging

from kernelgan import interop, release, weights, workdir
from kernelgan.checkpoint import has_result, read_result
from kernelgan.files import given_path, write_atomically
from kernelgan.stopping import outlast_readers
from kernelgan.types import Params, UserError

_NAMELESS = ("params", "state")
"""Keys of a stage's result that are no part of a name."""

_HALF = "_half_width"
"""What the name of a zoo at half width has after that of the zoo whose images it learned from."""

_ZOOS = {"checkpoint": "", "half_width": _HALF}
"""Where the plan says that a zoo is kept, as it is and at half width; and what ends its name."""


def finished_stages(run: Path) -> list[str]:
    """Names of the stages that have networks to export, such as ``zoo`` and ``generate/cyclegan``."""
    root = run / workdir.CHECKPOINTS
    directories = (path for pattern in ("*", "*/*") for path in root.glob(pattern) if path.is_dir())
    directories = (path for path in directories if "placebos" not in path.relative_to(root).parts)
    stages = [path.relative_to(root) for path in directories if has_result(path)]
    # A stage's result is in a directory for its key, which has a result too.
    return sorted(stage.as_posix() for stage in stages if stage.parent not in stages)


def networks(run: Path) -> dict[str, Params]:
    """Everything that can be taken out of a run as it is now; it may be unfinished, or at work.

    Returns:
      By name, zoos first, merges and nulls (their first networks) last: a zoo's concept (``black``,
        ``black_half_width``); a row of the results (``cyclegan_a2b``, ``distilled``, ``zipit``); a fitted
        generator's parameters (``fit_cyclegan_conv1_a2b``). In a run of several pairs the pair comes first,
        as in ``black_cat/distilled``. Networks are stacked. A damaged stage is left out, with a warning.

    Raises:
      UserError: it is not a run, or has not begun to train.
    """
    zoos, rows = _read(run)
    return {name: kept["params"] for name, (_, kept) in zoos.items()} | rows


def _read(run: Path) -> tuple[dict[str, tuple[dict[str, Any], dict[str, Any]]], dict[str, Params]]:
    """By name each zoo's record in the plan with what was kept of it, and everything else."""
    if not run.is_dir():
        raise UserError(f"{run} is not a directory; expected a run's work directory, such as runs/black_cat.")
    plan = workdir.read_plan(run)
    results: dict[str, dict[str, Any]] = {}
    for stage in finished_stages(run):
        try:
            results[stage] = read_result(run / workdir.CHECKPOINTS / stage)
        except UserError as error:
            logging.warning("%s", error)
    of_zoos = {zoo[kept][0] for zoo in plan["zoos"] for kept in _ZOOS}
    rows = {
        prefix + "_".join([*_first_name(stage), *keys]): params
        for stage, tree in results.items()
        if stage not in of_zoos
        for prefix, share in _by_pair(tree, plan["pairs"])
        for keys, params in _parts(share)
    }
    rows |= _measured(run, plan["pairs"])
    zoos: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
    for name, zoo in zip(_zoo_names(plan["zoos"], rows), plan["zoos"], strict=True):
        for kept, ending in _ZOOS.items():
            stage, key = zoo[kept]
            if key in results.get(stage, {}):
                zoos[name + ending] = zoo, results[stage][key]
    return zoos, rows


def _measured(run: Path, pairs: Sequence[Mapping[str, Any]]) -> dict[str, Params]:
    """Merges and nulls, kept as they were measured, by name."""
    found: dict[str, Params] = {}
    for pair in pairs:
        key = f"{pair['attribute']}_{pair['object']}"
        for file in sorted((run / workdir.EVALUATION / key).glob("*.safetensors")):
            try:
                found[f"{key}/{file.stem}" if len(pairs) > 1 else file.stem] = interop.load_zoo(file).params
            except UserError as error:
                logging.warning("%s", error)
    return found


def _first_name(stage: str) -> list[str]:
    """How names of what a stage made begin; the results of ``generate/...`` have their rows' names."""
    kind, _, name = stage.rpartition("/")
    return [] if kind == "generate" else [f"fit_{name}" if kind == "fit" else name]


def _by_pair(
    tree: dict[str, Any], pairs: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The prefix of each pair's names, and its share of a result kept by number or stacked ``(P, ...)``."""
    tree = {key: inner for key, inner in tree.items() if key != "history"}
    prefixes = [f"{pair['attribute']}_{pair['object']}/" if len(pairs) > 1 else "" for pair in pairs]
    if tree and all(key.isdecimal() for key in tree):
        taught = prefixes
        if len(tree) < len(pairs) and "0000" in tree:  # references, counted over the pairs that have them
            taught = [prefix for prefix, pair in zip(prefixes, pairs, strict=True) if pair["has_reference"]]
        yield from ((taught[int(key)], share) for key, share in tree.items())
    elif {np.shape(leaf)[:1] for leaf in jax.tree.leaves(tree)} == {(len(pairs),)}:
        for number, prefix in enumerate(prefixes):
            yield prefix, jax.tree.map(lambda leaf, n=number: leaf[n], tree)
    else:
        yield "", tree


def _parts(tree: Mapping[str, Any], keys: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Params]]:
    """Networks, generators and other groups of arrays in a tree, with the keys that lead to them."""
    if _is_layered(tree):
        yield keys, dict(tree)
        return
    arrays = {key: leaf for key, leaf in tree.items() if not isinstance(leaf, Mapping)}
    if arrays:
        yield keys, arrays
    for key, inner in tree.items():
        if key not in arrays and key != "history":
            yield from _parts(inner, keys if key in _NAMELESS else (*keys, key))


def _is_layered(tree: Mapping[str, Any]) -> bool:
    """Whether these are parameters of layers, which PyTorch has names for."""
    return bool(tree) and all(
        isinstance(layer, Mapping) and set(layer) == {"kernel", "bias"} for layer in tree.values()
    )


def _zoo_names(zoos: Sequence[Mapping[str, Any]], taken: Mapping[str, Any]) -> list[str]:
    """The concept; where zoos share it, what they exclude too; where that is not enough, their kind too."""
    plain = [zoo["concept"] for zoo in zoos]
    without = [f"{zoo['concept']}_without_{'_'.join(zoo['excluded'])}" for zoo in zoos]
    full = [f"{zoo['kind']}_{name}" for zoo, name in zip(zoos, without, strict=True)]
    for names in (plain, without):
        every = [*names, *(f"{name}{_HALF}" for name in names), *taken]
        if len(set(every)) == len(every):
            return names
    return full


def export(run: Path, out: Path, *, network: str, member: int | None = None, released: bool = False) -> str:
    """Writes networks of a run's checkpoints in PyTorch's names and layout.

    Args:
      run: its work directory; the run may be unfinished, or at work.
      out: a file (see `interop.save`), which has all networks stacked, or the one that ``member`` says; or a
        new or empty directory, which gets one ``.safetensors`` for each.
      network: a name of `networks`.
      member: the number of one network.
      released: whether the directory is to be of the form of `release.write`.

    Returns:
      What was written, in one line.

    Raises:
      UserError: no such run, network or member (those that there are, are listed), or it cannot be written.
    """
    to_directory = out.is_dir() or not out.suffix
    if not to_directory:
        weights.check_suffix(out)
    elif out.is_dir() and any(out.iterdir()):
        raise UserError(f"--out={out} is not empty; expected a new or empty directory, or a file's name.")
    zoos, rows = _read(run)
    known = {name: kept["params"] for name, (_, kept) in zoos.items()} | rows
    if network not in known:
        given = f"{run} has no {network!r}; it has" if network else f"--network is not given; {run} has"
        nearest = difflib.get_close_matches(network, known, n=1, cutoff=0.3) if network else []
        meant = f" The nearest is {nearest[0]}." if nearest else ""
        raise UserError(
            f"{given} {weights.some(list(known)) or 'nothing yet'}.{meant} Name one of those that python -m "
            f"kernelgan.export {run} lists, or continue the run (python launch.py --config=... "
            f"--workdir={run})."
        )
    params = known[network]
    layered = _is_layered(params)
    count = interop.count_of(params) if layered and interop.is_stacked(params) else None
    if member is not None and (count is None or not 0 <= member < count):
        expected = "no number, for it is not a zoo" if count is None else f"a number from 0 to {count - 1}"
        raise UserError(f"--member={member} is not in {network!r}; expected {expected}.")
    arrays = interop.to_torch(params) if layered else params
    zoo, kept = zoos.get(network, (None, {}))
    said = release.card(run, network, zoo)
    stem, size = network.replace("/", "_"), sum(np.size(leaf) for leaf in arrays.values()) // (count or 1)
    if member is not None:
        arrays = {name: array[member] for name, array in arrays.items()}
    if released:
        if count is None or member is not None or not to_directory:
            raise UserError(
                f"--release of {network!r} to {out}; expected a zoo or a row of networks, no --member, and a "
                "new or empty directory as --out."
            )
        release.write(out, arrays, said, kept.get("history") or release.merits(run, network, count))
    elif not to_directory:
        weights.write_arrays(out, arrays, said)
        write_atomically(out.with_suffix(".card.md"), release.markdown(said).encode())
    elif count is None:
        weights.write_arrays(out / f"{stem}.safetensors", arrays, said)
    else:
        width = max(4, len(str(count - 1)))
        for number in range(count) if member is None else [member]:
            single = arrays if member is not None else {name: a[number] for name, a in arrays.items()}
            weights.write_arrays(out / f"{stem}_{number:0{width}d}.safetensors", single, said)
    written = count if member is None else 1
    what = "1 generator" if written is None else f"{written} network{'s' if written > 1 else ''}"
    return f"{out}: {network} of {run}, {what} of {size:,} parameters in {len(arrays)} arrays"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Told in one line, as every other error."""
        raise UserError(message)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; gives its exit status."""
    parser = _Parser(prog="python -m kernelgan.export", description="Takes networks out of a run.")
    parser.add_argument("run", metavar="RUN", help="a work directory, such as runs/black_cat")
    parser.add_argument(
        "--out",
        help="a .safetensors, .npz or .pth for all networks; or a directory for one .safetensors each",
    )
    parser.add_argument("--network", metavar="NAME", help="which; without it the names are listed")
    parser.add_argument("--member", type=int, metavar="I", help="only network number I, counted from 0")
    parser.add_argument(
        "--release", action="store_true", help="a directory with networks, index, splits, metrics and card"
    )
    try:
        given = parser.parse_args(argv)
        run = given_path(given.run, "RUN")
        if given.network is None and given.out is None:
            print("\n".join(networks(run)))
            return 0
        if given.out is None:
            raise UserError("--out is not given; expected a file or a directory to write.")
        out = given_path(given.out, "--out")
        print(export(run, out, network=given.network or "", member=given.member, released=given.release))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    outlast_readers()
    jax.config.update("jax_platforms", "cpu")  # nothing is computed: leave an accelerator to others
    sys.exit(main())
