"""Tests for kernelgan.export: what a run has, what is written of it, and what is refused."""

import csv
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors
from flax import serialization

from kernelgan import export, interop, models, release, results, weights, workdir
from kernelgan.checkpoint import Stage
from kernelgan.keys import StageKey
from kernelgan.types import UserError

ROOT = Path(__file__).parents[1]
SIZE = 16
CHANNELS, HIDDEN = 3, 4


@pytest.fixture(scope="module")
def generator():
    """Parameters of a small kernel generator."""
    module = models.KernelGenerator(HIDDEN)
    init = jax.jit(module.init)
    return jax.device_get(init(jax.random.key(1), jnp.zeros((1, 2, 3, 3, CHANNELS)))["params"])


def _one(stacked, number=0):
    return jax.tree.map(lambda leaf: leaf[number], stacked)


def _refused(message, call, *args, **kwargs):
    with pytest.raises(UserError, match=message) as error:
        call(*args, **kwargs)
    assert "\n" not in str(error.value)


def _finish(run, stage, tree):
    checkpoint = Stage(run / workdir.CHECKPOINTS / stage, StageKey({}), seconds=0.0)
    checkpoint.finish(tree)


@pytest.fixture(scope="module")
def run(tmp_path_factory, make_parents, generator):
    """A run of one pair that has not come to the opponents, with unlike networks everywhere."""
    run = tmp_path_factory.mktemp("runs") / "black_cat"
    run.mkdir()
    zoo = {"excluded": [], "checkpoint": ["zoo", "0000"], "half_width": ["half_width", "0000"]}
    plan = {
        "layers": ["conv1", "conv2"],
        "zoos": [
            zoo | {"kind": "attribute", "concept": "black"},
            zoo
            | {
                "kind": "object",
                "concept": "cat",
                "checkpoint": ["zoo", "0001"],
                "half_width": ["half_width", "0001"],
            },
        ],
        "pairs": [{"attribute": "black", "object": "cat", "has_reference": True}],
    }
    workdir.write_plan(run, plan)
    history = {"loss": np.zeros((4, 2))}
    zoos = {f"{n:04d}": {"params": make_parents(4, seed=n), "history": history} for n in range(2)}
    _finish(run, "zoo", zoos)
    ways = {"a2b": jax.tree.map(lambda leaf: leaf[None], generator)}
    ways["b2a"] = jax.tree.map(lambda leaf: 2 * leaf, ways["a2b"])
    _finish(run, "fit/cyclegan", {"state": {"conv1": ways, "conv2": ways}, "history": history})
    return run


def test_what_a_run_has_is_listed(run, capsys):
    expected = ["black", "cat"] + [f"fit_cyclegan_conv{n}_{way}" for n in (1, 2) for way in ("a2b", "b2a")]
    assert list(export.networks(run)) == expected
    assert export.main([str(run)]) == 0
    assert capsys.readouterr().out.split() == expected


