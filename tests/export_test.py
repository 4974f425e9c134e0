"""Tests for kernelgan.export: what a run has, what is written of it, and what is refused."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import tiny
from kernelgan import export, interop, models, pipeline, workdir
from kernelgan.checkpoint import Stage
from kernelgan.keys import StageKey
from kernelgan.types import UserError

ROOT = Path(__file__).parents[1]
SIZE = 16
CHANNELS, HIDDEN = 3, 4


@pytest.fixture(params=("safetensors", "npz", "pth"))
def suffix(request):
    """Each format in turn."""
    if request.param == "pth":
        reason = "PyTorch 2.10 or newer is not installed (pip install torch)"
        pytest.importorskip("torch", minversion="2.10", reason=reason)
    return request.param


@pytest.fixture(scope="module")
def generator():
    """Parameters of a small kernel generator."""
    module = models.KernelGenerator(HIDDEN)
    return jax.device_get(module.init(jax.random.key(1), jnp.zeros((1, 2, 3, 3, CHANNELS)))["params"])


def _one(stacked, number=0):
    return jax.tree.map(lambda leaf: leaf[number], stacked)


def _refused(message, call, *args, **kwargs):
    with pytest.raises(UserError, match=message) as error:
        call(*args, **kwargs)
    assert "\n" not in str(error.value)


def _finish(run, stage, tree):
    checkpoint = Stage(run / workdir.CHECKPOINTS / stage, StageKey({}), seconds=0.0)
    checkpoint.finish(tree)
    checkpoint.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory, make_parents, generator):
    """A run of one pair that has not come to the opponents, with unlike networks everywhere."""
    run = tmp_path_factory.mktemp("runs") / "black_cat"
    run.mkdir()
    zoo = {"excluded": [], "checkpoint": ["zoo", "0000"]}
    plan = {
        "layers": ["conv1", "conv2"],
        "zoos": [
            zoo | {"kind": "attribute", "concept": "black"},
            zoo | {"kind": "object", "concept": "cat", "checkpoint": ["zoo", "0001"]},
        ],
        "pairs": [{"attribute": "black", "object": "cat", "has_ceiling": True}],
    }
    workdir.write_plan(run, plan)
    history = {"loss": np.zeros((4, 2))}
    zoos = {f"{n:04d}": {"params": make_parents(4, seed=n), "history": history} for n in range(2)}
    _finish(run, "zoo", zoos)
    ways = {"a2b": jax.tree.map(lambda leaf: leaf[None], generator)}
    ways["b2a"] = jax.tree.map(lambda leaf: 2 * leaf, ways["a2b"])
    _finish(run, "cyclegan", {"generators": {"conv1": ways, "conv2": ways}, "history": history})
    return run


def test_what_a_run_has_is_listed(run, capsys):
    expected = ["black", "cat"] + [f"generator_conv{n}_{way}" for n in (1, 2) for way in ("a2b", "b2a")]
    assert export.networks(run) == expected
    assert export.main([str(run)]) == 0
    assert capsys.readouterr().out.split() == expected


def test_a_whole_zoo_is_exported_stacked(
    run, suffix, make_parents, network, tmp_path, capsys, assert_trees_equal
):
    out = tmp_path / f"cats.{suffix}"
    assert export.main([str(run), "--network=cat", f"--out={out}"]) == 0
    assert capsys.readouterr().out == f"{out}: cat of {run}, 4 networks of 139 parameters in 6 arrays\n"
    found = interop.load_convnets(out, network, image_size=SIZE)
    assert_trees_equal(found, make_parents(4, seed=1))


def test_one_network_is_exported(run, make_parents, tmp_path, capsys):
    out = tmp_path / "one.npz"
    assert export.main([str(run), "--network=black", "--member=2", f"--out={out}"]) == 0
    assert "1 network of 139 parameters in 6 arrays" in capsys.readouterr().out
    expected = interop.convnet_to_torch(_one(make_parents(4, seed=0), 2))
    found = interop.read_arrays(out)
    assert list(found) == list(expected)
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])


def test_a_directory_has_a_file_for_each_network(run, make_parents, network, tmp_path, assert_trees_equal):
    export.export(run, tmp_path / "blacks", network="black")
    assert sorted(path.name for path in (tmp_path / "blacks").iterdir()) == [
        f"black_000{number}.safetensors" for number in range(4)
    ]
    found = interop.load_convnets(tmp_path / "blacks", network, image_size=SIZE)
    assert_trees_equal(found, make_parents(4, seed=0))
    export.export(run, tmp_path / "one", network="black", member=3)
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["black_0003.safetensors"]


def test_a_generator_is_exported(run, generator, tmp_path, assert_trees_equal):
    said = export.export(run, tmp_path / "g.npz", network="generator_conv2_b2a")
    assert said.endswith("1 generator of 655 parameters in 4 arrays")
    found = interop.load_generator(tmp_path / "g.npz", channels=CHANNELS, hidden=HIDDEN)
    assert_trees_equal(found, jax.tree.map(lambda leaf: 2 * leaf, generator))


def test_a_zoo_at_half_width_is_exported_and_fits_a_module_of_half_the_filters(
    run, network, tmp_path, monkeypatch, assert_trees_equal
):
    half = network.clone(filters=(1, 1))
    key = jax.random.key(5)
    zoo = jax.device_get(
        jax.vmap(lambda k: models.initialise_convnet(half, SIZE, k))(jax.random.split(key, 3))
    )
    shutil.copytree(run, tmp_path / "run")
    _finish(tmp_path / "run", "half_width", {f"{n:04d}": {"params": zoo} for n in range(2)})
    assert export.networks(tmp_path / "run")[:4] == ["black", "black_half_width", "cat", "cat_half_width"]
    out = tmp_path / "half.npz"
    export.export(tmp_path / "run", out, network="cat_half_width")
    assert_trees_equal(interop.load_convnets(out, half, image_size=SIZE), zoo)
    _refused(r"half\.npz does not fit", interop.load_convnets, out, network, image_size=SIZE)


def test_an_export_leaves_the_run_as_it_is(run, tmp_path):
    def content():
        return {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}

    before = content()
    export.export(run, tmp_path / "black.npz", network="black")
    assert content() == before


def test_a_stage_that_is_being_written_is_not_touched(run, tmp_path):
    result = run / workdir.CHECKPOINTS / "distilled/0123456789ab/result"
    (result / "0.orbax-checkpoint-tmp").mkdir(parents=True)
    with pytest.raises(UserError, match="has not come to 'distilled'"):
        export.export(run, tmp_path / "d.npz", network="distilled")
    assert (result / "0.orbax-checkpoint-tmp").is_dir()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], r"the following arguments are required: RUN"),
        (["{run}", "--out={tmp}/x.npz"], r"--network is not given; \S+ has black, cat, generator_conv1_a2b"),
        (["{run}", "--network=black"], r"--out is not given"),
        (["{run}", "--network=grey", "--out={tmp}/x.npz"], r"has no 'grey'; it has black, cat, .*Name one"),
        (
            ["{run}", "--network=cyclegan_a2b", "--out={tmp}/x.npz"],
            r"has not come to 'cyclegan_a2b'; it has black, .* or give the run's command again",
        ),
        (["{run}", "--network=black", "--out={tmp}/x.h5"], r"x\.h5 ends in \.h5; expected one of"),
        (["{run}", "--network=black", "--out={tmp}"], r"--out=\S+ is not empty; expected a new or empty"),
        (
            ["{run}", "--network=black", "--member=4", "--out={tmp}/x.npz"],
            r"--member=4 is not one of 'black'; expected a number from 0 to 3",
        ),
        (["{run}", "--network=black", "--member=-1", "--out={tmp}/x.npz"], r"--member=-1 is not one of"),
        (
            ["{run}", "--network=generator_conv1_a2b", "--member=0", "--out={tmp}/x.npz"],
            r"expected no number, for it is one generator",
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


def test_damaged_networks_are_named(make_parents, tmp_path):
    plan = {"layers": [], "pairs": []}
    zoo = {"kind": "object", "concept": "cat", "excluded": [], "checkpoint": ["zoo", "0000"]}
    workdir.write_plan(tmp_path, plan | {"zoos": [zoo]})
    _finish(tmp_path, "zoo", {"0000": {"params": make_parents(2)}})
    files = (tmp_path / "checkpoints/zoo").glob("*/result/0/**/*")
    max((path for path in files if path.is_file()), key=lambda path: path.stat().st_size).write_bytes(b"?")
    _refused(
        r"checkpoints/zoo/\w+ is damaged .* Give the run",
        export.export,
        tmp_path,
        tmp_path / "x.npz",
        network="cat",
    )


def test_zoos_are_named_apart():
    def names(*zoos):
        keys = ("kind", "concept", "excluded")
        return export._zoo_names([dict(zip(keys, zoo, strict=True)) for zoo in zoos], {"distilled": ()})

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


MATRIX = {
    "pairs.attributes": ("black", "red"),
    "pairs.objects": ("cat", "car"),
    "data.image_size": SIZE,
    "data.rendered.train": 480,
    "data.rendered.test": 160,
    "data.minimum_train": 2,
    "data.minimum_test": 1,
}


@pytest.mark.parametrize(("exclude", "parts"), [("all", 1), ("all", 2), ("own", 2)])
def test_every_name_leads_to_what_the_pipeline_keeps_there(exclude, parts, tmp_path, monkeypatch):
    """The pipeline's own stages, with numbers in place of what they train."""
    config = tiny.get_config()
    config.update_from_flattened_dict(MATRIX | {"pairs.exclude": exclude})
    if parts == 2:
        config.zoo.object_images_per_epoch = 32
    numbers = iter(range(1000))

    def network(count=2):
        """Networks that are told apart by one number."""
        leaf = np.full((count, 1, 1), next(numbers), np.float32)
        return {"conv1": {"kernel": leaf, "bias": leaf[:, 0]}}

    def once(self, name, work, key, *, stage=""):
        if stage == "zoo" or name.startswith("half_width"):
            tasks = work.args[1]
            made = {f"{n:04d}": {"params": network(), "history": {}} for n in range(len(tasks))}
            shown.update({(stage, task.name): made[f"{n:04d}"]["params"] for n, task in enumerate(tasks)})
        elif name == "cyclegan":
            directions = {layer: {way: network(4) for way in ("a2b", "b2a")} for layer in ("conv1", "conv2")}
            made = {"generators": directions, "history": {}}
        elif name == "generate":
            made = {str(n): {way: network() for way in ("a2b", "b2a")} for n in range(4)}
        else:
            made = {f"{n:04d}": {"params": network(), "history": {}} for n in range(4)}
        _finish(self.workdir, name, made)
        return made

    shown = {}
    monkeypatch.setattr(pipeline._Run, "_once", once)
    monkeypatch.setattr(pipeline._Run, "_normalisers", lambda *args: None)
    run = pipeline._Run(config, tmp_path, "")
    plan = run.plan()
    zoos = run.zoos(plan)
    translators, trained = run.translators(plan, zoos), run.opponents(plan, zoos)
    halves = run.half_width(plan)
    generated = run.generated(plan, zoos, translators)

    expected = {}
    for pair in plan.pairs:
        prefix = f"{pair.split.attribute}_{pair.split.object_name}/"
        expected |= {prefix + f"cyclegan_{way}": found for way, found in generated[str(pair.number)].items()}
        expected |= {prefix + name: found for name, found in trained[str(pair.number)].items()}
        expected |= {
            prefix + f"generator_{layer}_{way}": _one(found, pair.number)
            for layer, ways in translators["generators"].items()
            for way, found in ways.items()
        }
    for number, task in enumerate(plan.zoos):
        short = exclude == "all"
        name = task.concept if short else f"{task.concept}_without_{task.excluded[0]}"
        expected |= {name: zoos[number]["params"], f"{name}_half_width": halves[number]["params"]}
        assert zoos[number]["params"] is shown["zoo", task.name]
        assert halves[number]["params"] is shown["opponents", task.name]
    assert len(plan.zoos) == (4 if exclude == "all" else 8)
    assert sorted(export.networks(tmp_path)) == sorted(expected)
    for name, params in expected.items():
        found = export._take(tmp_path, name)
        np.testing.assert_array_equal(found["conv1"]["kernel"], params["conv1"]["kernel"])


def test_the_command_runs_and_ends_without_a_traceback(run, tmp_path):
    def call(*arguments):
        command = [sys.executable, "-m", "kernelgan.export", str(run), *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)

    out = tmp_path / "black.safetensors"
    done = call("--network=black", f"--out={out}")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    assert len(interop.read_arrays(out)["conv1.bias"]) == 4
    refused = call("--network=grey", f"--out={out}")
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert re.fullmatch(r"error: .* has no 'grey'; it has black, .*\n", refused.stderr)
