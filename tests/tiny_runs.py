"""Very small runs: their config, where they keep what, and comparisons of two of them."""

import json

import jax
import numpy as np

from configs import tiny
from kernelgan.checkpoint import read_result

SMALL = {
    "data.image_size": 16,
    "model.filters": (2,),
    "model.kernel_size": 3,
    "generators.cyclegan.epochs": (3,),
    "evaluate.bootstrap": 10,
    "baselines.methods": ("average", "distilled", "trained_on_conjunction"),
}
"""With one layer and few rows; `pipeline_test` has a run with two, and one with all."""

INTERRUPTING = """
import re, runpy, signal, sys
pattern, number, sign, *rest = sys.argv[1:]
left = int(number)
def watch(event, arguments):
    global left
    if event in ("os.rename", "shutil.rmtree"):
        path = str(arguments[1] if event == "os.rename" else arguments[0])
        if re.search(pattern, path):
            left -= 1
            if left == 0:
                signal.raise_signal(int(sign))  # to this thread, at once; a process's may come late
sys.addaudithook(watch)
sys.argv = ["launch.py", *rest]
runpy.run_path("launch.py", run_name="__main__")
"""
"""Gets a signal when the number-th file or directory whose path matches is about to take its place, or to be
removed; the rest of the arguments are those of `launch.py`."""


def small_config(fields=None):
    """The config of `finished`, with other values of these fields."""
    config = tiny.get_config()
    config.update_from_flattened_dict(SMALL | (fields or {}))
    return config


def place(workdir, stage):
    """Where a stage that ran with one key keeps what it has."""
    (key_file,) = (workdir / "checkpoints" / stage).glob("*/key.json")
    return key_file.parent


def result_of(workdir, stage):
    """Of a stage that ran with one key."""
    return read_result(place(workdir, stage))


_OF_A_RUN = ("timings", "command", "commit", "clean", "date")


def document(workdir):
    """`results.json` without what may differ between two equal runs."""
    found = json.loads((workdir / "results.json").read_text())
    return {name: value for name, value in found.items() if name not in _OF_A_RUN}


def assert_same_results(workdir, expected):
    """The same figures, to the bit."""
    assert document(workdir) == document(expected)
    with np.load(workdir / "arrays.npz") as found, np.load(expected / "arrays.npz") as wanted:
        assert found.files == wanted.files
        for name in wanted.files:
            np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)


def assert_same_stage(workdir, expected, stage):
    """The same result of a stage, to the bit."""
    found, wanted = result_of(workdir, stage), result_of(expected, stage)
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


def said_of(text):
    """What a run says of each stage, the first: ``"done before"``, also with more words, ``"is made again:
    WHY"`` or ``"done"``.
    """
    words = {}
    for line in text.splitlines():
        stage, _, rest = line.partition(" ")
        stage = stage.removeprefix("baselines/").removeprefix("generate/" if "placebos" in stage else "")
        for word in ("done before", "is made again", "done "):
            if rest.strip().startswith(word):
                words.setdefault(stage, word.strip() if word == "done " else rest.strip())
    return words


def measured(workdir, pair="black_cat"):
    """When each row's measurements were written."""
    return {path.stem: path.stat().st_mtime_ns for path in (workdir / "evaluation" / pair).glob("*.npz")}