def test_curves_and_what_an_optimizer_keeps_are_not_listed(run, make_parents, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    trained = {"params": make_parents(2, seed=3), "history": {"loss": np.zeros((2, 5))}}
    _finish(tmp_path / "run", "distilled", {"0000": trained})
    own = make_parents(1, seed=4)
    state = serialization.to_state_dict((own, jax.vmap(optax.adam(0.1).init)(own)))
    _finish(tmp_path / "run", "fit/mine", {"state": jax.device_get(state), "history": {"loss": np.zeros(1)}})
    assert set(export.networks(tmp_path / "run")) - set(export.networks(run)) == {"distilled", "fit_mine_0"}


def test_a_whole_zoo_is_exported_stacked(
    run, suffix, make_parents, network, tmp_path, capsys, assert_trees_equal
):
    out = tmp_path / f"cats.{suffix}"
    assert export.main([str(run), "--network=cat", f"--out={out}"]) == 0
    assert capsys.readouterr().out == f"{out}: cat of {run}, 4 networks of 139 parameters in 6 arrays\n"
    found = interop.load_zoo(out).params
    assert_trees_equal(found, make_parents(4, seed=1))


def test_a_zoo_is_released_with_splits_metrics_and_a_card_and_read_again(
    run, make_parents, tmp_path, assert_trees_equal
):
    export.export(run, tmp_path / "cats", network="cat", released=True)
    names = {path.name for path in (tmp_path / "cats").iterdir()}
    assert names == {"networks.safetensors", "index.csv", "metrics.csv", "README.md"}
    assert_trees_equal(interop.load_zoo(tmp_path / "cats").params, make_parents(4, seed=1))
    index = list(csv.DictReader((tmp_path / "cats/index.csv").open()))
    assert [row["network"] for row in index] == list("0123")
    assert {row["split"] for row in index} <= {"train", "validation", "test"}
    assert len(list(csv.DictReader((tmp_path / "cats/metrics.csv").open()))) == 4 * 2  # epochs
    assert "on test images" in release.markdown({"name": "cat", "AUROC": "0.6"})
    assert "on validation images" in release.markdown({"name": "cat", "AUROC, validation": "0.6"})
    assert "| networks trained on cat |" in (tmp_path / "cats/README.md").read_text().replace(
        "what it is ", ""
    )
    with pytest.raises(UserError, match="--member"):
        export.export(run, tmp_path / "one", network="cat", member=0, released=True)


@pytest.mark.parametrize("count", [1, 7, 20, 100])
def test_splits_are_disjoint_and_of_the_stated_shares(count):
    splits = release.split(count)
    assert len(splits) == count
    assert abs(splits.count("train") - 0.7 * count) <= 1
    assert abs(splits.count("test") - 0.15 * count) <= 1


def test_a_merge_that_was_measured_is_exported_with_its_card(run, make_parents, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    file = tmp_path / "run/evaluation/black_cat/average.safetensors"
    weights.write_arrays(file, interop.to_torch(make_parents(2, seed=7)))
    row = {"kind": "merge", "label": "the mean", "tier": "W", "auroc": {"worst": {"mean": 0.61}}}
    pair = {"pair": {"attribute": "black", "object": "cat"}, "methods": {"average": row}}
    kept = "zoo: made by other code than this"
    document = {"pairs": [pair], "commit": "abc", "command": "kernelgan", "data": {"notes": [kept]}}
    results.write_results(tmp_path / "run", results.from_document(document))
    assert "average" in export.networks(tmp_path / "run")
    export.export(tmp_path / "run", tmp_path / "average.safetensors", network="average")
    with safetensors.safe_open(tmp_path / "average.safetensors", "numpy") as opened:
        said = opened.metadata()
    for name, text in {
        "worst-quadrant AUROC": "0.610",
        "commit": "abc",
        "reads": "tier W",
        "notes": kept,
    }.items():
        assert text in said[name]
        assert text in (tmp_path / "average.card.md").read_text()


def test_one_network_is_exported(run, make_parents, tmp_path, capsys):
    out = tmp_path / "one.npz"
    assert export.main([str(run), "--network=black", "--member=2", f"--out={out}"]) == 0
    assert "1 network of 139 parameters in 6 arrays" in capsys.readouterr().out
    expected = interop.to_torch(_one(make_parents(4, seed=0), 2))
    found = weights.read_arrays(out)
    assert list(found) == list(expected)
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])


def test_a_directory_has_a_file_for_each_network(run, make_parents, network, tmp_path, assert_trees_equal):
    export.export(run, tmp_path / "blacks", network="black")
    assert sorted(path.name for path in (tmp_path / "blacks").iterdir()) == [
        f"black_000{number}.safetensors" for number in range(4)
    ]
    found = interop.load_zoo(tmp_path / "blacks").params
    assert_trees_equal(found, make_parents(4, seed=0))
    export.export(run, tmp_path / "one", network="black", member=3)
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["black_0003.safetensors"]


def test_a_generator_is_exported(run, generator, tmp_path, assert_trees_equal):
    said = export.export(run, tmp_path / "g.npz", network="fit_cyclegan_conv2_b2a")
    assert said.endswith("1 generator of 655 parameters in 4 arrays")
    expected = interop.to_torch(jax.tree.map(lambda leaf: 2 * leaf, generator))
    assert_trees_equal(weights.read_arrays(tmp_path / "g.npz"), expected)


