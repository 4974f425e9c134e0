"""The evidence cannot be fooled: a leak, a copy, an answer from colour alone and chance are each unmasked."""

import copy
import dataclasses

import jax
import numpy as np
import pytest

from configs import tiny
from kernelgan import assemble, pipeline, results
from kernelgan.baselines import methods, readouts
from kernelgan.data import quadrants, sources
from kernelgan.data.leakage import LeakageError
from kernelgan.data.quadrants import Groups
from kernelgan.evaluation import comparison, measurement, verdict
from kernelgan.keys import StageKey
from kernelgan.report import prose
from kernelgan.types import Quadrant

SIZE = 16
SETTINGS = measurement.Settings(
    bootstrap=200,
    umap_networks=0,
    umap_images=40,
    umap_neighbours=5,
    dbscan_radius=0.5,
    dbscan_minimum_samples=2,
    svm_nu=0.1,
    chunk_size=8,
    seed=0,
)


def _scenes(each, seed):
    """Red or blue scenes (attribute); a bright or dark square, or such stripes (object): no pixel tells."""
    rng = np.random.default_rng(seed)
    quadrant = np.repeat(np.arange(4, dtype=np.int8), each)
    pictures = rng.integers(50, 90, (4 * each, SIZE, SIZE, 3))
    is_red, is_square = quadrant < 2, quadrant % 2 == 0
    pictures[is_red, ..., 0] += 90
    pictures[~is_red, ..., 2] += 90
    shape = np.zeros((2, SIZE, SIZE), bool)
    shape[0, 4:12, 4:12] = True  # as many bright pixels as the stripes, so that colour does not tell
    shape[1, ::4] = True
    sign = rng.choice([-1, 1], 4 * each)[:, None, None, None]
    pictures += 50 * sign * shape[np.where(is_square, 0, 1)][..., None]
    return pictures.astype(np.uint8), quadrant


@pytest.fixture(scope="module")
def context(make_context):
    images, quadrant = _scenes(60, seed=1)
    parts = [np.flatnonzero(quadrant == number).astype(np.int32) for number in range(4)]

    def groups(*wanted):
        return Groups(wanted, tuple(parts[q][:40] for q in wanted), tuple(parts[q][40:] for q in wanted))

    return make_context(
        attribute=6,
        objects=6,
        images=images,
        seen=groups(1, 2, 3),
        attribute_images=groups(1, 3),
        object_images=groups(2, 3),
        random_networks=40,
    )


@pytest.fixture(scope="module")
def judge(context, tmp_path_factory):
    """``judge(networks)``: the record of a run whose only generated method makes these, and its verdict."""
    others = {
        name: method
        for name, method in methods.table({}).items()
        if method.kind not in ("trained apart", "reference")
    }
    images, quadrant = _scenes(50, seed=2)
    kept = tmp_path_factory.mktemp("kept")

    def run(networks):
        directory = tmp_path_factory.mktemp("planted")
        for file in kept.iterdir():
            (directory / file.name).hardlink_to(file)
        table = {**others, "planted": methods.Method("generated", "planted", "planted", networks)}
        found, _ = measurement.evaluate_pair(
            context,
            images,
            quadrant,
            SETTINGS,
            directory=directory,
            keys=lambda name: StageKey({"row": name}),
            progress=lambda done: None,
            methods=table,
        )
        for file in directory.iterdir():
            if file.stem != "planted" and not (kept / file.name).exists():
                (kept / file.name).hardlink_to(file)
        record = {"pair": {"attribute": "red", "object": "square"}, "data": {"leaked": 0}, **found}
        comparison.adjust([record])
        return record, *_judged(record)

    return run


def _run(record):
    return verdict.judged(results.from_document({"pairs": [record]}))


def _judged(record):
    run = _run(record)
    return run.verdict.answer, " ".join(prose.summary(run))


def _outcomes(record):
    return {one.rival: one.outcome for one in _run(record).verdict.comparisons if one.required}


def _outcome(record, rival):
    return _outcomes(record)[rival]


