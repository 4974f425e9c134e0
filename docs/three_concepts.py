"""Three concepts in one network, composed of three zoos: black, cat, and a warm surround.

    pip install . && python docs/three_concepts.py

Rendered images, no download; about four minutes on two CPU cores. Of two concepts together a zoo may see
pictures, of all three never. A picture's score is the logarithm of the product of its three probabilities.
The figure: the AUROC between pictures of all three concepts and those of another combination, for the worst
of the seven others; mean over networks. There is no test, and no reference that was trained on all three.
"""

import argparse
import dataclasses
import itertools
from typing import Any

import jax
import numpy as np
from sklearn.metrics import roc_auc_score

import kernelgan as kg
from kernelgan import refit
from kernelgan.baselines import nulls
from kernelgan.data.images import ImageSet
from kernelgan.generators import backfitting, base, placebo

CONCEPTS = ("black", "cat", "warm")
TRAINING = {"epochs": 24, "images_per_epoch": 2560, "batch_size": 64, "learning_rate": 0.004, "decay": True}
_FRAME = 4  # pixels


def with_surround(images: ImageSet) -> ImageSet:
    """Images with one more attribute: whether the frame around the picture is redder than it is blue."""
    frame = np.ones(images.images.shape[1:3], bool)
    frame[_FRAME:-_FRAME, _FRAME:-_FRAME] = False
    mean = images.images[:, frame].mean(axis=1)
    warm = (mean[:, 0] > mean[:, 2]).astype(np.int8)
    return dataclasses.replace(images, attributes={**images.attributes, "warm": warm})


def shown_concepts(images: ImageSet) -> np.ndarray:
    """Which of `CONCEPTS` each picture shows, bool ``(N, 3)``."""
    labels = {**images.attributes, **images.objects}
    return np.stack([labels[name] == 1 for name in CONCEPTS], axis=1)


def worst_combination(found: np.ndarray, holds: np.ndarray) -> float:
    """The lowest of the seven AUROCs of each network, mean over networks.

    Args:
      found: probabilities ``(M, N, K)``.
      holds: bool ``(N, 3)``, which concepts hold.

    Raises:
      ValueError: a combination has no picture.
    """
    scores, every = np.log(found).sum(axis=-1), holds.all(axis=1)
    of_each = []
    for other in itertools.product((False, True), repeat=3):
        alike = (holds == np.array(other)).all(axis=1)
        if not alike.any():
            raise ValueError(f"no picture shows {dict(zip(CONCEPTS, other, strict=True))}")
        if not all(other):
            rows = every | alike
            of_each.append([roc_auc_score(every[rows], one[rows]) for one in scores])
    return float(np.min(of_each, axis=0).mean())


def main(*, train: int = 24000, test: int = 3000, members: int = 8, seed: int = 0, **training: Any) -> dict:  # noqa: ANN401
    """Trains the zoos, composes, and prints a line for each way of composing; returns the figures."""
    source = kg.data.load(
        "rendered", attributes=("black",), objects=("cat",), seed=seed, train=train, test=test
    )
    source = dataclasses.replace(source, train=with_surround(source.train), test=with_surround(source.test))
    black_cat, warm_cat = (kg.split(source, attribute, "cat", seed=seed) for attribute in ("black", "warm"))
    learnt = (black_cat.attribute, black_cat.object, warm_cat.attribute)
    triple = shown_concepts(source.train).all(axis=1)
    if any(triple[images.groups.read()].any() for images in learnt):
        raise AssertionError("a zoo would see all three concepts in one picture")
    network = kg.ConvNet(filters=(6, 16))
    zoos = [
        kg.train_zoo(network, images, models=members, seed=seed, **TRAINING | training).params
        for images in learnt
    ]

    keys, others = (jax.random.split(jax.random.key(number), members) for number in (seed, seed + 1))
    random, more = (nulls.initialise(network, 32, drawn) for drawn in (keys, others))
    probes = kg.probes.noise(base.IMAGES)  # as many as compose looks at
    wanted = refit.answers(zoos, probes)
    refitted = refit.refit_heads(random, wanted, probes)
    made = {
        "composed, one network": kg.compose(*zoos),
        "null: random kernels, heads refitted": refitted,
        "null: random kernels, backfitted": backfitting.backfit_networks(
            network, refitted, more, wanted, probes
        ),
    }
    for place, name in enumerate(CONCEPTS):
        before, own, after = zoos[:place], zoos[place], zoos[place + 1 :]
        made[f"null: composed without {name}"] = kg.compose(*before, *after)
        stand_in = placebo.random_like(network, 32, own, keys)
        made[f"placebo: random networks for {name}"] = kg.compose(*before, stand_in, *after)
        made[f"placebo: the opposite of {name}"] = kg.compose(*before, placebo.opposite(own), *after)

    holds, images = shown_concepts(source.test), source.test.images
    found = {"three networks": np.concatenate([kg.probabilities(zoo, images) for zoo in zoos], axis=-1)}
    found |= {name: kg.probabilities(params, images) for name, params in made.items()}
    figures = {name: worst_combination(each, holds) for name, each in found.items()}
    print(f"{np.sum(holds.all(axis=1))} of {len(holds)} test pictures show all three concepts.")
    for name, figure in figures.items():
        print(f"{name:40s} {figure:.3f}")
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Three concepts in one network.")
    parser.add_argument("--seed", type=int, default=0)
    main(seed=parser.parse_args().seed)
