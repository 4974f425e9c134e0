"""What a generator is: families, files of a user's own, joint generators, and what is refused."""

import cProfile
import dataclasses
import pstats
import textwrap
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernelgan import models, probes
from kernelgan.generators import FAMILIES, Generator, Parents, base, check, fitting, loading, stateless
from kernelgan.types import UserError

IMAGE_SIZE = 16


@pytest.fixture(scope="module")
def parents(make_parents):
    return [Parents(make_parents(4, seed=n), make_parents(3, seed=10 + n)) for n in range(3)]


def _task(name, generator, parents, folds=(), probes=None, names=None):
    views = fitting.views(name, generator, parents, probes or [None] * len(parents), folds)
    return fitting.Task(name, generator, views, tuple(names or map(str, range(len(views)))))


def _generate(generator, state, parents, probes=None):
    keys = list(jax.random.split(jax.random.key(0), len(parents)))
    return base.generate(generator, state, parents, probes or [None] * len(parents), keys, name="x")


def _logits(network, params, images):
    module = network.clone(outputs=params["dense"]["bias"].shape[-1])
    run = jax.vmap(lambda one: models.run_convnet(module, one, models.normalise_images(images))[0])
    return np.asarray(jax.jit(run)(params))


# Families.


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "cyclegan"])
def test_a_family_trains_generates_and_gives_networks_that_fit(network, parents, images, name):
    """CycleGANs take longest to compile: `cyclegan_test` asks the same of those that it has trained."""
    module = FAMILIES[name]
    config = module.Config()
    small = {"steps": 3, "parents": 2, "rounds": 0, "sweeps": 0}
    known = {field.name for field in dataclasses.fields(config)}
    small = {field: value for field, value in small.items() if field in known}
    generator = module.make(network, dataclasses.replace(config, **small))
    probes = None if generator.reads == "W" else [images] * 3
    task = _task(name, generator, parents, probes=probes)
    fitted = fitting.fit(task, steps_per_call=2)
    assert (task.steps > 0) == bool(fitted.history)
    for values in jax.tree.leaves(fitted.history):
        assert values.shape == (3, task.steps)
        assert np.isfinite(values).all()
    made = _generate(generator, fitted.state, parents, probes)
    assert {key for networks in made for key in networks} == set(module.LABELS)
    for networks in made:
        check.check_networks(networks, network, IMAGE_SIZE, name)


def test_a_linear_map_that_is_planted_is_learnt(network, make_parents):
    """The object's zoo is the attribute's by one linear map: the networks are the object's."""
    attribute = make_parents(6, seed=1)
    planted = jax.tree.map(lambda leaf: 0.5 * leaf, attribute)
    generator = FAMILIES["linear"].make(network, FAMILIES["linear"].Config(steps=400, learning_rate=0.03))
    pair = Parents(attribute, planted)
    fitted = fitting.fit(_task("linear", generator, [pair]))
    (made,) = _generate(generator, fitted.state, [pair])
    for layer in ("conv1", "conv2"):
        np.testing.assert_allclose(made[""][layer]["kernel"], planted[layer]["kernel"], atol=2e-2)
        history = fitted.history[layer][0]
        assert history[-1] < 0.01 * history[0]


def test_linear_is_the_same_function_whatever_the_order_of_the_objects_filters(network, parents, images):
    """It matches filters by weight, so the order of the object's parents' filters does not matter."""
    generator = FAMILIES["linear"].make(network, FAMILIES["linear"].Config(steps=5))
    pair = parents[0]
    rng = np.random.default_rng(0)
    order = rng.permutation(2), rng.permutation(3)
    moved = jax.tree.map(np.copy, pair.object)
    moved["conv1"] = {name: leaf[..., order[0]] for name, leaf in moved["conv1"].items()}
    kernel = moved["conv2"]["kernel"][..., order[0], :][..., order[1]]
    moved["conv2"] = {"kernel": kernel, "bias": moved["conv2"]["bias"][..., order[1]]}
    dense = moved["dense"]["kernel"]
    moved["dense"]["kernel"] = dense.reshape(3, 3, -1, 2)[:, order[1]].reshape(dense.shape)
    np.testing.assert_allclose(
        _logits(network, pair.object, images[:4]), _logits(network, moved, images[:4]), atol=1e-5
    )
    found = []
    for one in (pair, Parents(pair.attribute, moved)):
        fitted = fitting.fit(_task("linear", generator, [one]))
        found.append(_logits(network, _generate(generator, fitted.state, [one])[0][""], images[:4]))
    np.testing.assert_allclose(*found, atol=1e-4)


