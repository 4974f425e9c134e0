"""Tests for kernelgan.generators.reduce and kernelgan.refit: planted truths, invariances, least squares."""

import functools
import itertools
import threading
from concurrent import futures

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernelgan
from kernelgan import generators, models, probes, refit
from kernelgan.baselines import methods
from kernelgan.evaluation import features
from kernelgan.generators import FAMILIES, Parents, backfitting, base, check, mixing, reduce, selection

IMAGE_SIZE = 16


@pytest.fixture(scope="module")
def reduced(network, images):
    """``reduced(parents, **settings)``: networks, by one compiled function a setting."""
    compiled = {}

    def run(zoos, probes=images, **settings):
        key = tuple(settings.items())
        if key not in compiled:
            compiled[key] = jax.jit(generators.make("reduce", network, **settings).generate)
        return jax.device_get(compiled[key](jax.random.key(0), {}, zoos, probes))[""]

    return run


@pytest.fixture
def pair(make_parents):
    return Parents(make_parents(2, seed=1), make_parents(2, seed=2))


@pytest.fixture
def uneven(make_parents):
    """Three parents and two: what `reduced` makes of them is three networks, by one program."""
    return Parents(make_parents(3, seed=1), make_parents(2, seed=2))


def _differences(network, params, images):
    """Logit differences, ``(M, N, concepts)``."""
    module = network.clone(outputs=params["dense"]["bias"].shape[-1])
    logits = features.population_logits(module, jax.device_get(params), images)
    return logits[..., 1::2] - logits[..., 0::2]


def _both(network, parents, images):
    return np.concatenate([_differences(network, zoo, images) for zoo in parents], axis=-1)


# Planted truths.


def _silenced(parents, conv1, conv2):
    """The same function without these filters: nothing comes out of them, and nothing reads them."""
    made = jax.tree.map(np.copy, parents)
    for name, dead in (("conv1", conv1), ("conv2", conv2)):
        made[name]["kernel"][..., dead] = 0
        made[name]["bias"][..., dead] = -1
    return made


@pytest.mark.parametrize("planted", ["shared", "halves"])
def test_a_union_that_needs_no_more_filters_is_recovered(network, reduced, make_parents, images, planted):
    """Of two parents each; where they are unlike, the network has their mean answer."""
    zoos = [make_parents(4, seed=seed) for seed in (1, 2)]
    if planted == "shared":  # the same trunk under all heads of a group
        trunk = {
            name: jax.tree.map(lambda leaf: leaf[[0, 0, 2, 2]], zoos[0][name]) for name in ("conv1", "conv2")
        }
        pair = Parents(*({**trunk, "dense": zoo["dense"]} for zoo in zoos))
    else:
        alike = [jax.tree.map(lambda leaf: leaf[[0, 0, 2, 2]], zoo) for zoo in zoos]
        pair = Parents(_silenced(alike[0], [1], [0]), _silenced(alike[1], [0], [1, 2]))
    made = reduced(pair, parents=2, ridge=1e-5, head_ridge=1e-5)
    mean = _both(network, pair, images).reshape(2, 2, len(images), 2).mean(axis=1)
    error = _differences(network, made, images) - mean
    assert np.square(error).mean() < 1e-3 * mean.var(axis=1).mean()


def _reordered(parents, seed):
    """The same functions: filters in another order, each scaled up here and down where it is read."""
    rng = np.random.default_rng(seed)
    orders, scales = (
        [draw(n) for n in (2, 3)] for draw in (rng.permutation, lambda n: 2.0 ** rng.integers(-3, 4, n))
    )
    made, reads = {}, (np.arange(3), np.ones(3))
    for name, order, scale in zip(("conv1", "conv2"), orders, scales, strict=True):
        kernel = parents[name]["kernel"][:, :, :, reads[0]] / reads[1][:, None]
        made[name] = {
            "kernel": (kernel * scale)[..., order].astype(np.float32),
            "bias": (parents[name]["bias"] * scale)[..., order].astype(np.float32),
        }
        reads = order, scale[order]
    kernel = parents["dense"]["kernel"]
    rows = kernel.reshape(len(kernel), 3, -1, 2)[:, reads[0]] / reads[1][:, None, None]
    return {**made, "dense": {**parents["dense"], "kernel": rows.reshape(kernel.shape).astype(np.float32)}}


