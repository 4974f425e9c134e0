"""Networks out of a run's checkpoints, as files that PyTorch users can load.

``python -m kernelgan.export RUN --network=black --out=black.safetensors``
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import jax

from kernelgan import assemble, interop, workdir
from kernelgan.checkpoint import has_result, read_result
from kernelgan.types import Params, UserError

_Place = tuple[str | int, ...]
"""Where networks lie: the checkpoint's name, then keys of its tree, a number for one of several stacked."""

_HALF = "_half_width"
"""What the name of a zoo at half width has after that of the zoo whose images it learnt from."""


def _places(plan: Mapping[str, Any]) -> dict[str, _Place]:
    """Each name that networks of a run go by, and where they lie, as `pipeline.py` keeps them."""
    found: dict[str, _Place] = {}
    ceilings = 0
    for number, pair in enumerate(plan["pairs"]):
        prefix = f"{pair['attribute']}_{pair['object']}/" if len(plan["pairs"]) > 1 else ""
        for way in ("a2b", "b2a"):
            found[f"{prefix}cyclegan_{way}"] = ("generate", str(number), way)
        found[f"{prefix}distilled"] = ("distilled", f"{number:04d}", "params")
        if pair["has_ceiling"]:
            name = "trained_on_conjunction"
            found[f"{prefix}{name}"] = (name, f"{ceilings:04d}", "params")
            ceilings += 1
        for layer in plan["layers"]:
            for way in ("a2b", "b2a"):
                found[f"{prefix}generator_{layer}_{way}"] = ("cyclegan", "generators", layer, way, number)
    zoos: dict[str, _Place] = {}
    for name, zoo in zip(_zoo_names(plan["zoos"], found), plan["zoos"], strict=True):
        stage, key = zoo["checkpoint"]
        zoos[name] = (stage, key, "params")
        zoos[f"{name}{_HALF}"] = (stage.replace("zoo", "half_width", 1), key, "params")
    return zoos | found


def _zoo_names(zoos: Sequence[Mapping[str, Any]], taken: Mapping[str, _Place]) -> list[str]:
    """The concept; where zoos share it, what they exclude too; where that is not enough, their kind too."""
    plain = [zoo["concept"] for zoo in zoos]
    without = [f"{zoo['concept']}_without_{'_'.join(zoo['excluded'])}" for zoo in zoos]
    full = [f"{zoo['kind']}_{name}" for zoo, name in zip(zoos, without, strict=True)]
    for names in (plain, without):
        every = [*names, *(f"{name}{_HALF}" for name in names), *taken]
        if len(set(every)) == len(every):
            return names
    return full


def networks(run: Path) -> list[str]:
    """Names of what can be taken out of a run as it is now; it may be unfinished, or at work.

    Raises:
      UserError: it is not a run, or has not come to train anything.
    """
    return [name for name, (checkpoint, _) in _planned(run).items() if has_result(checkpoint)]


def _planned(run: Path) -> dict[str, tuple[Path, _Place]]:
    """For each name that the run will have, the checkpoint and the place in its tree."""
    if not run.is_dir():
        raise UserError(f"{run} is not a directory; expected a run's work directory, such as runs/black_cat.")
    places = _places(workdir.read_plan(run))
    return {
        name: (run / workdir.CHECKPOINTS / str(stage), tuple(keys)) for name, (stage, *keys) in places.items()
    }


def _take(run: Path, name: str) -> Params:
    """The networks of this name, stacked, or the generator."""
    planned = _planned(run)
    again = f"give the run's command again (python launch.py --config=... --workdir={run})"
    if name not in planned:
        raise UserError(f"{run} has no {name!r}; it has {_list(run)}. Name one of these.")
    if not has_result(planned[name][0]):
        raise UserError(
            f"{run} has not come to {name!r}; it has {_list(run)}. Name one of these, or {again}."
        )
    checkpoint, keys = planned[name]
    tree = read_result(checkpoint)
    for key in keys:
        tree = tree[key] if isinstance(key, str) else assemble.take_members(tree, key)
    return tree


def _list(run: Path) -> str:
    return ", ".join(networks(run)) or "none yet"


def export(run: Path, out: Path, *, network: str, member: int | None = None) -> str:
    """Takes networks out of a run's checkpoints, in PyTorch's names and layout.

    Args:
      run: its work directory; the run may be unfinished, or at work.
      out: a file (see `write_arrays`), which has all networks stacked, or the one that ``member`` says; or a
        new or empty directory, which gets one ``.safetensors`` for each.
      network: which: a zoo's concept, ``black_half_width``, ``cyclegan_a2b``, ``distilled``,
        ``generator_conv1_a2b`` and so on; of a run of several pairs ``black_cat/distilled``.
      member: the number of one network.

    Returns:
      What was written, in one line.

    Raises:
      UserError: no such run, network or member (those that there are, are listed), or it cannot be written.
    """
    directory = out.is_dir() or not out.suffix
    if not directory:
        interop.check_suffix(out)
    elif out.is_dir() and any(out.iterdir()):
        raise UserError(f"--out={out} is not empty; expected a new or empty directory, or a file's name.")
    params = _take(run, network)
    count = interop.count_of(params) if interop.is_stacked(params) else None
    if member is not None and (count is None or not 0 <= member < count):
        expected = (
            "no number, for it is one generator" if count is None else f"a number from 0 to {count - 1}"
        )
        raise UserError(f"--member={member} is not one of {network!r}; expected {expected}.")
    arrays = interop.to_torch(params)
    stem = network.replace("/", "_")
    chosen = range(count or 0) if member is None else [member]
    if directory and count is not None:
        width = max(4, len(str(count - 1)))
        for number in chosen:
            one = {name: array[number] for name, array in arrays.items()}
            interop.write_arrays(out / f"{stem}_{number:0{width}d}.safetensors", one)
    else:
        if member is not None:
            arrays = {name: array[member] for name, array in arrays.items()}
        interop.write_arrays(out / f"{stem}.safetensors" if directory else out, arrays)
    each = sum(leaf.size for leaf in jax.tree.leaves(params)) // (count or 1)
    what = "1 generator" if count is None else f"{len(chosen)} network{'s' if len(chosen) > 1 else ''}"
    return f"{out}: {network} of {run}, {what} of {each:,} parameters in {len(arrays)} arrays"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Told in one line, as every other error."""
        raise UserError(message)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; gives its exit status."""
    parser = _Parser(prog="python -m kernelgan.export", description="Takes networks out of a run.")
    parser.add_argument("run", type=Path, metavar="RUN", help="a work directory, such as runs/black_cat")
    parser.add_argument(
        "--out",
        type=Path,
        help="a .safetensors, .npz or .pth for all networks; or a directory for one .safetensors each",
    )
    parser.add_argument("--network", metavar="NAME", help="which; without it they are listed")
    parser.add_argument("--member", type=int, metavar="I", help="only network number I, counted from 0")
    try:
        given = parser.parse_args(argv)
        if given.network is None and given.out is None:
            print("\n".join(networks(given.run)))
            return 0
        if given.network is None:
            raise UserError(f"--network is not given; {given.run} has {_list(given.run)}. Name one of these.")
        if given.out is None:
            raise UserError("--out is not given; expected a file or a directory to write.")
        print(export(given.run, given.out, network=given.network, member=given.member))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")  # nothing is computed: leave an accelerator to others
    sys.exit(main())