# Generators that learn nothing, on the host or compiled.


def _mean(key, parents, probes):
    count = min(len(zoo["dense"]["bias"]) for zoo in parents)
    return jax.tree.map(lambda a, b: (a[:count] + b[:count]) / 2, *parents)


def test_probes_are_handed_to_a_generator_on_the_host_or_compiled(parents, images, assert_trees_close):
    """The mean of the probes becomes a bias."""

    def shifted(key, parents, probes):
        made = _mean(key, parents, None)
        return {**made, "dense": {**made["dense"], "bias": made["dense"]["bias"] + jnp.mean(probes / 255.0)}}

    probes = [images[:8], images[8:16], images[16:24]]
    for host in (True, False):
        generator = stateless(shifted, reads="U", host=host)
        made = _generate(generator, {}, parents, probes)
        for networks, pair, shown in zip(made, parents, probes, strict=True):
            mean = _mean(None, pair, None)
            moved = networks[""]["dense"]["bias"] - mean["dense"]["bias"]
            np.testing.assert_allclose(moved, (shown / 255.0).mean(), rtol=1e-4)
            assert_trees_close(networks[""]["conv1"], mean["conv1"], rtol=1e-6, atol=1e-7)


# Joint generators.


def _joint(network):
    """Learns the mean of the first attribute kernel over the pairs of its fold, by weight."""

    def init(key, view):
        return {"mean": jnp.zeros(view.views.shape[1:])}

    def update(key, state, view):
        weights = view.weights / view.weights.sum()
        target = jnp.tensordot(weights, view.views, axes=1)
        mean = state["mean"] + 0.5 * (target - state["mean"])
        return {"mean": mean}, {"gap": jnp.abs(target - mean).max()}

    def generate(key, state, parents, probes):
        kernel = jnp.broadcast_to(state["mean"], parents.attribute["conv1"]["kernel"].shape)
        return {"": {**parents.attribute, "conv1": {**parents.attribute["conv1"], "kernel": kernel}}}

    return Generator(
        view=lambda parents, probes: parents.attribute["conv1"]["kernel"].mean(axis=0),
        init=init,
        update=update,
        generate=generate,
        steps=30,
        joint=True,
    )


def test_a_joint_generator_learns_from_the_pairs_of_its_fold_alone(network, parents):
    folds = [np.array([1.0, 1.0, 0.0]), np.array([0.0, 1.0, 1.0])]
    generator = _joint(network)
    fitted = fitting.fit(_task("joint", generator, parents, folds))
    means = np.stack([pair.attribute["conv1"]["kernel"].mean(axis=0) for pair in parents])
    expected = [(means[0] + means[1]) / 2, (means[1] + means[2]) / 2]
    np.testing.assert_allclose(fitted.state["mean"], expected, atol=1e-6)
    changed = [parents[0], parents[1], Parents(jax.tree.map(lambda leaf: leaf + 7, parents[2].attribute), {})]
    again = fitting.fit(_task("joint", generator, changed, folds))
    np.testing.assert_array_equal(again.state["mean"][0], fitted.state["mean"][0])  # held out: not read
    assert (again.state["mean"][1] != fitted.state["mean"][1]).any()


def test_a_joint_generator_without_folds_is_refused(network, parents):
    with pytest.raises(UserError, match="joint"):
        _task("joint", _joint(network), parents)


# Files of the user's own.

MEAN = """
    import jax
    from kernelgan.generators import stateless

    def generate(key, parents, probes):
        count = min(len(zoo["dense"]["bias"]) for zoo in parents)
        return jax.tree.map(lambda a, b: (a[:count] + b[:count]) / 2, *parents)

    def make(network, config):
        return stateless(generate)
"""


@pytest.fixture
def write(tmp_path):
    def file(text, name="mine.py"):
        path = tmp_path / name
        path.write_text(textwrap.dedent(text))
        return str(path)

    return file