def test_a_leak_stops_a_run_before_anything_trains(tmp_path, monkeypatch):
    real = sources.load_source

    def leaking(config, progress):
        source = real(config, progress)
        held = quadrants.quadrant_of(source.test, "black", "cat") == Quadrant.CONJUNCTION
        alone = quadrants.quadrant_of(source.train, "black", "cat") == Quadrant.OBJECT_ONLY
        images = source.train.images.copy()
        images[np.flatnonzero(alone)[0]] = source.test.images[np.flatnonzero(held)[0]]
        return dataclasses.replace(source, train=dataclasses.replace(source.train, images=images))

    monkeypatch.setattr(sources, "load_source", leaking)
    with pytest.raises(LeakageError, match=r"zoo of the object 'cat'.* would read 1 image"):
        pipeline.run(tiny.get_config(), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_figures_of_a_run_that_leaked_do_not_count(judge, composing):
    record, _, _ = judge(composing)
    record["data"]["leaked"] = 3
    answer, words = _judged(record)
    assert answer == "cannot tell"
    assert "3 images of the conjunction were read" in words


def test_a_copy_of_a_parent_is_called_one(judge, context):
    order = np.array([1, 0]), np.array([2, 0, 1])

    def copied(context):
        """The object's parents with their filters in another order, and of another scale, and both heads."""
        params = jax.tree.map(np.copy, context.objects)
        params["conv1"] = {name: 3 * leaf for name, leaf in params["conv1"].items()}
        params["conv2"]["kernel"] /= 3
        for layer, filters in zip(("conv1", "conv2"), order, strict=True):
            params[layer] = {name: leaf[..., filters] for name, leaf in params[layer].items()}
        params["conv2"]["kernel"] = params["conv2"]["kernel"][..., order[0], :]
        head = assemble.two_concept_head(context.attribute["dense"], context.objects["dense"])
        return context.convnets({**params, "dense": head})

    record, answer, words = judge(copied)
    assert answer == "no"
    assert "copies of a parent" in words
    novelty = record["methods"]["planted"]["novelty"]
    assert novelty["distance"]["mean"] == pytest.approx(0, abs=1e-3)


def _colour(context):
    """Says yes to whatever is red."""
    head = readouts.fit(readouts.colour_histogram, context.images, context.attribute_images, most=40, seed=0)
    both = {name: np.concatenate([leaf, 0 * leaf], axis=-1)[None] for name, leaf in head.items()}
    return (readouts.Readouts(readouts.colour_histogram, {"dense": both}),)


def test_an_answer_from_colour_alone_is_unmasked(judge):
    record, answer, words = judge(_colour)
    found = record["methods"]["planted"]
    assert found["auroc"]["vs_object_only"]["mean"] > 0.99
    assert found["auroc"]["vs_neither"]["mean"] > 0.99
    low, high = found["auroc"]["vs_attribute_only"]["ci95"]
    assert low < 0.5 < high
    assert found["auroc"]["worst"]["mean"] < 0.6
    assert answer != "yes"
    assert _outcome(record, "colour_histogram") == "cannot tell"
    assert "colour_histogram" in words


def test_chance_is_not_taken_for_composition(judge, context):
    outcomes = []
    for seed in range(12):
        drawn = dataclasses.replace(context, key=jax.random.key(seed), random_networks=6)
        record, answer, _ = judge(lambda context, drawn=drawn: methods.BASELINES["random"].networks(drawn))
        assert answer != "yes"
        outcomes.append(_outcome(record, "random"))
    assert outcomes.count("above") <= 1  # of twelve, at a level of 0.05


@dataclasses.dataclass(frozen=True)
class _Composer:
    """Knows red from the share of red, and a square from how its middle stands out; kernels of its own."""

    params: dict

    def outputs(self, images, *, chunk_size):
        del chunk_size
        scenes = images.astype(np.float32) / 255
        redness = (scenes[..., 0] - scenes[..., 2]).mean(axis=(1, 2))
        middle = scenes[:, 5:11, 5:11].mean(axis=(1, 2, 3)) - scenes.mean(axis=(1, 2, 3))
        zero = np.zeros_like(redness)
        answers = np.stack([zero, 20 * redness, zero, 80 * (np.abs(middle) - 0.1)], axis=1)
        count = len(self.params["dense"]["bias"])
        drawn = np.random.default_rng(0).normal(scale=0.1, size=(count, *answers.shape))
        features = np.repeat(answers[None], count, axis=0)
        yield np.arange(count), (answers + drawn).astype(np.float32), features


@pytest.fixture(scope="module")
def composing(make_parents):
    return lambda context: (_Composer(make_parents(6, seed=9, outputs=4)),)


def test_what_does_compose_is_found_to(judge, composing):
    record, answer, words = judge(composing)
    assert record["methods"]["planted"]["auroc"]["worst"]["mean"] > 0.95
    outcomes = _outcomes(record)
    assert set(outcomes) >= {"random", "gaussian", "pixels", "colour_histogram", "zipit", "rebasin_average"}
    assert set(outcomes.values()) == {"above"}
    assert answer == "yes"
    assert words.startswith("Yes")


def test_it_is_found_to_on_each_of_many_pairs_too(judge, composing):
    """Corrections for sixty pairs leave room for a yes."""
    record, _, _ = judge(composing)
    pairs = [copy.deepcopy(record) for _ in range(60)]
    comparison.adjust(pairs)
    assert {_judged(pair)[0] for pair in pairs} == {"yes"}


def test_two_networks_are_not_taken_for_one_that_composes(judge, composing):
    """Running both parents, or a network of twice the size, is no generation however well it does."""

    def twice(context):
        return composing(context) * 2

    def larger(context):
        (one,) = composing(context)
        params = {**one.params, "more": {"kernel": np.zeros((6, 9))}}
        return (dataclasses.replace(one, params=params),)

    for networks in (larger, _as_readout):
        record, answer, words = judge(networks)
        assert set(_outcomes(record).values()) == {"above"}
        assert answer == "cannot tell"
        assert "above all that they must beat, but" in words
    with pytest.raises(ValueError, match="2 or 4 outputs"):
        judge(twice)


def _as_readout(context):
    """What composes, without kernels."""

    def describe(images):
        params = {"dense": {"bias": np.zeros((1, 4))}}
        ((_, answers, _),) = _Composer(params).outputs(images, chunk_size=1)
        return answers[0]

    head = {"kernel": np.eye(4, dtype=np.float32)[None], "bias": np.zeros((1, 4), np.float32)}
    return (readouts.Readouts(describe, {"dense": head}),)