@pytest.mark.parametrize("side", ["attribute", "object"])
def test_order_and_scale_of_a_parents_filters_do_not_matter(network, reduced, uneven, images, side):
    zoo = getattr(uneven, side)
    moved = _reordered(zoo, 3)
    answers = [_differences(network, one, images) for one in (moved, zoo)]
    np.testing.assert_allclose(*answers, atol=1e-5)
    both = uneven, uneven._replace(**{side: moved})
    found = [_differences(network, reduced(parents), images) for parents in both]
    np.testing.assert_allclose(*found, atol=1e-2 * found[0].std())


def test_network_i_is_of_parents_i_counted_round(network, reduced, uneven):
    made = reduced(uneven)
    check.check_networks({"": made}, network, IMAGE_SIZE, "reduce")
    turned = reduced(uneven._replace(attribute=jax.tree.map(lambda leaf: leaf[::-1], uneven.attribute)))
    jax.tree.map(  # 2 and 0 meet the object's parent 0 either way
        lambda leaf, other: np.testing.assert_allclose(leaf[[0, 2]], other[[2, 0]], rtol=1e-3, atol=1e-4),
        made,
        turned,
    )


@pytest.mark.parametrize("family", ["reduce", "reduce_zoo", "reduce_rendered", "reduce_noise"])
def test_more_parents_than_a_zoo_has_are_refused(family):
    module = FAMILIES[family]
    settings = module.Config(parents=5)
    assert not list(module.problems(settings, layers=2, models=(5, 6)))
    (found,) = module.problems(settings, layers=2, models=(6, 4))
    assert found.startswith("parents is 5, but the smaller zoo has 4 networks")


# Degenerate parents.


def _zero(parents):
    return jax.tree.map(np.zeros_like, parents)


def _constant(parents):
    return {**parents, "dense": _zero(parents["dense"])}


def _dead(parents):
    return {**parents, "conv2": {**parents["conv2"], "bias": parents["conv2"]["bias"] - 100}}


def _equal(parents):
    return {
        **parents,
        **{
            name: jax.tree.map(lambda leaf: leaf[..., :1] + 0 * leaf, parents[name])
            for name in ("conv1", "conv2")
        },
    }


@pytest.mark.parametrize("spoil", [_zero, _constant, _dead, _equal])
@pytest.mark.parametrize("sides", [(1,), (0, 1)])
def test_degenerate_parents_give_finite_networks(network, reduced, uneven, spoil, sides):
    parents = Parents(*(spoil(zoo) if place in sides else zoo for place, zoo in enumerate(uneven)))
    made = reduced(parents)
    check.check_networks({"": made}, network, IMAGE_SIZE, "reduce")
    for leaf in jax.tree.leaves(made):
        assert np.isfinite(leaf).all()


def test_probes_that_are_all_alike_give_finite_networks(reduced, uneven):
    """As two would, each of which fills a part."""
    assert [np.unique(part).tolist() for part in backfitting.in_parts(2)] == [[0], [1], [0]]
    for leaf in jax.tree.leaves(reduced(uneven, np.full((64, 16, 16, 3), 90, np.uint8))):
        assert np.isfinite(leaf).all()


def test_a_parent_whose_answer_is_constant_leaves_the_other_its_network(network, reduced, uneven, images):
    made = reduced(uneven._replace(object=_constant(uneven.object)))
    found = _differences(network, made, images)
    np.testing.assert_allclose(found[..., 1], 0, atol=1e-5)
    truth = _differences(network, uneven.attribute, images)[..., 0]
    assert np.corrcoef(found[0, :, 0], truth[0])[0, 1] > 0.9