def test_families_whose_names_begin_alike_go_together_where_each_has_one_row(network):
    names = ["reduce", "reduce_rendered", "reduce_noise"]
    found = loading.load({}, names, network)
    assert [loaded.name for loaded in found] == names
    assert [loaded.config for loaded in found] == [FAMILIES[name].Config() for name in names]


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("import there_is_no_such_module", ["mine.py", "ModuleNotFoundError", "there_is_no_such_module"]),
        ("def make(network, config:", ["mine.py"]),
        ("x = 1", ["make"]),
        ("make = 3", ["make"]),
        ("def make(network, config):\n    return 5", ["int", "Generator"]),
        ("def make(network):\n    return 5", ["mine.py", "make(network)", "make(network, config)"]),
        (MEAN.replace("stateless(generate)", "stateless(generate, reads='X')"), ["mine.py", "'X'"]),
        (MEAN.replace("stateless(generate)", "stateless(generate)._replace(steps=-1)"), ["steps"]),
        (MEAN.replace("stateless(generate)", "stateless(generate)._replace(update=3)"), ["update"]),
        (MEAN.replace("stateless(generate)", "stateless(generate, images=0)"), ["images"]),
        (MEAN.replace("stateless(generate)", "stateless(generate, made='drawn')"), ["made", "'drawn'"]),
    ],
)
def test_a_file_that_is_no_generator_is_refused_before_work_starts(write, network, text, facts):
    with pytest.raises(UserError) as caught:
        loading.load({}, [write(text)], network)
    for fact in facts:
        assert fact in str(caught.value)


@pytest.mark.parametrize(
    ("files", "fact"),
    [
        (["nowhere.py"], "nowhere.py"),
        (["reduces"], "cyclegan"),
        (["linear", "linear"], "linear"),
    ],
)
def test_what_is_no_file_or_is_given_twice_is_refused(network, files, fact):
    with pytest.raises(UserError, match=fact):
        loading.load({}, files, network)


@pytest.mark.parametrize("name", ["my-generator.py", "average.py", "cyclegan.py", "mine.txt"])
def test_a_file_whose_name_cannot_name_rows_is_refused(write, network, name):
    with pytest.raises(UserError):
        loading.load({"cyclegan": FAMILIES["cyclegan"].Config()}, [write(MEAN, name)], network)


def test_a_family_s_code_is_what_its_module_imports_but_for_what_decides_no_numbers(network, monkeypatch):
    monkeypatch.setattr(loading.keys, "of_source", lambda *modules: " ".join(modules))
    configs = {name: FAMILIES[name].Config() for name in ("cyclegan", "reduce_noise")}
    code = {one.name: one.code.split() for one in loading.load(configs, [], network)}
    assert {"kernelgan.generators.reduce", "kernelgan.generators.selection"} <= set(code["reduce_noise"])
    assert "kernelgan.generators.cyclegan" not in code["reduce_noise"]
    assert "kernelgan.generators.cyclegan" in code["cyclegan"]
    assert not {name for name in code["cyclegan"] if "reduce" in name}
    assert not {"kernelgan.cache", "kernelgan.generators.check"} & {*code["cyclegan"], *code["reduce_noise"]}


def test_a_run_without_a_generator_is_refused(network):
    with pytest.raises(UserError, match="cyclegan"):
        loading.load({}, [], network)


# What a generator gives is checked, and errors name it.


