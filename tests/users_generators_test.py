"""Tests for kernelgan.pipeline with generators of the user's own: measured, resumed, refused, mended."""

import functools
import textwrap

import jax
import numpy as np
import pytest
from tiny_runs import measured, place, said_of, small_config

from kernelgan import export, generation, keys, pipeline, report, results
from kernelgan.checkpoint import Stage, read_result
from kernelgan.data.leakage import LeakageError
from kernelgan.types import UserError

pytestmark = pytest.mark.usefixtures("drawn_once")

SINGLE = {f"{side}_{word}" for side in ("attribute", "object") for word in ("random", "opposite")}
MATRIX_PLACEBOS = {f"{side}_{word}" for side in ("attribute", "object") for word in ("random", "other")}

MEAN = """
    import jax
    from kernelgan.generators import stateless

    def generate(key, parents, probes):
        return jax.tree.map(lambda a, b: (a + b) / 2, *parents)

    def make(network, config):
        return stateless(generate)
"""

TRAINED = """
    import dataclasses
    import jax
    import jax.numpy as jnp
    from kernelgan.generators import Generator

    @dataclasses.dataclass(frozen=True)
    class Config:
        rate: float = 0.5

    def make(network, config):
        def update(key, state, view):
            target = view + 0.01 * jax.random.normal(key, view.shape)
            gap = jnp.abs(target - state["mean"]).mean()
            return {"mean": state["mean"] + config.rate * (target - state["mean"])}, {"gap": gap}

        def generate(key, state, parents, probes):
            kernel = jnp.broadcast_to(state["mean"], parents.attribute["conv1"]["kernel"].shape)
            return {"": {**parents.attribute, "conv1": {**parents.attribute["conv1"], "kernel": kernel}}}

        return Generator(
            view=lambda parents, probes: parents.attribute["conv1"]["kernel"].mean(axis=0),
            init=lambda key, view: {"mean": jnp.zeros(view.shape)},
            update=update,
            generate=generate,
            steps=5,
        )
"""


@pytest.fixture
def write(tmp_path):
    """``write(text, name)``: the path of a file of the user's own."""

    def file(text, name="mine.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return str(path)

    return file


@pytest.fixture
def no_data(monkeypatch):
    """Whoever loads images fails."""

    def fail(*_):
        raise AssertionError("images were loaded")

    monkeypatch.setattr(pipeline, "load_plan", fail)


def test_a_generator_added_to_a_finished_run_alone_is_measured(
    copied, write, flat_figures, capsys, monkeypatch
):
    others = measured(copied)
    mine = write(MEAN)
    path = pipeline.run(small_config(), copied, generators=[mine])  # with its report
    told = capsys.readouterr().err
    said = said_of(told)
    assert told.count("mine has two logits, taken as no and yes to the conjunction") == 1
    assert "cyclegan_a2b has two" not in told
    for stage in ("generate/mine", "placebos/mine", "evaluate", "data", "report"):
        assert said.pop(stage) == "done"
    assert set(said.values()) == {"done before"}
    added = measured(copied)
    assert added == others | {"mine": added["mine"]}

    (pair,) = results.read_results(copied).pairs
    row = pair.methods["mine"]
    assert (row.kind, row.family, row.tier, row.networks) == ("generated", "mine", "W", 4)
    assert set(row.placebos) == SINGLE
    assert row.digest == keys.of_arrays(export.networks(copied)["mine"])
    assert pair.figure("mine").known
    assert row.novelty["distance"].known
    assert {"random", "average", "attribute_only"} <= set(pair.tests["mine"])
    assert "mine" in pair.null_test.by_method
    assert "mine" in path.read_text()
    kept = export.networks(copied)
    mean = jax.tree.map(lambda a, b: (a + b) / 2, kept["black"], kept["cat"])
    jax.tree.map(np.testing.assert_array_equal, kept["mine"], mean)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "load_plan", None)
        write("# a comment\n" + textwrap.dedent(MEAN))
        assert pipeline.run(small_config(), copied, generators=[mine]) == path
    write(MEAN.replace("(a + b) / 2", "(a + 2 * b) / 3"))
    capsys.readouterr()
    pipeline.run(small_config(), copied, generators=[mine], stage="evaluate")
    said = said_of(capsys.readouterr().err)
    assert said.pop("generate/mine") == "is made again: its code changed since"
    both = "is made again: its code and its input generate/mine changed since"
    assert said.pop("placebos/mine") == both
    assert {said[stage] for stage in said if stage not in ("data", "evaluate")} == {"done before"}
    again = measured(copied)
    assert again["mine"] > added["mine"]
    assert {**again, "mine": 0} == {**added, "mine": 0}
    assert not (copied / report.REPORT_FILE).exists()  # it showed the row as it was


