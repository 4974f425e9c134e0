"""Tests for studies.parts: its nulls are backfitted, and its table."""

import jax
import numpy as np

from kernelgan import probes
from kernelgan.evaluation import features
from kernelgan.generators import check, reduce
from kernelgan.generators.base import Parents
from studies import finished
from studies.parts import __main__ as command
from studies.parts import study


def test_random_kernels_that_are_backfitted_answer_more_like_the_parents(network, make_parents, monkeypatch):
    monkeypatch.setattr(study, "DEFAULT", reduce.Config(sweeps=0))  # half of its program
    parents = Parents(make_parents(2, seed=1), make_parents(2, seed=2))
    images = probes.noise(512, size=16)
    made = jax.device_get(study._nulls(parents, images, 16))
    wanted = np.concatenate([features.population_logits(network, zoo, images) for zoo in parents], axis=-1)
    near = {}
    for row, params in made.items():
        check.check_networks({"": params}, network, 16, row)
        answers = features.population_logits(network.clone(outputs=4), params, images)
        near[row] = finished.correlations(answers, wanted).mean()
    assert near["random"] > near["refit"] + 0.02
    assert near["targets"] > near["refit"] + 0.02


def test_the_table_has_every_row_and_its_gap():
    names = ["black cat", "red dog", "black dog", "red cat"]
    rows = {"and_ensemble": {name: {"worst": [0.9, 0.9]} for name in names}}
    for kind in study.PROBES:
        for number, row in enumerate([*study.PARTS, *study.NULLS]):
            figures = {"worst": [0.5 + number / 20] * 2, "correlation": [0.9, 0.9]}
            rows[f"{kind}_{row}"] = dict.fromkeys(names, figures)
    lines = command.table(rows).splitlines()
    assert len(lines) == 2 + len(study.PROBES) * (len(study.PARTS) + len(study.NULLS)) + 1
    assert "0.650 [0.650, 0.650] | +0.100 [+0.100, +0.100] | -0.250" in lines[5]
    assert lines[3].split("|")[4].strip() == ""  # what the others are compared with