def test_a_zoo_at_half_width_is_exported(run, network, tmp_path, assert_trees_equal):
    half = network.clone(filters=(1, 1))
    keys = jax.random.split(jax.random.key(5), 3)
    zoo = jax.device_get(jax.jit(jax.vmap(lambda key: models.initialise_convnet(half, SIZE, key)))(keys))
    shutil.copytree(run, tmp_path / "run")
    _finish(tmp_path / "run", "half_width", {f"{n:04d}": {"params": zoo} for n in range(2)})
    names = list(export.networks(tmp_path / "run"))
    assert names[:4] == ["black", "black_half_width", "cat", "cat_half_width"]
    export.export(tmp_path / "run", tmp_path / "half.npz", network="cat_half_width")
    loaded = interop.load_zoo(tmp_path / "half.npz")
    assert loaded.network == half
    assert_trees_equal(loaded.params, zoo)


def test_a_stage_that_is_being_written_is_not_touched(run, tmp_path):
    result = run / workdir.CHECKPOINTS / "distilled/0123456789ab/result"
    (result / "0.orbax-checkpoint-tmp").mkdir(parents=True)
    with pytest.raises(UserError, match="has no 'distilled'"):
        export.export(run, tmp_path / "d.npz", network="distilled")
    assert (result / "0.orbax-checkpoint-tmp").is_dir()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], r"the following arguments are required: RUN"),
        (
            ["{run}", "--out={tmp}/x.npz"],
            r"--network is not given; \S+ has black, cat, fit_cyclegan_conv1",
        ),
        (["{run}", "--network=black"], r"--out is not given"),
        (["{run}", "--network=grey", "--out={tmp}/x.npz"], r"has no 'grey'; it has black, cat, .*Name one"),
        (
            ["{run}", "--network=cyclegan_a2b", "--out={tmp}/x.npz"],
            r"has no 'cyclegan_a2b'; it has black, .* or continue the run",
        ),
        (
            ["{run}", "--network=conv2_b2", "--out={tmp}/x.npz"],
            r"nearest to conv2_b2 is fit_cyclegan_conv2_b2a\.",
        ),
        (["{run}", "--network=black", "--out={tmp}/x.h5"], r"x\.h5 ends in \.h5; expected one of"),
        (["{run}", "--network=black", "--out={tmp}"], r"--out=\S+ is not empty; expected a new or empty"),
        (
            ["{run}", "--network=black", "--member=4", "--out={tmp}/x.npz"],
            r"--member=4 is not in 'black'; expected a number from 0 to 3",
        ),
        (
            ["{run}", "--network=fit_cyclegan_conv1_a2b", "--member=0", "--out={tmp}/x.npz"],
            r"expected no number, for it is not a zoo",
        ),
        (["{run}", "--member=first"], r"argument --member: invalid int value: 'first'"),
        (["{tmp}/none"], r"none is not a directory; expected a run's work directory"),
        (["{tmp}"], r"has no plan\.json; expected the work directory of a run"),
    ],
)
def test_what_cannot_be_exported_is_told_in_one_line(arguments, message, run, tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("")
    given = [argument.format(run=run, tmp=tmp_path) for argument in arguments]
    assert export.main(given) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert re.fullmatch(rf"error: .*{message}.*\n", said.err), said.err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("content", ["", "[]", '{"zoos": []}', '{"layers": '])
def test_a_damaged_plan_is_named(content, tmp_path):
    (tmp_path / "plan.json").write_text(content)
    _refused(r"plan\.json is damaged; give the run's command again", export.networks, tmp_path)


def test_a_damaged_stage_hides_nothing_else(run, tmp_path, caplog):
    shutil.copytree(run, tmp_path / "run")
    files = (tmp_path / "run/checkpoints/fit/cyclegan").glob("*/result/0/**/*")
    max((path for path in files if path.is_file()), key=lambda path: path.stat().st_size).write_bytes(b"?")
    assert list(export.networks(tmp_path / "run")) == ["black", "cat"]
    assert "checkpoints/fit/cyclegan" in caplog.text


def test_zoos_are_named_apart():
    def names(*zoos):
        keys = ("kind", "concept", "excluded")
        return export._zoo_names([dict(zip(keys, zoo, strict=True)) for zoo in zoos], {"distilled": {}})

    black, cat = ("attribute", "black", ["cat"]), ("object", "cat", ["black"])
    assert names(black, cat) == ["black", "cat"]
    assert names(black, ("attribute", "black", ["car"])) == ["black_without_cat", "black_without_car"]
    assert names(("attribute", "orange", ["x"]), ("object", "orange", ["x"])) == [
        "attribute_orange_without_x",
        "object_orange_without_x",
    ]
    assert names(("object", "distilled", ["black"])) == ["distilled_without_black"]
    two = names(("object", "cat", ["black"]), ("attribute", "cat_half_width", ["car"]))
    assert two == ["cat_without_black", "cat_half_width_without_car"]


def _marked(number, layers=("conv1",), lead=(2,)):
    """Networks that are told apart by one number."""
    leaf = np.full((*lead, 1, 1), number, np.float32)
    return {layer: {"kernel": leaf, "bias": leaf[..., 0]} for layer in layers}


def test_every_pair_family_and_generator_has_its_name(tmp_path):
    pairs = [("black", "cat", True), ("black", "car", False), ("red", "cat", True)]
    keys = ("attribute", "object", "has_reference")
    plan = {"layers": ["conv1"], "pairs": [dict(zip(keys, pair, strict=True)) for pair in pairs]}
    zoo = {"kind": "object", "excluded": ["x"]}
    plan["zoos"] = [
        zoo
        | {
            "concept": name,
            "checkpoint": [f"zoo-{n}", "0000"],
            "half_width": [f"half_width-{n}", "0000"],
        }
        for n, name in enumerate("ab")
    ]
    workdir.write_plan(tmp_path, plan)
    for number, stage in enumerate(("zoo-0", "zoo-1", "half_width-0", "half_width-1")):
        _finish(tmp_path, stage, {"0000": {"params": _marked(number), "history": {"loss": np.zeros(3)}}})
    made = {str(n): {f"reduce_{way}": _marked(10 + n) for way in ("a2b", "b2a")} for n in range(3)}
    _finish(tmp_path, "generate/reduce", made)
    _finish(tmp_path, "generate/mine", {str(n): {"mine": _marked(20 + n)} for n in range(3)})
    _finish(tmp_path, "fit/mixed", {"scale": np.full(1, 70.0), "net": _marked(71, lead=()), "history": {}})
    matrices = {"conv1": {"matrix": np.arange(3.0)[:, None, None]}}
    _finish(tmp_path, "fit/reduce", {"maps": matrices, "history": {"loss": np.zeros((3, 5))}})  # (P, ...)
    _finish(tmp_path, "fit/joint", {"params": _marked(40, lead=())})  # one state for all pairs
    _finish(tmp_path, "fit/each", {str(n): {"a2b": _marked(50 + n, lead=())} for n in range(3)})
    _finish(tmp_path, "trained_on_conjunction", {f"{n:04d}": {"params": _marked(60 + n)} for n in range(2)})

    expected = {
        "a": 0,
        "b": 1,
        "a_half_width": 2,
        "b_half_width": 3,
        "fit_joint": 40,
        "fit_mixed": 70,
        "fit_mixed_net": 71,
    }
    for n, (attribute, thing, _) in enumerate(pairs):
        prefix = f"{attribute}_{thing}/"
        expected |= {f"{prefix}reduce_{way}": 10 + n for way in ("a2b", "b2a")}
        expected |= {f"{prefix}mine": 20 + n, f"{prefix}fit_each_a2b": 50 + n}
        expected |= {f"{prefix}fit_reduce_maps_conv1": n}
    expected |= {f"{name}/trained_on_conjunction": 60 + n for n, name in enumerate(("black_cat", "red_cat"))}
    known = export.networks(tmp_path)
    assert {name: jax.tree.leaves(params)[0].flat[0] for name, params in known.items()} == expected

    said = export.export(tmp_path, tmp_path / "map.npz", network="red_cat/fit_reduce_maps_conv1")
    assert said.endswith("1 generator of 1 parameters in 1 arrays")
    np.testing.assert_array_equal(weights.read_arrays(tmp_path / "map.npz")["matrix"], [[2.0]])


def test_the_command_runs_in_a_process_of_its_own(run, tmp_path):
    out = tmp_path / "black.safetensors"
    command = [sys.executable, "-m", "kernelgan.export", str(run), "--network=black", f"--out={out}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    assert len(weights.read_arrays(out)["conv1.bias"]) == 4
