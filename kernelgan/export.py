"""Networks out of a run's checkpoints, as files that PyTorch users can load.

``python -m kernelgan.export RUN --network=black --out=black.safetensors``
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import jax
import numpy as np
from absl import logging

from kernelgan import interop, release, weights, workdir
from kernelgan.checkpoint import has_result, read_result
from kernelgan.files import given_path, nearest, write_atomically
from kernelgan.stopping import outlast_readers
from kernelgan.types import Array, Params, UserError

_NAMELESS = ("params", "state")
"""Keys of a fitted generator's result that are no part of a name."""

_NOT_LISTED = ("history", "count", "mu", "nu", "trace")
"""Keys of what is no network: curves, and what optax's optimizers keep beside the parameters."""

_HALF = "_half_width"
"""What the name of a zoo at half width has after that of the zoo whose images it learned from."""


class _Kept(NamedTuple):
    """What can be taken out: stacked networks, or arrays of a generator; of a zoo what is known of it too."""

    params: Params
    zoo: Mapping[str, Any] | None = None
    history: Mapping[str, np.ndarray] = {}


def finished_stages(run: Path) -> list[str]:
    """Names of the stages that have networks to export, such as ``zoo`` and ``generate/cyclegan``."""
    root = run / workdir.CHECKPOINTS
    stages: list[Path] = []
    for folder in root.glob("*"):
        if folder.name != "placebos":
            stages += [folder] if has_result(folder) else filter(has_result, folder.glob("*"))
    return sorted(stage.relative_to(root).as_posix() for stage in stages)


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
    return {name: kept.params for name, kept in _read(run).items()}


def _read(run: Path) -> dict[str, _Kept]:
    """See `networks`."""
    if not run.is_dir():
        raise UserError(f"{run} is not a directory; expected a run's work directory, such as runs/black_cat.")
    plan = workdir.read_plan(run)
    results: dict[str, dict[str, Any]] = {}
    for stage in finished_stages(run):
        try:
            results[stage] = read_result(run / workdir.CHECKPOINTS / stage)
        except UserError as error:
            logging.warning("%s", error)
    of_zoos = {zoo[place][0] for zoo in plan["zoos"] for place in ("checkpoint", "half_width")}
    rows: dict[str, Params] = {}
    for stage, tree in results.items():
        if stage not in of_zoos:
            rows |= _rows(stage, tree, plan["pairs"])
    rows |= _measured(run, plan["pairs"])
    found = {}
    for name, zoo in zip(_zoo_names(plan["zoos"], rows), plan["zoos"], strict=True):
        for place, ending in (("checkpoint", ""), ("half_width", _HALF)):
            stage, key = zoo[place]
            if key in results.get(stage, {}):
                made = results[stage][key]
                found[name + ending] = _Kept(made["params"], zoo, made.get("history", {}))
    return found | {name: _Kept(params) for name, params in rows.items()}


def _measured(run: Path, pairs: Sequence[Mapping[str, Any]]) -> dict[str, Params]:
    """Merges and nulls, kept as they were measured, by name."""
    found: dict[str, Params] = {}
    for pair, prefix in zip(pairs, _prefixes(pairs), strict=True):
        folder = run / workdir.EVALUATION / f"{pair['attribute']}_{pair['object']}"
        for file in sorted(folder.glob("*.safetensors")):
            try:
                found[prefix + file.stem] = interop.load_zoo(file).params
            except UserError as error:
                logging.warning("%s", error)
    return found