def test_a_trained_generator_goes_on_where_it_was_cut_off(copied, write, capsys, monkeypatch):
    mine = write(TRAINED)
    saves = Stage.save

    def save_once(self, tree, step):
        if step > 1:
            raise KeyboardInterrupt
        saves(self, tree, step)

    with monkeypatch.context() as patch:
        patch.setattr(Stage, "save", save_once)
        with pytest.raises(KeyboardInterrupt):
            pipeline.run(small_config(), copied, generators=[mine], stage="fit")
    kept = place(copied, "fit/mine")
    capsys.readouterr()
    pipeline.run(small_config(), copied, generators=[mine], stage="fit")
    assert f"resuming from {kept / 'state/1'}\n" in capsys.readouterr().err
    resumed = read_result(kept)
    assert resumed["history"]["gap"].shape == (1, 5)
    for path in sorted(kept.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    pipeline.run(small_config(), copied, generators=[mine], stage="fit")
    jax.tree.map(np.testing.assert_array_equal, read_result(kept), resumed)


def test_a_broken_generator_is_named_and_once_mended_the_same_command_ends_well(
    copied, write, capsys, monkeypatch
):
    broken = {
        "not finite.*4 of 4": MEAN.replace("/ 2", "* float('nan')"),
        "gap of mine, black cat is nan.*step 1": TRAINED.replace("gap}", "gap * jnp.nan}"),
    }
    before = measured(copied)
    for facts, text in broken.items():
        mine = write(text)
        with pytest.raises(UserError, match=f"(?s){facts}") as error:
            pipeline.run(small_config(), copied, generators=[mine], stage="generate")
        assert "mine" in str(error.value)
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "load_plan", None)
        patch.setattr(pipeline.report, "show", lambda workdir: workdir)
        assert pipeline.run(small_config(), copied) == copied  # as it was
    capsys.readouterr()
    pipeline.run(small_config(), copied, generators=[write(MEAN)], stage="evaluate")
    said = said_of(capsys.readouterr().err)
    assert said["fit/cyclegan"] == said["generate/cyclegan"] == "done before"
    after = measured(copied)
    assert after == before | {"mine": after["mine"]}


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        (
            MEAN.replace("(a + b) / 2, *parents", "parents.object['conv9'], *parents"),
            "generate.*KeyError.*conv9",
        ),
        (MEAN.replace("(a + b)", "(a + b)[..., :1]"), r"dense\.bias \(4, 1\)"),
        (TRAINED.replace("gap}", "gap, 'step': parents}"), "mine fails in update.*NameError"),
    ],
)
def test_a_broken_generator_is_refused_before_anything_trains(text, facts, write, tmp_path):
    assert text not in (MEAN, TRAINED)
    with pytest.raises(UserError, match=f"(?s){facts}"):
        pipeline.run(small_config(), tmp_path / "run", generators=[write(text)])
    assert not (tmp_path / "run/checkpoints/zoo").exists()


GRADIENTS = """
    import jax
    from kernelgan.generators import stateless

    @jax.jit
    def pulled(a, b):
        return a - 0.1 * jax.grad(lambda a: ((a - b) ** 2).sum())(a)

    def make(network, config):
        return stateless(lambda key, parents, probes: jax.tree.map(pulled, *parents))
"""


def test_gradients_of_a_program_that_the_rehearsal_traced_are_known_of_its_networks(write, tmp_path, capsys):
    """JAX does not trace it again, so it is seen at the rehearsal alone."""
    mine = write(GRADIENTS)
    pipeline.run(small_config(), tmp_path / "run", generators=[mine], stage="generate")
    told = capsys.readouterr().err
    assert "mine: tried on untrained networks" in told
    assert told.index("mine has two logits") < told.index("zoo ")  # before anything trains
    assert read_result(place(tmp_path / "run", "generate/mine"))["history"]["gradients"]
    pipeline.run(small_config(), tmp_path / "run", generators=[write(MEAN, "other.py")], stage="data")
    assert "tried" not in capsys.readouterr().err  # what trains first is done