@pytest.mark.parametrize("filters", [(4,), (3, 2, 4)])
def test_any_number_of_layers_and_a_network_that_asks_for_another_form(filters):
    """The forms of `models.ConvNet` are one function; reducing chooses its own."""
    network, size = models.ConvNet(filters=filters, kernel_size=3, form="tiles"), 26
    keys = jax.random.split(jax.random.key(0), 2)
    init = jax.jit(jax.vmap(lambda key: models.initialise_convnet(network, size, key)))
    first, second = (jax.device_get(init(key[None])) for key in keys)
    pair = Parents(first, {**first, "dense": second["dense"]})  # one trunk: what both need is there
    generator = generators.make("reduce", network, patches=4, ridge=1e-5, head_ridge=1e-5)
    shown = np.random.default_rng(0).integers(0, 256, (64, size, size, 3)).astype(np.uint8)
    made = jax.device_get(jax.jit(generator.generate)(jax.random.key(0), {}, pair, shown))
    check.check_networks(made, network, size, "reduce")
    truth = _both(network, pair, shown)
    error = _differences(network, made[""], shown) - truth
    assert np.square(error).mean() < 1e-2 * truth.var(axis=1).mean()


@pytest.mark.parametrize(("size", "side", "filters"), [(17, 4, (3, 2)), (31, 3, (2, 3, 4))])
def test_windows_where_they_are_read_are_those_of_the_whole_convolution(size, side, filters):
    network = models.ConvNet(filters=filters, kernel_size=side)
    keys = jax.random.split(jax.random.key(0), 3)
    shown = np.random.default_rng(0).normal(size=(128, size, size, 3)).astype(np.float32)

    @jax.jit
    def both_of_each_layer(keys, shown):
        parents = [models.initialise_convnet(network, size, key) for key in keys]
        group = reduce.unite(network, parents, 3, network.lay_out(shown), 128)
        inputs, both = group.images, []
        for number, name in enumerate(models.layer_names(filters)):
            reader = reduce._reader(group, number, reduce.Config(patches=2))
            windows = reduce._windows(refit.batch_minor(inputs, 128), parents[0][name], reader)
            inputs = refit.run_layer(parents[0][name], inputs)
            whole = reader.cut(refit.batch_minor(inputs, 128))
            both.append((mixing.maps_of(windows).reshape(whole.shape), whole))
        return both

    for found, whole in both_of_each_layer(keys, shown):
        np.testing.assert_allclose(found, whole, atol=1e-5)
        assert (np.asarray(whole).std(axis=1) > 0).any()


# Least squares, against plain numpy in float64.

GROUPS, EACH, TARGETS, RIDGE = 6, 3, 4, 0.01


@pytest.fixture(scope="module")
def samples():
    """Features ``(d, n)`` of unlike scales, correlated across groups; targets ``(t, n)``; weights."""
    rng = np.random.default_rng(4)
    mixing = (
        rng.normal(size=(GROUPS * EACH, 10)) * np.repeat(10.0 ** rng.integers(-2, 3, GROUPS), EACH)[:, None]
    )
    features = np.maximum(mixing @ rng.normal(size=(10, 400)), 0)
    targets = rng.normal(size=(TARGETS, 10)) @ np.sign(rng.normal(size=(10, 400))) + 2
    targets += (rng.normal(size=(TARGETS, len(features))) / features.std(axis=1)) @ features
    return features.astype(np.float32), targets.astype(np.float32), rng.uniform(0.1, 2, TARGETS)


def _reference(samples, chosen):
    """Weights, intercepts, and what is explained: ridge regression by its normal equations."""
    features, targets, weights = (array.astype(np.float64) for array in samples)
    rows = np.concatenate([np.arange(g * EACH, (g + 1) * EACH) for g in chosen])
    spread = np.sqrt(features.var(axis=1).reshape(GROUPS, EACH).mean(axis=1))
    scaled = (features - features.mean(axis=1, keepdims=True)) / np.repeat(spread, EACH)[:, None]
    wanted = targets - targets.mean(axis=1, keepdims=True)
    gram = scaled[rows] @ scaled[rows].T / features.shape[1] + RIDGE * np.eye(len(rows))
    cross = scaled[rows] @ wanted.T / features.shape[1]
    solved = np.linalg.solve(gram, cross)
    unscaled = solved / np.repeat(spread, EACH)[rows][:, None]
    intercepts = targets.mean(axis=1) - features.mean(axis=1)[rows] @ unscaled
    return unscaled, intercepts, float(((cross * solved).sum(axis=0) * weights).sum())


