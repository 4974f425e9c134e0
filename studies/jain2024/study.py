"""The original repeated: its networks, judged by its protocol, beside nulls that are judged alike."""

from __future__ import annotations

import dataclasses
import json
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kernelgan import assemble, environment, interop, keys, models
from kernelgan import config as config_lib
from kernelgan import workdir as workdir_lib
from kernelgan.evaluation import bootstrap, features, similarity
from kernelgan.files import write_atomically
from kernelgan.progress import Progress
from kernelgan.types import Config, Params, Quadrant, UserError
from studies.jain2024 import config as settings_lib
from studies.jain2024 import data, evidence, measurements, populations, protocol, report

RESULTS_FILE = "jain2024.json"
ARRAYS_FILE = "arrays.npz"
REPORT_FILE = "report.html"
PIXELS = "pixels"
"""The population of one that has no network: its features are the pixels."""

Record = dict[str, Any]


def run(config: Config, root: Path, workdir: Path, *, processes: int = 0, command: str = "") -> Path:
    """Repeats the original, or what is missing; prints the finding.

    Args:
      config: see ``config.py``.
      root: the original's data.
      workdir: where everything is kept.
      processes: that run UMAP; 0: one for each core.
      command: as the user gave it, for the report, whose path is returned.

    Raises:
      UserError: for what the user can mend; finished figures are kept.
    """
    settings_lib.check(config)
    environment.select_device(config.device)
    progress = Progress("data")
    reference = data.load(root, progress)
    progress.close("done")
    check_numbers(config, reference)
    results, arrays_file = workdir / RESULTS_FILE, workdir / ARRAYS_FILE
    made_from = _digest(config, reference)
    with workdir_lib.claimed(workdir, config):
        if _made_from(results) != made_from:
            with measurements.workers(processes) as pool:
                document, arrays = evaluate(prepare(config, reference, workdir, pool))
            document |= {"made_from": made_from, "command": command, "timings": workdir_lib.timings(workdir)}
            document["finding"] = report.finding(document)
            interop.write_arrays(arrays_file, arrays)
            write_atomically(results, json.dumps(document, indent=1).encode())
        try:
            document, arrays = json.loads(results.read_text()), interop.read_arrays(arrays_file)
            page = report.page(document, arrays)
            lines = [textwrap.fill(line, 100) for line in document["finding"]]
        except (ValueError, TypeError, LookupError, OSError, UserError) as error:
            raise UserError(
                f"the results in {workdir} are damaged ({error}). Delete {results} and give the same command "
                "again: no network is measured again."
            ) from error
        path = write_atomically(workdir / REPORT_FILE, page.encode())
    print(*lines, f"report: {path}", sep="\n\n")
    return path


def _digest(config: Config, reference: data.Reference) -> str:
    """Of what figures are made from; they are kept under it, so that other data or settings mix with none."""
    settings = {name: value for name, value in config.items() if name not in ("device", "chunk_size", "name")}
    code = keys.of_source("studies.jain2024", "kernelgan.evaluation.clustering")
    return keys.of_values([settings, reference.digest, code])


def _made_from(results: Path) -> str:
    """What the results of an earlier command were made from; "" where there are none, or they are damaged."""
    try:
        return str(json.loads(results.read_text())["made_from"])
    except (OSError, ValueError, LookupError, TypeError):
        return ""


def check_numbers(config: Config, reference: data.Reference) -> None:
    """Refuses, as UserError, what the zoos are too small for."""
    pairs = reference.pairs
    generated = config.networks or pairs
    random = config.random_networks or 2 * generated
    if generated > pairs:
        raise UserError(f"networks is {generated}; expected at most the {pairs} of the smaller zoo, or 0.")
    if min(generated, random) < config.picked:
        raise UserError(
            f"picked is {config.picked}, more than there are networks to pick from ({generated} generated in "
            f"each direction, {random} random); expected fewer."
        )
    for row in reference.reported:
        if not 0 <= row.model < pairs:
            raise UserError(
                f"{data.REPORTED_FILE} names network {row.model}, but the smaller zoo has only {pairs} "
                "networks. Get the whole zoo, or take the file out."
            )