def _prefixes(pairs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What names of a pair's networks begin with."""
    return [f"{pair['attribute']}_{pair['object']}/" if len(pairs) > 1 else "" for pair in pairs]


def _rows(stage: str, tree: dict[str, Any], pairs: Sequence[Mapping[str, Any]]) -> dict[str, Params]:
    """By name, what a stage made that is no zoo: kept by the pair's number, or stacked ``(P, ...)``."""
    kind, _, name = stage.rpartition("/")
    own = {"generate": [], "fit": [f"fit_{name}"]}.get(kind, [name])  # what is generated has its row's name
    tree = {key: inner for key, inner in tree.items() if key != "history"}
    prefixes = _prefixes(pairs)
    if all(key.isdecimal() for key in tree):
        if len(tree) < len(pairs):  # references, counted over the pairs that have them
            prefixes = [prefix for prefix, pair in zip(prefixes, pairs, strict=True) if pair["has_reference"]]
        shares = [(prefixes[int(key)], share) for key, share in tree.items()]
    elif {np.shape(leaf)[:1] for leaf in jax.tree.leaves(tree)} == {(len(pairs),)}:
        shares = [
            (prefix, jax.tree.map(lambda leaf, n=n: leaf[n], tree)) for n, prefix in enumerate(prefixes)
        ]
    else:
        shares = [("", tree)]
    return {
        prefix + "_".join([*own, *keys]): params for prefix, share in shares for keys, params in _parts(share)
    }


def _parts(tree: Mapping[str, Any], keys: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Params]]:
    """Layers, and other groups of arrays, in a generator's state, with the keys that lead to them."""
    if interop.is_layered(tree):
        yield keys, dict(tree)
        return
    tree = {key: inner for key, inner in tree.items() if key not in _NOT_LISTED}
    arrays = {key: leaf for key, leaf in tree.items() if not isinstance(leaf, Mapping)}
    if arrays:
        yield keys, arrays
    for key, inner in tree.items():
        if key not in arrays:
            yield from _parts(inner, keys if key in _NAMELESS else (*keys, key))


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
    found = _read(run)
    if network not in found:
        raise _unknown(run, network, list(found))
    params, zoo, history = found[network]
    layered = interop.is_layered(params)
    arrays = interop.to_torch(params) if layered else params
    count = interop.count_of(params) if layered and interop.is_stacked(params) else None
    if member is not None and (count is None or not 0 <= member < count):
        expected = "no number, for it is not a zoo" if count is None else f"a number from 0 to {count - 1}"
        raise UserError(f"--member={member} is not in {network!r}; expected {expected}.")
    stem, size = network.replace("/", "_"), sum(np.size(leaf) for leaf in arrays.values()) // (count or 1)
    said = release.card(run, network, zoo)
    if released:
        if count is None or member is not None or not to_directory:
            raise UserError(
                f"--release of {network!r} to {out}; expected a zoo or a row of networks, no --member, and a "
                "new or empty directory as --out."
            )
        release.write(out, arrays, said, history or release.merits(run, network, count))
    elif to_directory and count is not None:
        width = max(4, len(str(count - 1)))
        for number in range(count) if member is None else [member]:
            weights.write_arrays(out / f"{stem}_{number:0{width}d}.safetensors", _one(arrays, number), said)
    else:
        file = out / f"{stem}.safetensors" if to_directory else out
        weights.write_arrays(file, arrays if member is None else _one(arrays, member), said)
        if not to_directory:
            write_atomically(out.with_suffix(".card.md"), release.markdown(said).encode())
    written = count if member is None else 1
    what = "1 generator" if written is None else f"{written} network{'s' if written > 1 else ''}"
    return f"{out}: {network} of {run}, {what} of {size:,} parameters in {len(arrays)} arrays"


def _unknown(run: Path, network: str, known: Sequence[str]) -> UserError:
    given = f"{run} has no {network!r}; it has" if network else f"--network is not given; {run} has"
    return UserError(
        f"{given} {weights.some(known) or 'nothing yet'}.{nearest(network, known, 0.3)} Name one of those "
        f"that python -m kernelgan.export {run} lists, or continue the run (python launch.py --config=... "
        f"--workdir={run})."
    )


def _one(arrays: Mapping[str, Array], member: int) -> dict[str, Array]:
    return {name: array[member] for name, array in arrays.items()}


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