def _broken(change):
    def networks(parents):
        made = jax.tree.map(np.copy, dict(parents.attribute))
        return change(made)

    return networks


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        (lambda made: None, ["nothing"]),
        (lambda made: {}, []),
        (lambda made: {"": None}, ["conv1.kernel"]),
        (lambda made: {"": {**made, "conv1": {"kernel": made["conv1"]["kernel"]}}}, ["conv1.bias"]),
        (lambda made: {"": {**made, "conv3": made["conv1"]}}, ["conv3"]),
        (
            lambda made: {"": {**made, "conv1": jax.tree.map(lambda x: x.astype(int), made["conv1"])}},
            ["int64"],
        ),
        (lambda made: {"": jax.tree.map(lambda x: x[0], made)}, ["conv1.bias (2,)", "(M, 2)"]),
        (lambda made: {"": {"conv_1": made["conv1"]}}, ["conv1.kernel", "conv_1"]),
        (lambda made: {"": {**made, "conv1": {"weight": 0}}}, ["conv1.kernel", "weight"]),
        (lambda made: {"": jax.tree.map(lambda x: x[:0], made)}, ["conv1.kernel (0, 3, 3, 3, 2)"]),
        (
            lambda made: {"": {**made, "conv2": jax.tree.map(lambda x: x[:2], made["conv2"])}},
            ["conv2.kernel"],
        ),
        (
            lambda made: {"": {**made, "dense": jax.tree.map(lambda x: x[..., :1], made["dense"])}},
            ["dense.bias"],
        ),
        (
            lambda made: {"b": {**made, "conv1": jax.tree.map(lambda x: x * np.nan, made["conv1"])}},
            ["(b)", "4 of 4"],
        ),
    ],
)
def test_what_are_no_networks_is_refused_by_name(network, parents, change, facts):
    with pytest.raises(UserError) as caught:
        check.check_networks(_broken(change)(parents[0]), network, IMAGE_SIZE, "the generator mine gives")
    for fact in ["the generator mine", *facts]:
        assert fact in str(caught.value)


def test_networks_of_another_width_are_allowed(network, parents):
    wide = network.clone(filters=(5, 4), outputs=4)
    shapes = jax.eval_shape(lambda key: models.initialise_convnet(wide, IMAGE_SIZE, key), jax.random.key(0))
    params = jax.tree.map(lambda leaf: np.ones((2, *leaf.shape), leaf.dtype), shapes)
    check.check_networks({"": params}, network, IMAGE_SIZE, "wide")


def test_a_generator_that_cannot_be_hashed_is_trained(network, parents):
    @dataclasses.dataclass
    class Keep:
        inner: list

        def __call__(self, state):
            return self.inner[0](state)

    family = FAMILIES["linear"]
    made = family.make(network, family.Config(steps=2))
    fitted = [
        fitting.fit(_task("mine", made._replace(keep=keep), parents))
        for keep in (made.keep, Keep([made.keep]))
    ]
    jax.tree.map(np.testing.assert_array_equal, fitted[0].state, fitted[1].state)


def test_training_tells_steps(network, parents):
    family = FAMILIES["linear"]
    task = _task("mine", family.make(network, family.Config(steps=5)), parents)
    heard = []
    fitting.fit(task, steps_per_call=2, progress=lambda done, total, metrics: heard.append((done, total)))
    assert heard == [(2, 5), (4, 5), (5, 5)]


@pytest.mark.parametrize("part", ["view", "init", "update", "generate"])
def test_an_exception_names_the_generator_the_function_and_the_line(network, parents, part):
    def fails(*arguments):
        raise KeyError("conv9")

    planted = FAMILIES["linear"].make(network, FAMILIES["linear"].Config(steps=1))._replace(**{part: fails})

    def run():
        fitted = fitting.fit(_task("mine", planted, parents))
        base.generate(planted, fitted.state, parents, [None] * 3, [jax.random.key(0)] * 3, name="mine")

    with pytest.raises(UserError) as caught:
        run()
    for fact in ("mine", part, "KeyError", "conv9", "generators_test.py"):
        assert fact in str(caught.value)


def test_a_joint_generator_is_not_handed_the_pairs_that_are_held_out(network, parents):
    (view,) = fitting.views("joint", _joint(network), parents, [None] * 3, [np.array([0.0, 1.0, 1.0])])
    means = [pair.attribute["conv1"]["kernel"].mean(axis=0) for pair in parents]
    np.testing.assert_array_equal(view.views, np.stack([means[1], means[1], means[2]]))


def _trained(update, **fields):
    return stateless(_mean)._replace(
        init=lambda key, view: {"w": jnp.zeros(3, jnp.float32)}, update=update, steps=4, **fields
    )


@pytest.mark.parametrize(
    ("update", "facts"),
    [
        (lambda key, state, view: state, ["dict"]),
        (lambda key, state, view: ({"w": state["w"].astype(jnp.int32)}, {}), ["['w']", "int32"]),
        (lambda key, state, view: ({"v": state["w"]}, {}), ["state"]),
        (lambda key, state, view: ({"w": state["w"][:2]}, {}), ["(2,)"]),
        (lambda key, state, view: (state, (jnp.float32(0),)), ["metrics"]),
    ],
)
def test_an_update_that_breaks_the_interface_is_named(parents, update, facts):
    with pytest.raises(UserError) as caught:
        fitting.fit(_task("mine", _trained(update), parents))
    for fact in ["mine", "update", *facts]:
        assert fact in str(caught.value)