@dataclasses.dataclass(frozen=True)
class Study:
    """What every part of the study needs."""

    config: Config
    reference: data.Reference
    workdir: Path
    pool: Executor  # runs UMAP
    # Generated populations are whole, because the reported networks are anywhere in them.
    params: dict[str, Params]
    sizes: dict[str, int]  # how many of each population are looked at
    settings: protocol.Settings  # with all seeds

    @property
    def quadrant(self) -> np.ndarray:
        """Of each photograph, ``(N,)``."""
        return np.where(self.reference.positive, Quadrant.CONJUNCTION, Quadrant.REST)

    def features(self, name: str, members: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Features of a population's networks, or the pixels; see `measurements.Features`."""
        images = self.reference.images
        if name == PIXELS:
            yield members, np.asarray(models.normalise_images(images)).reshape(1, len(images), -1)
            return
        chosen = assemble.take_members(self.params[name], members)
        size = self.config.chunk_size
        for part, _, values in features.population_outputs(data.NETWORK, chosen, images, chunk_size=size):
            assert values is not None
            yield members[part], values

    def features_of(self, name: str, number: int) -> np.ndarray:
        """Features ``(N, F)`` of one network."""
        ((_, values),) = self.features(name, np.array([number]))
        return values[0]

    def measure(self, kind: str, name: str, members: np.ndarray, settings: protocol.Settings) -> np.ndarray:
        """Figures of a population's networks, kept under `kind`; see `measurements.measure`."""
        folder = self.workdir / workdir_lib.EVALUATION / _digest(self.config, self.reference)[:12]
        file = folder / f"{kind}_{name}.npy"
        count = 1 if name == PIXELS else _count(self.params[name])
        with workdir_lib.staged(self.workdir, f"{kind} {name}") as progress:
            return measurements.measure(
                *(self.pool, file, count, members, lambda missing: self.features(name, missing)),
                *(self.reference.positive, settings, progress),
            )


def prepare(config: Config, reference: data.Reference, workdir: Path, pool: Executor) -> Study:
    """Makes the networks of all populations."""
    print(f"{config.name}: {environment.device_words()}; work directory {workdir}", file=sys.stderr)
    count = config.networks or reference.pairs
    streams = [jax.random.fold_in(jax.random.key(config.seed), number) for number in (0, 1)]
    params = {
        "random": populations.random(reference, config.random_networks or 2 * count, streams[0]),
        "gaussian": populations.gaussian(reference, config.gaussian_networks, streams[1]),
        "black": populations.untranslated(reference, "A", count),
        "cat": populations.untranslated(reference, "B", count),
        "generated_b": populations.generate(reference, "B", reference.pairs),
        "generated_a": populations.generate(reference, "A", reference.pairs),
    }
    sizes = {name: _count(networks) for name, networks in params.items()}
    sizes |= dict.fromkeys(evidence.GENERATED.values(), count)
    settings = protocol.Settings(
        **{name: tuple(config[name]) for name in ("seeds", "kmeans_seeds", "radii", "minimum_samples")},
        nu=config.svm_nu,
    )
    return Study(config, reference, workdir, pool, params, sizes, settings)


def evaluate(study: Study) -> tuple[Record, dict[str, np.ndarray]]:
    """Measures everything; gives the document of `RESULTS_FILE` and the arrays of `ARRAYS_FILE`."""
    config, reference = study.config, study.reference
    fixed = {
        name: evidence.by_clusterer(
            study.measure("screened", name, np.arange(size), study.settings.fixed()), 1
        )[:, 0]
        for name, size in (study.sizes | {PIXELS: 1}).items()
    }
    pixels = fixed.pop(PIXELS)[0, :, evidence.ACCURACY]
    names = [name for name in study.sizes if name != "gaussian"]  # which nothing is compared with
    whose = np.repeat(names, [study.sizes[name] for name in names])
    where = np.concatenate([np.arange(study.sizes[name]) for name in names])
    accuracies = {
        clusterer: {name: values[:, place, evidence.ACCURACY] for name, values in fixed.items()}
        for place, clusterer in enumerate(protocol.CLUSTERERS)
    }
    screened = {
        clusterer: np.concatenate([values[name] for name in names])
        for clusterer, values in accuracies.items()
    }
    judged = _judge(study, whose, where, screened)
    measured = _reported(study)
    with workdir_lib.staged(study.workdir, "score"):
        picked, relabelled = evidence.picked_tests(
            whose, screened, judged, count=config.picked, draws=config.draws, seed=config.seed
        )
        generated = {domain: study.params[name] for domain, name in evidence.GENERATED.items()}
        document = {
            "name": config.name,
            "config": config_lib.to_json(config),
            "versions": environment.versions(),
            "device": environment.device_words(),
            "layout": reference.layout,
            "photographs": [int(reference.positive.sum()), int((~reference.positive).sum())],
            "zoos": {"black": _count(reference.black), "cat": _count(reference.cat)},
            "source_similarity": populations.source_similarity(reference, generated),
            "trivial": {
                "always_other": float(np.mean(~reference.positive)),
                "central_brightness": evidence.central_brightness(reference.images, reference.positive),
                "pixels": dict(zip(protocol.CLUSTERERS, pixels.tolist(), strict=True)),
            },
            "reported": evidence.reported_best(reference.reported),
            "rows": evidence.rows_beside(
                *(reference.reported, measured, len(config.kmeans_seeds), len(reference.positive))
            ),
            "populations": {name: _population(study, name, values) for name, values in fixed.items()},
            "tail": {name: evidence.tail(values, config.picked) for name, values in accuracies.items()},
            "picked": picked,
            "asked": _asked(study),
        }
        arrays = {f"relabelled/{name}": values for name, values in relabelled.items()}
        for clusterer, values in accuracies.items():
            arrays |= {f"accuracy/{clusterer}/{name}": own for name, own in values.items()}
        for title, name, number in _shown(study, whose, where, screened["kmeans"]):
            plane = study.pool.submit(protocol.embed, study.features_of(name, number), config.seeds[0])
            arrays[f"embedding/{title}"] = plane.result()
        arrays["positive"] = reference.positive
    return document, arrays


def _count(params: Params) -> int:
    return len(params["dense"]["bias"])


def _judge(
    study: Study, whose: np.ndarray, where: np.ndarray, screened: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Tuned accuracy ``(T,)`` by clusterer of each network (its population, its number there).

    Networks that cannot be picked, by their accuracy ``screened`` under the fixed protocol, have NaN.
    """
    config, settings = study.config, study.settings
    settings = dataclasses.replace(settings, seeds=settings.seeds[: config.tuning_seeds])
    chosen = evidence.can_be_picked(whose, screened, count=config.picked, seed=config.seed)
    judged = {clusterer: np.full(len(whose), np.nan) for clusterer in protocol.CLUSTERERS}
    for name in dict.fromkeys(whose.tolist()):
        places = chosen[whose[chosen] == name]
        figures = study.measure("judged", name, where[places], settings)
        best = evidence.by_clusterer(figures, len(settings.kmeans_seeds))[..., evidence.ACCURACY].max(axis=1)
        for number, clusterer in enumerate(protocol.CLUSTERERS):
            judged[clusterer][places] = best[:, number]
    return judged


def _reported(study: Study) -> dict[tuple[str, int], np.ndarray]:
    """Figures ``(S, K + 1 + D, 7)`` of the reported networks, by domain and number."""
    measured: dict[tuple[str, int], np.ndarray] = {}
    for domain, name in evidence.GENERATED.items():
        rows = study.reference.reported
        members = np.array(sorted({row.model for row in rows if row.domain == domain}), int)
        figures = study.measure("reported", name, members, study.settings)
        measured |= {(domain, int(m)): values for m, values in zip(members, figures, strict=True)}
    return measured


def _population(study: Study, name: str, fixed: np.ndarray) -> Record:
    """A population's clusterings under the fixed protocol, and cosine similarities of its features."""
    seed = study.config.seed
    convolutions = jax.tree.leaves([study.params[name][layer] for layer in data.LAYERS])
    cosines = [
        similarity.cosine_similarity(values, study.quadrant)
        for _, values in study.features(name, np.arange(study.sizes[name]))
    ]
    return {
        "networks": study.sizes[name],
        "parameters": sum(leaf[0].size for leaf in convolutions),
        "clustering": evidence.clusterings(fixed, seed=seed),
        "cosine_similarity": {
            figure: bootstrap.summary(np.concatenate([getattr(part, figure) for part in cosines]), seed=seed)
            for figure in ("within", "across", "margin")
        },
    }


def _asked(study: Study) -> Record:
    """The photographs by the networks' own answers: no cluster, no test label, nothing chosen.

    Generated and random networks have both parents' heads; the parents are as trained, biases and all.
    Composed networks, and random kernels with heads fitted alike, read images that the package makes.
    """
    parents = {"black": study.reference.black, "cat": study.reference.cat}
    logits: dict[str, np.ndarray] = {}
    for name, size in study.sizes.items():
        count = study.reference.pairs if name in parents else size
        chosen = assemble.take_members(parents.get(name, study.params[name]), np.arange(count))
        logits[name] = features.population_logits(
            data.NETWORK, chosen, study.reference.images, chunk_size=study.config.chunk_size
        )
    logits["both"] = np.concatenate([logits[name] for name in parents], axis=-1)
    count = min(study.config.composed, study.reference.pairs, study.sizes["random"])
    for made in populations.PROBES:
        for name, trunks in ((f"composed_{made}", None), (f"refit_{made}", study.params["random"])):
            networks = populations.composed(study.reference, count, made, trunks)
            logits[name] = features.population_logits(
                data.NETWORK, networks, study.reference.images, chunk_size=study.config.chunk_size
            )
    record = {}
    for name, values in logits.items():
        answers, threshold = features.score(values)
        intervals, _ = bootstrap.intervals_and_replicates(
            answers, study.quadrant, threshold=threshold, resamples=300, seed=study.config.seed
        )
        record[name] = {"networks": len(answers), "auroc": intervals["auroc"]["vs_rest"]}
        record[name]["balanced_accuracy"] = intervals["balanced_accuracy"]
    return record


def _shown(
    study: Study, whose: np.ndarray, where: np.ndarray, screened: np.ndarray
) -> Iterator[tuple[str, str, int]]:
    """The networks whose UMAP planes are shown: the reported best, and each side's best when screened."""
    best = evidence.reported_best(study.reference.reported).get("kmeans")
    if best:
        network = best["network"]
        yield f"reported: {network}", evidence.GENERATED[network[0]], int(network[1:])
    generated = np.isin(whose, list(evidence.GENERATED.values()))
    for words, side in (("generated", generated), ("random kernels", whose == "random")):
        place = int(np.where(side, screened, -np.inf).argmax())
        yield f"{words}: best of {side.sum():,}", str(whose[place]), int(where[place])