def test_numbers_that_are_not_finite_are_told_at_the_rehearsal(write, tmp_path, capsys):
    """They may be of untrained networks alone."""
    mine = write("""
        import jax, numpy as np
        from kernelgan.generators import stateless

        def make(network, config):
            return stateless(lambda key, parents, probes: jax.tree.map(lambda a: a * np.nan, parents.object))
    """)
    pipeline.run(small_config(), tmp_path / "run", generators=[mine], stage="data")
    assert "mine is not finite" in capsys.readouterr().err


def test_a_generator_left_out_of_the_next_run_is_named(write, tmp_path, capsys):
    run = functools.partial(pipeline.run, small_config(), tmp_path / "run", stage="zoo")
    run(generators=[write(MEAN)])
    assert "so far" not in capsys.readouterr().err
    run()
    assert "mine: in the table so far" in capsys.readouterr().err


# What is refused before images are loaded ----------------------------------------------------------------


CHANGING = """
    import numpy as np
    import jax
    from kernelgan.generators import stateless
    calls = []

    def generate(key, parents, probes):
        calls.append(1)
        return jax.tree.map(lambda a, b: np.float32((a + len(calls) * b) / 2), *parents)

    def make(network, config):
        return stateless(generate)
"""


def test_a_generator_that_gives_other_networks_when_asked_again_is_refused(copied, write):
    with pytest.raises(UserError, match=r"mine.*key"):
        pipeline.run(small_config(), copied, generators=[write(CHANGING)], stage="generate")


REMEMBERS = """
    import jax
    from kernelgan.generators import Generator

    def make(network, config):
        def generate(key, state, parents, probes):
            return {"": jax.tree.map(lambda own, seen: 0 * own + 1 + own - seen, parents.object, state)}

        return Generator(
            view=lambda parents, probes: parents.object,
            init=lambda key, view: view,
            update=lambda key, state, view: (state, {}),
            generate=generate,
            steps=0,
        )
"""


def test_without_steps_placebo_parents_are_viewed_too(copied, write):
    """What it remembers of the true parents would make it fail with others, as if it had composed."""
    pipeline.run(small_config(), copied, generators=[write(REMEMBERS)], stage="generate")
    found = read_result(place(copied, "placebos/mine"))["0"]["mine"]
    assert set(found) == SINGLE
    for params in found.values():
        assert all(np.allclose(leaf, 1) for leaf in jax.tree.leaves(params))


def _refused(config, workdir, facts, files=()):
    with pytest.raises(UserError) as error:
        pipeline.run(config, workdir, generators=files)
    for fact in facts:
        assert fact in str(error.value)
    assert not (workdir / "checkpoints").exists()


def test_an_unknown_family_is_refused(no_data, tmp_path):
    config = small_config()
    config.generators.nosuch = {"steps": 3}
    _refused(config, tmp_path / "run", ["generators.nosuch", "cyclegan"])


def test_a_section_without_a_family_is_refused(no_data, tmp_path):
    config = small_config()
    del config.generators.cyclegan
    _refused(config, tmp_path / "run", ["generators", "cyclegan"])


# Joint generators ---------------------------------------------------------------------------------------

JOINT = """
    import jax.numpy as jnp
    from kernelgan.generators import Generator

    def make(network, config):
        def update(key, state, view):
            target = jnp.tensordot(view.weights / view.weights.sum(), view.views, axes=1)
            mean = state["mean"] + 0.5 * (target - state["mean"])
            return {"mean": mean}, {"gap": jnp.abs(target - mean).max()}

        def generate(key, state, parents, probes):
            kernel = jnp.broadcast_to(state["mean"], parents.attribute["conv1"]["kernel"].shape)
            return {"": {**parents.attribute, "conv1": {**parents.attribute["conv1"], "kernel": kernel}}}

        return Generator(
            view=lambda parents, probes: parents.attribute["conv1"]["kernel"].mean(axis=0),
            init=lambda key, view: {"mean": jnp.zeros(view.views.shape[1:])},
            update=update,
            generate=generate,
            steps=30,
            joint=True,
        )
"""

MATRIX = {
    "trainings": 2,
    "pairs.attributes": ("black", "red"),
    "pairs.objects": ("cat", "car"),
    "pairs.exclude": "all",
    "data.rendered.train": 480,
    "data.rendered.test": 160,
    "data.minimum_train": 4,
    "data.minimum_test": 2,
    "zoo.models": 2,
    "zoo.epochs": 1,
    "baselines.epochs": 1,
    "baselines.models": 1,
    "generators.cyclegan.epochs": (1,),
    "baselines.random_networks": 2,
    "baselines.methods": ("average",),
}