def test_a_fit_is_the_ridge_regression_on_the_chosen_groups(samples):
    found = refit.moments(*map(jnp.asarray, samples[:2]), GROUPS, RIDGE)
    weights, intercepts = refit.solve(found, jnp.array([4, 0, 3]), EACH)
    expected = _reference(samples, [4, 0, 3])
    np.testing.assert_allclose(weights, expected[0], rtol=2e-3, atol=1e-4 * np.abs(expected[0]).max())
    np.testing.assert_allclose(intercepts, expected[1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("count", [1, 3, 6])
def test_groups_are_selected_greedily_and_no_exchange_of_two_is_better(samples, count):
    found = refit.moments(*map(jnp.asarray, samples[:2]), GROUPS, RIDGE)
    weights = jnp.asarray(samples[2], jnp.float32)
    chosen = selection.select(found, weights, GROUPS, count)
    greedy = []
    for _ in range(count):
        left = [group for group in range(GROUPS) if group not in greedy]
        greedy.append(max(left, key=lambda group: _reference(samples, [*greedy, group])[2]))
    assert list(chosen) == greedy

    kept = set(np.asarray(selection.exchange(found, weights, GROUPS, chosen)).tolist())
    assert len(kept) == count
    others = [kept - {old} | {new} for old in kept for new in set(range(GROUPS)) - kept]
    best = _reference(samples, sorted(kept))[2]
    assert best >= _reference(samples, greedy)[2] * (1 - 1e-4)
    assert all(_reference(samples, sorted(other))[2] <= best * (1 + 1e-4) for other in others)


def test_an_exchange_mends_a_bad_choice(samples):
    found = refit.moments(*map(jnp.asarray, samples[:2]), GROUPS, RIDGE)
    worst = min(itertools.combinations(range(GROUPS), 3), key=lambda c: _reference(samples, c)[2])
    kept = selection.exchange(found, jnp.asarray(samples[2], jnp.float32), GROUPS, jnp.array(worst))
    assert _reference(samples, np.asarray(kept))[2] > 1.05 * _reference(samples, worst)[2]


def test_importances_are_mean_squared_derivatives_of_the_logits(network, pair, images):
    """Of the last layer: by automatic differentiation with respect to its pooled pre-activations."""
    zoo = [jax.tree.map(lambda leaf: leaf[0], one) for one in pair]
    laid_out = network.lay_out(models.normalise_images(images))
    group = reduce.unite(network, zoo, 2, laid_out, len(images))
    found = reduce.importances(("conv1", "conv2"), group)[1]

    for place, one in enumerate(zoo):
        maps = refit.batch_minor(group.hidden[place][1], len(images))
        # Where the map is positive it is its pre-activation; elsewhere any negative number serves.
        before = jnp.where(maps > 0, maps, -1.0)
        slopes = jax.grad(lambda z, one=one: refit.difference(one["dense"], jax.nn.relu(z)).sum())(before)
        expected = np.square(slopes).sum(axis=(1, 2)).mean(axis=1)
        np.testing.assert_allclose(found[3 * place : 3 * place + 3], expected, rtol=1e-4)


def test_refitted_heads_are_ridge_regressions_of_the_parents_answers(network, pair, make_parents, images):
    trunks = make_parents(2, seed=7)
    made = refit.refit_heads(trunks, refit.answers(pair, images), images)
    for name in ("conv1", "conv2"):
        jax.tree.map(np.testing.assert_array_equal, made[name], trunks[name])
    run = jax.vmap(lambda one: models.run_convnet(network, one, models.normalise_images(images))[1])
    features, truth = np.asarray(run(trunks), np.float64), _both(network, pair, images)
    for member in range(2):
        own = features[member] - features[member].mean(axis=0)
        variance = np.repeat(own.var(axis=0).reshape(3, -1).mean(axis=1), own.shape[1] // 3)
        wanted = truth[member] - truth[member].mean(axis=0)
        penalty = np.diag(len(own) * refit.HEAD_RIDGE * variance)
        weights = np.linalg.lstsq(own.T @ own + penalty, own.T @ wanted, rcond=None)[0]
        expected = own @ weights + truth[member].mean(axis=0)
        found = _differences(network, made, images)[member]
        np.testing.assert_allclose(found, expected, atol=1e-3 * truth.std())


# Probes.


@pytest.mark.parametrize(
    ("family", "tier"),
    [("reduce", "U"), ("reduce_zoo", "U"), ("reduce_rendered", "S"), ("reduce_noise", "S")],
)
def test_what_each_family_is_handed(network, make_context, images, family, tier):
    generator = generators.make(family, network, images=30)
    assert generator.reads == tier
    context = make_context()
    handed = context.probes(generator)
    assert handed.shape == (90 if tier == "S" else 36, *images.shape[1:])  # of 36 seen images
    expected = {
        "reduce_rendered": functools.partial(probes.rendered, exclude=[context.names]),
        "reduce_noise": probes.noise,
    }
    if tier == "S":
        np.testing.assert_array_equal(handed, expected[family](90, size=IMAGE_SIZE))
    else:
        assert all((images == image).all(axis=(1, 2, 3)).any() for image in handed)


def test_no_fragment_and_no_part_has_the_colour_of_the_conjunction(monkeypatch):
    """Every colour that is drawn for a shape of an object, by names."""
    lib, drawn = probes.rendered_lib, []

    def draw(rng, name):
        drawn.append(name)
        return np.zeros(3)

    monkeypatch.setattr(lib, "_draw_colour", draw)
    monkeypatch.setattr(lib, "OBJECTS", ("cat",))  # so that every fragment is of one
    monkeypatch.setattr(lib, "_background", lambda rng, size: np.zeros((size, size, 3), np.float32))
    monkeypatch.setattr(lib, "_strip", lambda rng, side: ([], np.zeros((0, 3))))
    for seed in range(60):
        lib.render("cat", "white", np.random.default_rng(seed), 8, frozenset({("black", "cat")}))
    assert "black" not in drawn
    assert len(drawn) > 200


def test_two_rows_that_ask_for_the_same_pictures_at_once_have_them_rendered_once(monkeypatch):
    asked, begun = [], threading.Event()

    def render(thing, colour, rng, size, exclude):
        asked.append(thing)
        begun.wait(0.05)  # the other thread has its chance
        return np.zeros((size, size, 3), np.uint8)

    monkeypatch.setattr(probes.rendered_lib, "render", render)
    with futures.ThreadPoolExecutor(2) as pool:
        made = [pool.submit(probes.rendered, 3, seed=99, size=16) for _ in range(2)]
        assert [one.result().shape for one in made] == [(3, 16, 16, 3)] * 2
    assert len(asked) == 3


def test_the_nulls_of_rendered_probes_are_there_where_a_generator_reads_them():
    without, found = (methods.table(methods.generated_rows("mine", ("",), tier)) for tier in ("U", "S"))
    assert set(found) - set(without) == {"random_refit_rendered", "random_backfitted_rendered"}


# kernelgan.compose


def test_three_concepts_in_one_network_of_the_whole_zoos(network, make_parents, images):
    """On one trunk, which can hold all mean answers; logits stand in the order of the concepts."""
    zoos = [make_parents(2, seed=seed) for seed in (1, 2, 3)]
    trunk = {name: jax.tree.map(lambda leaf: leaf[[0, 0]], zoos[0][name]) for name in ("conv1", "conv2")}
    zoos = [{**trunk, "dense": zoo["dense"]} for zoo in zoos]
    made = kernelgan.compose(*zoos, probes=images, whole_zoo=True, ridge=1e-5, head_ridge=1e-5)
    assert made["dense"]["bias"].shape == (2, 6)
    mean = _both(network, zoos, images).mean(axis=0)
    error = _differences(network, jax.device_get(made), images) - mean
    assert np.square(error).mean() < 1e-3 * mean.var(axis=0).mean()


def test_refitted_heads_need_as_many_parents_as_trunks(pair, make_parents, images):
    with pytest.raises(ValueError, match="3 trunks and answers of 2 parents"):
        refit.refit_heads(make_parents(3), refit.answers(pair, images), images)
    with pytest.raises(ValueError, match=r"\[2, 3\] networks; expected equally many"):
        refit.answers(pair._replace(object=make_parents(3)), images)


def test_no_program_waits_for_threads_inside_lapack():
    """Two devices that both solve several blocks in one LAPACK call wait for each other without end."""
    if jax.default_backend() != "cpu":
        pytest.skip("accelerators solve blocks side by side")
    network = models.ConvNet(filters=(2, 3))
    zoo = jax.eval_shape(
        jax.vmap(lambda key: models.initialise_convnet(network, 16, key)),
        jax.random.split(jax.random.key(0), 2),
    )
    images = jax.ShapeDtypeStruct((8, 16, 16, 3), np.uint8)
    generator = generators.make("reduce", network, images=8)
    traced = jax.make_jaxpr(lambda parents, images: generator.generate(None, {}, parents, images))(
        generators.Parents(zoo, zoo), images
    )
    calls = list(_calls(traced.jaxpr, ("cholesky", "triangular_solve")))
    assert calls
    assert all(variable.aval.ndim == 2 for call in calls for variable in call.invars)


def _calls(jaxpr, names):
    """Every equation of these primitives, at any depth."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in names:
            yield equation
        for parameter in jax.tree.leaves(
            list(equation.params.values()),
            is_leaf=lambda leaf: hasattr(leaf, "eqns") or hasattr(leaf, "jaxpr"),
        ):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                yield from _calls(inner, names)


@pytest.mark.parametrize(
    ("devices", "counts", "parts"), [(2, 8, 2), (2, 2, 1), (4, 4, 2), (3, 8, 2), (1, 8, 1)]
)
def test_networks_of_one_pair_are_made_on_all_devices(network, monkeypatch, devices, counts, parts):
    def zoo(count):
        return {"dense": {"bias": np.zeros((count, 2))}}

    generator, parents = generators.make("reduce", network), Parents(zoo(counts), zoo(counts))
    monkeypatch.setattr(base.parallel, "devices", lambda: list(range(devices)))
    assert base._parts(generator, [parents]) == parts
    assert base._parts(generator, [parents] * devices) == 1
    assert base._parts(generators.make("reduce_zoo", network), [parents]) == 1
    assert base._parts(generator, [parents._replace(object=zoo(counts + 1))]) == 1


def test_networks_made_in_parts_have_the_same_bits(
    network, make_parents, images, monkeypatch, assert_trees_equal
):
    generator = generators.make("reduce", network, rounds=0, sweeps=0)
    parents = Parents(make_parents(4, seed=1), make_parents(4, seed=2))
    key, states = jax.random.key(0), {}

    def made():
        told = []
        rows = base.generate(
            generator,
            states,
            [parents],
            [images],
            [key],
            name="reduce",
            progress=lambda *done: told.append(done),
        )
        assert told[-1] == (1, 1)
        return rows[0][""]

    whole = made()
    monkeypatch.setattr(base, "_parts", lambda generator, parents: 2 if generator.separable else 1)
    assert_trees_equal(made(), whole)


def test_others_take_the_place_of_the_parents_first_filters(network, pair, images):
    own = jax.tree.map(
        lambda *leaves: np.concatenate(leaves, axis=-1), pair.attribute["conv1"], pair.object["conv1"]
    )
    silent = {"kernel": np.zeros_like(own["kernel"]), "bias": np.full_like(own["bias"], -1)}
    run = jax.jit(functools.partial(reduce.compose_zoos, network, reduce.Config(images=64, sweeps=0)))
    as_usual, with_own, with_silent = (
        _differences(network, run(tuple(pair), images, firsts), images).reshape(2, -1)
        for firsts in (None, own, silent)
    )
    for usual, same in zip(as_usual, with_own, strict=True):  # but for what fits are shrunk towards
        assert np.corrcoef(usual, same)[0, 1] > 0.95
    assert not np.allclose(as_usual, with_own)
    assert np.ptp(with_silent.reshape(2, -1, 2), axis=1).max() < 1e-3