@pytest.mark.parametrize("steps", [-1, 2.5, lambda view: "many"])
def test_steps_that_are_no_number_are_named(parents, steps):
    generator = _trained(lambda key, state, view: (state, {}))._replace(steps=steps)
    with pytest.raises(UserError, match="steps"):
        fitting.fit(_task("mine", generator, parents))


def test_a_training_goes_on_at_another_pace_to_the_same_end(parents, new_saver, killed, assert_trees_equal):
    def update(key, state, view):
        return {"w": state["w"] + jax.random.normal(key, (3,))}, {"sum": state["w"].sum()}

    task = _task("mine", _trained(update)._replace(steps=7), parents)
    whole = fitting.fit(task, steps_per_call=7)
    saver = new_saver(killed_after=1)
    with pytest.raises(killed):
        fitting.fit(task, steps_per_call=3, saver=saver)
    assert_trees_equal(tuple(fitting.fit(task, steps_per_call=4, saver=saver)), tuple(whole))


def test_generators_whose_rows_could_share_a_name_are_refused(write, network):
    with pytest.raises(UserError, match="two_x"):
        loading.load({}, [write(MEAN, "two.py"), write(MEAN, "two_x.py")], network)


def test_gradients_taken_while_networks_are_made_are_seen():
    def steps(values):
        return values - 0.1 * jax.grad(lambda x: jnp.sum(x**2))(values)

    def elsewhere(values):
        thread = threading.Thread(target=steps, args=(values,))
        thread.start()
        thread.join()

    for work, expected in ((steps, True), (jax.jit(steps), True), (elsewhere, True), (jnp.sum, False)):
        with check.watched() as watched:
            work(jnp.ones(3))
        assert (watched.gradients, watched.images) == (expected, False)


def test_a_run_under_a_profiler_goes_on_being_profiled():
    """`python -m cProfile launch.py`: its profile is an object, no function."""
    profile = cProfile.Profile()
    with profile:
        with check.watched() as watched:
            jax.grad(lambda x: x * x)(1.0)
        textwrap.dedent("  seen by the profile")
    assert watched.gradients
    assert any(name == "dedent" for *_, name in pstats.Stats(profile).stats)


@pytest.mark.parametrize(("ask", "expected"), [(probes.noise, True), (np.ones, False)])
def test_images_of_the_package_that_a_generator_asks_for_are_seen(ask, expected):
    with check.watched() as watched:
        ask(2)
    assert (watched.gradients, watched.images) == (False, expected)


def test_what_a_file_does_when_it_is_imported_is_seen(write, network):
    file = write(textwrap.dedent(MEAN) + "import jax\njax.grad(lambda x: x * x)(1.0)\n", "eager.py")
    (loaded,) = loading.load({}, [file], network)
    assert loaded.watched.gradients
    assert not loading.load({}, [write(MEAN, "mean.py")], network)[0].watched.gradients


def test_a_generator_that_writes_into_its_parents_changes_no_others(parents):
    before = jax.tree.map(np.copy, parents)

    def generate(key, parents, probes):
        for leaf in jax.tree.leaves(parents):
            leaf.flags.writeable = True
            leaf[...] = 0
        return parents.attribute

    _generate(stateless(generate), {}, parents)
    jax.tree.map(np.testing.assert_array_equal, parents, before)


def test_networks_given_again_may_differ_by_rounding_alone(parents):
    before = {"row": parents[0].attribute}
    rounded = jax.tree.map(lambda leaf: leaf * np.float32(1 + 1e-6), before)
    check.check_same(rounded, before, "mine")
    for other in (
        {},
        {"row": parents[0].object},
        {"row": jax.tree.map(lambda leaf: leaf[:1], parents[0].attribute)},
    ):
        with pytest.raises(UserError, match="mine"):
            check.check_same(other, before, "mine")


def test_the_parameters_of_one_zoo_in_the_place_of_two_are_told_as_that(make_parents):
    with pytest.raises(UserError, match=r"dict of conv1, conv2, dense; expected .*Parents"):
        check.parents_of(make_parents(2))
