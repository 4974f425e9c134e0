"""Three concepts in one network, composed of three zoos: black, cat, and a bright surround.

    pip install . && python docs/three_concepts.py

Rendered images, no download; about four minutes on two CPU cores. No zoo sees a picture in which all three
concepts hold. A network's score of a picture is the least of its three probabilities; the figure is the AUROC
between pictures of all three concepts and those of another combination, for the worst of the seven others.
"""

import argparse
import dataclasses
import itertools
from typing import Any

import jax
import numpy as np
from sklearn.metrics import roc_auc_score

import kernelgan as kg
from kernelgan import models, refit
from kernelgan.data.images import ImageSet
from kernelgan.types import Params

CONCEPTS = ("black", "cat", "bright")
TRAINING = {"epochs": 24, "images_per_epoch": 2560, "batch_size": 64, "learning_rate": 0.004, "decay": True}
_FRAME = 4  # pixels
_BRIGHT = 110.0  # of 255


def with_surround(images: ImageSet) -> ImageSet:
    """Images with one more attribute: whether the frame around the picture is bright on average."""
    frame = np.ones(images.images.shape[1:3], bool)
    frame[_FRAME:-_FRAME, _FRAME:-_FRAME] = False
    bright = images.images[:, frame].mean(axis=(1, 2)) > _BRIGHT
    return dataclasses.replace(images, attributes={**images.attributes, "bright": bright.astype(np.int8)})


def probabilities(network: kg.ConvNet, params: Params, images: np.ndarray) -> np.ndarray:
    """Of each concept, ``(M, N, K)``."""
    module = network.clone(outputs=params["dense"]["bias"].shape[-1])
    run = jax.vmap(lambda one, shown: models.run_convnet(module, one, shown)[0], (0, None))
    logits = np.asarray(jax.jit(run)(params, models.normalise_images(images)), np.float64)
    return 1 / (1 + np.exp(logits[..., 0::2] - logits[..., 1::2]))


def worst_combination(found: np.ndarray, holds: np.ndarray) -> float:
    """The lowest of the seven AUROCs, each as mean over networks.

    Args:
      found: probabilities ``(M, N, K)``.
      holds: bool ``(N, 3)``, which concepts hold.
    """
    scores, every = found.min(axis=-1), holds.all(axis=1)
    of_each = []
    for other in itertools.product((False, True), repeat=3):
        if not all(other):
            rows = every | (holds == np.array(other)).all(axis=1)
            of_each.append(np.mean([roc_auc_score(every[rows], one[rows]) for one in scores]))
    return float(min(of_each))


def main(*, train: int = 24000, test: int = 3000, members: int = 8, seed: int = 0, **training: Any) -> dict:  # noqa: ANN401
    """Trains the zoos, composes, and prints a line for each way of composing; returns the figures."""
    source = kg.data.load(
        "rendered", attributes=("black",), objects=("cat",), seed=seed, train=train, test=test
    )
    source = dataclasses.replace(source, train=with_surround(source.train), test=with_surround(source.test))
    black_cat, bright_cat = (
        kg.split(source, attribute, "cat", seed=seed) for attribute in ("black", "bright")
    )
    network = kg.ConvNet(filters=(6, 16))
    zoos = [
        kg.train_zoo(network, images, models=members, seed=seed, **TRAINING | training).params
        for images in (black_cat.attribute, black_cat.object, bright_cat.attribute)
    ]
    keys = jax.random.split(jax.random.key(seed), members)
    untrained = jax.vmap(lambda key: models.initialise_convnet(network, 32, key))(keys)

    made = {
        "composed, one network": kg.compose(*zoos),
        "null: random kernels, heads refitted": refit.refit_heads(untrained, zoos, kg.probes.noise(1536)),
    }
    for place, name in enumerate(CONCEPTS):
        made[f"null: composed without {name}"] = kg.compose(*zoos[:place], *zoos[place + 1 :])
        made[f"placebo: untrained for {name}"] = kg.compose(*zoos[:place], untrained, *zoos[place + 1 :])

    labels = {**source.test.attributes, **source.test.objects}
    holds = np.stack([labels[name] == 1 for name in CONCEPTS], axis=1)
    images = source.test.images
    of_parents = [probabilities(network, zoo, images) for zoo in zoos]
    found = {"three networks, the least answer": np.concatenate(of_parents, axis=-1)}
    found |= {name: probabilities(network, jax.device_get(params), images) for name, params in made.items()}
    figures = {name: worst_combination(each, holds) for name, each in found.items()}
    print(f"{holds.all(axis=1).sum()} of {len(holds)} test pictures show all three concepts.")
    for name, figure in figures.items():
        print(f"{name:40s} {figure:.3f}")
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    main(seed=parser.parse_args().seed)