def test_a_matrix_of_pairs_shares_its_zoos_and_a_joint_generator_learns_from_other_pairs(
    write, flat_figures, tmp_path, monkeypatch
):
    monkeypatch.setattr(generation, "_kinds_at_once", lambda generator, pairs, kinds: kinds)
    workdir = tmp_path / "run"
    path = pipeline.run(small_config(MATRIX), workdir, generators=[write(JOINT, "shared.py")])
    found = results.read_results(workdir)
    titles = [pair.title for pair in found.pairs]
    assert titles == ["black cat", "black car", "red cat", "red car"]
    assert all(pair.figure(row).known for pair in found.pairs for row in ("cyclegan_a2b", "shared"))
    assert found.overall.methods["cyclegan_a2b"].label == "attribute kernels translated"
    shared, translated = (found.overall.methods[name] for name in ("shared", "cyclegan_a2b"))
    assert (shared.behind.held_out, shared.behind.learnt, shared.behind.leaked) == (2, 2, 0)
    assert (translated.behind.held_out, translated.behind.learnt) == (1, 0)
    for pair in found.pairs:
        row = pair.methods["cyclegan_a2b"]
        assert len(set(row.trainings)) == 2  # of two networks each
        assert np.mean(row.trainings) == pytest.approx(row.auroc["worst"].mean)
        assert (pair.methods["shared"].made, len(pair.methods["shared"].trainings)) == (
            4,
            1,
        )  # equal networks
    assert all("shared" in found.arrays_under(pair, "answers") for pair in found.pairs)
    placebos = found.pairs[0].methods["shared"].placebos
    assert set(placebos) == MATRIX_PLACEBOS
    assert placebos["object_other"].parents == "the parents of car"
    assert set(found.overall.methods["shared"].placebos) == MATRIX_PLACEBOS
    page = path.read_text()
    assert all(title in page for title in titles)
    assert (workdir / "figures/matrix.png").exists()

    zoos = read_result(place(workdir, "zoo"))
    assert len(zoos) == 4
    plan = export.workdir.read_plan(workdir)
    views = [
        zoos[plan["zoos"][pair["attribute_zoo"]]["checkpoint"][1]]["params"]["conv1"]["kernel"].mean(axis=0)
        for pair in plan["pairs"]
    ]
    heads = [zoos[zoo["checkpoint"][1]]["params"]["dense"]["bias"] for zoo in plan["zoos"]]
    placebos = read_result(place(workdir, "placebos/shared"))
    for number in range(4):  # the networks have the heads of their attribute's parents
        own, other = (heads[plan["pairs"][at]["attribute_zoo"]] for at in (number, (number + 2) % 4))
        made = {name: one["dense"]["bias"] for name, one in placebos[str(number)]["shared"].items()}
        for name, expected in (("object_random", own), ("object_other", own), ("attribute_other", other)):
            np.testing.assert_array_equal(made[name], expected)
    made = export.networks(workdir)
    for number, learnt in enumerate(((1, 2), (0, 3), (0, 3), (1, 2))):  # the other diagonal
        expected = np.mean([views[other] for other in learnt], axis=0)
        kernels = made[f"{titles[number].replace(' ', '_')}/shared"]["conv1"]["kernel"]
        np.testing.assert_allclose(kernels, np.broadcast_to(expected, kernels.shape), atol=1e-5)


def test_a_fold_whose_zoos_read_what_it_holds_out_is_refused_before_training(write, tmp_path):
    config = small_config(MATRIX | {"pairs.exclude": "own"})
    with pytest.raises(LeakageError, match=r"fold 1 holds out 'black cat'"):
        pipeline.run(config, tmp_path / "run", generators=[write(JOINT)])
    assert not (tmp_path / "run/checkpoints").exists()


def test_probes_that_show_what_a_fold_holds_out_are_refused(write, tmp_path):
    file = write(JOINT.replace("joint=True", "joint=True, reads='U'"))
    with pytest.raises(LeakageError, match=r"fold 1.*probes"):
        pipeline.run(small_config(MATRIX), tmp_path / "run", generators=[file])
    assert not (tmp_path / "run/checkpoints").exists()


def test_a_joint_generator_of_a_single_pair_is_refused_before_training(write, tmp_path):
    _refused(small_config(), tmp_path / "run", ["mine", "joint", "pairs.attributes"], [write(JOINT)])
