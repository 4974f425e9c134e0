"""The reference repeated: its networks, judged by its protocol, beside nulls that are judged alike."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kernelgan import assemble, environment, models, report, results
from kernelgan import config as config_lib
from kernelgan import workdir as workdir_lib
from kernelgan.baselines.methods import parameter_count
from kernelgan.evaluate import bootstrap, features, scores, similarity
from kernelgan.keys import StageKey, of_values
from kernelgan.progress import WIDTH, Progress
from kernelgan.types import Config, Params, UserError
from studies.jain2024 import data, evidence, populations, protocol
from studies.jain2024.measurements import Measurements

_KEY_FILE = "key.json"
STAGES = ("data", "generate", "evaluate", "report")
TOLERANCE = 1e-4
"""Largest absolute difference from an independent computation that counts as rounding."""


KINDS = {
    "random": ("null", "kernels from the initialiser, biases zero"),
    "gaussian": ("null", "kernels with each parameter's mean and spread in a zoo, biases zero"),
    "attribute_only": ("parent", "kernels of the black zoo as they are, biases zero"),
    "object_only": ("parent", "kernels of the cat zoo as they are, biases zero"),
    "cyclegan_a2b": ("generated", "domain B: kernels of the black zoo translated to cat"),
    "cyclegan_b2a": ("generated", "domain A: kernels of the cat zoo translated to black"),
}

Record = dict[str, Any]


def run(config: Config, workdir: Path, *, stage: str = "report", command: str = "") -> Path | None:
    """Repeats the reference, or what is missing of it.

    Args:
      config: see ``configs/reference.py``.
      workdir: where everything is kept.
      stage: stop after this one of `STAGES`.
      command: as the user gave it, for the report.

    Returns:
      The path of the report, or None if the run stopped before it.

    Raises:
      UserError: whatever the user can mend; nothing that was finished is lost.
    """
    config_lib.check(config)
    if stage not in STAGES:
        raise UserError(
            f"--stage={stage} trains networks, which this run does not; it has {', '.join(STAGES)}."
        )
    with workdir_lib.claimed(workdir, config):
        if results.is_complete(workdir):
            recorded = results.read_results(workdir).document["config"]["reference"]["dir"]
            moved = recorded != config.reference.dir
            _check_same(
                *(workdir, config),
                data.load(Path(config.reference.dir), lambda *_: None).digest if moved else None,
            )
            return report.show(workdir)
        environment.select_device(config.device)
        return _Study(config, workdir, command).until(stage)


def _check_same(workdir: Path, config: Config, digest: str | None) -> None:
    """Refuses a directory whose figures are of another config or of other data; ``digest`` None: the same.

    Raises:
      UserError: naming what differs.
    """
    fields = config_lib.flatten(config_lib.to_json(config))
    parts = {name: of_values(of) for name, of in fields if not name.startswith(config_lib.HARMLESS)}
    file = workdir / _KEY_FILE
    if file.exists():
        before = json.loads(file.read_text())
        changed = StageKey({**parts, "data": digest or before["data"]}).changes(before)
        if changed:
            raise UserError(
                f"{workdir} was made with other values of {', '.join(changed)}. Give the earlier ones, or "
                "another --workdir."
            )
    if digest is not None:
        results.write_atomically(file, json.dumps({**parts, "data": digest}).encode())


class _Study:
    """One run; figures of networks are found again, all else is quickly made anew."""

    def __init__(self, config: Config, workdir: Path, command: str) -> None:
        self.config = config
        self.settings = config.reference
        self.workdir = workdir
        self.command = command
        self.seeds = tuple(int(seed) for seed in config.reference.seeds)
        self.protocol = protocol.Settings(
            tuple(int(seed) for seed in config.reference.kmeans_seeds),
            tuple(config.reference.radii),
            tuple(config.reference.minimum_samples),
            config.reference.svm_nu,
        )

    def until(self, stage: str) -> Path | None:
        """Runs the stages up to this one."""
        print(
            f"{self.config.name}: {environment.device_words()}; work directory {self.workdir}",
            file=sys.stderr,
        )
        with self._staged("data") as progress:
            self.reference = data.load(Path(self.settings.dir), progress)
            _check_same(self.workdir, self.config, self.reference.digest)
        for note in self.reference.notes:
            print(f"{'':{WIDTH}s} {note}", file=sys.stderr)
        self._check_numbers()
        if stage == "data":
            return None
        with self._staged("generate"):
            self._generate()
            self.checks = self._checks()
        if stage == "generate":
            return None
        with Measurements(
            self.workdir / workdir_lib.EVALUATION,
            self.reference.positive,
            processes=self.settings.processes,
            seconds=self.config.checkpoint.seconds,
        ) as self.measurements:
            document, arrays = self._evaluate()
        document["timings"] = workdir_lib.timings(self.workdir)
        results.write_results(self.workdir, document, arrays)
        if stage == "evaluate":
            return None
        (self.workdir / report.REPORT_FILE).unlink(missing_ok=True)
        return report.show(self.workdir)

    def _staged(self, name: str, stage: str = "") -> contextlib.AbstractContextManager[Progress]:
        return workdir_lib.staged(self.workdir, name, stage)

    # -- networks -----------------------------------------------------------------------------------------

    def _check_numbers(self) -> None:
        """Refuses what the zoos are too small for, before any work."""
        pairs = populations.pairs_of(self.reference)
        if self.settings.networks > pairs:
            raise UserError(
                f"reference.networks is {self.settings.networks}, but the smaller zoo has {pairs} networks; "
                "expected at most that, or 0 for all."
            )
        self.networks = self.settings.networks or pairs
        self.random_networks = self.settings.random_networks or 2 * self.networks
        if min(self.networks, self.random_networks) < self.settings.picked:
            raise UserError(
                f"reference.picked is {self.settings.picked}, more than there are networks to pick from "
                f"({self.networks} generated in each direction, {self.random_networks} random); expected "
                "fewer."
            )
        named = [(data.REPORTED_FILE, row.model) for row in self.reference.reported]
        named += [(data.FEATURES_FILE, check.model) for check in self.reference.checks]
        for file, model in named:
            if not 0 <= model < pairs:
                raise UserError(
                    f"{file} names network {model}, but the smaller zoo has only {pairs} networks. Get the "
                    "whole zoo, or take the file out."
                )

    def _generate(self) -> None:
        """All populations; the generated ones whole, for the reported networks are anywhere in them."""
        reference, pairs = self.reference, populations.pairs_of(self.reference)
        key = jax.random.key(self.config.seed)
        self.params: dict[str, Params] = {
            "random": populations.random(reference, self.random_networks, jax.random.fold_in(key, 0)),
            "gaussian": populations.gaussian(
                reference, self.settings.gaussian_networks, jax.random.fold_in(key, 1)
            ),
            "attribute_only": populations.untranslated(reference, "A", self.networks),
            "object_only": populations.untranslated(reference, "B", self.networks),
            **{
                evidence.GENERATED[domain]: populations.generate(reference, domain, pairs)
                for domain in ("B", "A")
            },
        }
        self.sizes = {
            name: self.networks if KINDS[name][0] == "generated" else len(params["dense"]["bias"])
            for name, params in self.params.items()
        }

    def _features(self, name: str, members: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Features of a population's networks of these numbers; by and by, see `measurements.Features`."""
        chosen = assemble.take_members(self.params[name], members)
        for part, _, found in features.population_outputs(
            data.NETWORK, chosen, self.reference.images, chunk_size=self.settings.chunk_size
        ):
            assert found is not None
            yield members[part], found

    def _checks(self) -> Record | None:
        """How far images, kernels and features are from an independent computation.

        Raises:
          UserError: further than rounding goes.
        """
        checks, images = self.reference.checks, self.reference.checked_images
        if images is None:
            return None
        ours = np.asarray(models.normalise_images(self.reference.images)).transpose(0, 3, 1, 2)
        found = {"images": populations.difference(ours, images), "kernels": 0.0, "features": 0.0}
        for check in checks:
            name = evidence.GENERATED[check.domain]
            member = assemble.take_members(self.params[name], check.model)
            ((_, values),) = self._features(name, np.array([check.model]))
            found["kernels"] = max(found["kernels"], populations.kernel_difference(member, check))
            found["features"] = max(found["features"], populations.difference(values[0], check.features))
        words = ", ".join(f"{name} {value:.1e}" for name, value in found.items())
        if not max(found.values()) <= TOLERANCE:
            raise UserError(
                f"what is assembled here is not what {data.FEATURES_FILE} has: largest differences {words}; "
                f"expected at most {TOLERANCE:.0e}. The files do not belong together, or a photograph "
                "changed."
            )
        print(
            f"{'':{WIDTH}s} equal to an independent computation of {len(checks)} networks up to {words}",
            file=sys.stderr,
        )
        return {**found, "networks": len(checks), "tolerance": TOLERANCE}

    # -- evaluation ---------------------------------------------------------------------------------------

    def _evaluate(self) -> tuple[Record, dict[str, np.ndarray]]:
        """Measures everything, and gives what `results.write_results` takes."""
        fixed = self._screen()
        names = [name for name in self.sizes if name != "gaussian"]
        whose = np.repeat(names, [self.sizes[name] for name in names])
        where = np.concatenate([np.arange(self.sizes[name]) for name in names])
        screened = {
            clusterer: np.concatenate([fixed[name][:, place, evidence.ACCURACY] for name in names])
            for place, clusterer in enumerate(protocol.CLUSTERERS)
        }
        judged, measured = self._judge(whose, where, screened)
        with self._staged("score", "evaluate"):
            reported = evidence.reported_best(self.reference.reported)
            picked, relabelled = evidence.picked_tests(
                whose,
                screened,
                judged,
                count=self.settings.picked,
                draws=self.settings.draws,
                seed=self.config.seed,
            )
            records = {name: self._record(name, values) for name, values in fixed.items()}
            reference = {
                "checks": self.checks,
                "zoos": {
                    kind: len(zoo["dense"]["bias"])
                    for kind, zoo in (("black", self.reference.black), ("cat", self.reference.cat))
                },
                "source_similarity": populations.source_similarity(
                    self.reference,
                    {domain: self.params[name] for domain, name in evidence.GENERATED.items()},
                ),
                "trivial": self._trivial(),
                "seeds": list(self.seeds),
                "kmeans_seeds": list(self.protocol.kmeans_seeds),
                "tuning_seeds": len(self.seeds[: self.settings.tuning_seeds]),
                "reported": reported,
                "rows": evidence.rows_beside(
                    self.reference.reported, measured, kmeans=len(self.protocol.kmeans_seeds)
                ),
                "fixed": evidence.fixed_tests(fixed, count=self.settings.picked, seed=self.config.seed),
                "picked": picked,
                "asked": self._asked(),
            }
            arrays = {
                f"accuracy/{clusterer}/{name}": values[:, place, evidence.ACCURACY]
                for name, values in fixed.items()
                for place, clusterer in enumerate(protocol.CLUSTERERS)
            }
            arrays |= {f"relabelled/{name}": values for name, values in relabelled.items()}
            arrays |= self._planes(whose, where, screened["kmeans"], reported.get("kmeans"))
            arrays["positive"] = self.reference.positive
        return self._document(records, reference), {f"black_cat/{name}": a for name, a in arrays.items()}

    def _screen(self) -> dict[str, np.ndarray]:
        """Figures of every network under the fixed protocol, ``(M, 3, 7)`` by population."""
        seeds = self.seeds[:1]
        total, done, fixed = sum(self.sizes.values()), 0, {}
        settings = self.protocol.with_one_seed()
        with self._staged("screen", "evaluate") as progress:
            for name, size in self.sizes.items():
                shown = _shifted(progress, done, total)
                found = self._measured(name, name, np.arange(size), seeds, settings, shown)
                fixed[name] = evidence.by_clusterer(found, 1)[:, 0]
                done += size
        return fixed

    def _judge(
        self, whose: np.ndarray, where: np.ndarray, screened: dict[str, np.ndarray]
    ) -> tuple[dict[str, np.ndarray], dict[tuple[str, int], np.ndarray]]:
        """Tunes, as the reference did, the networks that can be picked; measures those that it reports.

        Args:
          whose: population of each of all networks, ``(T,)``.
          where: its number there.
          screened: for each clusterer its accuracy under the fixed protocol.

        Returns:
          For each clusterer, tuned accuracy ``(T,)``, NaN for those that cannot be picked; and the reported
          networks' figures ``(S, K + 1 + D, 7)`` by population and number.
        """
        chosen = evidence.can_be_picked(whose, screened, count=self.settings.picked, seed=self.config.seed)
        judged = {clusterer: np.full(len(whose), np.nan) for clusterer in protocol.CLUSTERERS}
        measured: dict[tuple[str, int], np.ndarray] = {}
        reported = {(evidence.GENERATED[row.domain], row.model) for row in self.reference.reported}
        total, done = len(chosen) + len(reported), 0
        settings, kmeans = self.protocol, len(self.protocol.kmeans_seeds)
        tuning = self.seeds[: self.settings.tuning_seeds]
        with self._staged("judge", "evaluate") as progress:
            for name in dict.fromkeys(whose.tolist()):
                places = chosen[whose[chosen] == name]
                shown = _shifted(progress, done, total)
                found = self._measured(f"judged_{name}", name, where[places], tuning, settings, shown)
                best = evidence.by_clusterer(found, kmeans)[..., evidence.ACCURACY].max(axis=1)
                for number, clusterer in enumerate(protocol.CLUSTERERS):
                    judged[clusterer][places] = best[:, number]
                done += len(places)
            for name in evidence.GENERATED.values():
                members = np.array(sorted(number for of, number in reported if of == name), int)
                shown = _shifted(progress, done, total)
                found = self._measured(f"reported_{name}", name, members, self.seeds, settings, shown)
                measured |= {(name, int(m)): one for m, one in zip(members, found, strict=True)}
                done += len(members)
        return judged, measured

    def _measured(
        self,
        file: str,
        name: str,
        members: np.ndarray,
        seeds: tuple[int, ...],
        settings: protocol.Settings,
        progress: Callable[[int, int], None],
    ) -> np.ndarray:
        """Figures of these networks of a population, ``(m, S, K + 1 + D, 7)``."""
        return self.measurements.of(
            file,
            len(self.params[name]["dense"]["bias"]),
            members,
            lambda missing: self._features(name, missing),
            seeds,
            settings,
            progress,
        )

    def _trivial(self) -> Record:
        """What takes no network: a constant answer, a brightness, and the pixels for features."""
        images, positive = self.reference.images, self.reference.positive
        pixels = np.asarray(models.normalise_images(images)).reshape(1, len(images), -1)
        figures = self.measurements.of(
            "pixels",
            1,
            np.zeros(1, int),
            lambda missing: [(missing, pixels)],
            self.seeds[:1],
            self.protocol.with_one_seed(),
            lambda done, total: None,
        )
        found = evidence.by_clusterer(figures, 1)[0, 0, :, evidence.ACCURACY]
        return {
            "always_other": float(np.mean(~positive)),
            "central_brightness": evidence.central_brightness(images, positive),
            "pixels": dict(zip(protocol.CLUSTERERS, found.tolist(), strict=True)),
        }

    def _record(self, name: str, fixed: np.ndarray) -> Record:
        """A population's entry among the methods, as in every results file."""
        kind, description = KINDS[name]
        convolutions = {layer: self.params[name][layer] for layer in populations.LAYERS}
        members = np.arange(self.sizes[name])
        cosines = [
            similarity.cosine_similarity(found, self._quadrant) for _, found in self._features(name, members)
        ]
        return {
            "kind": kind,
            "description": description,
            "networks": self.sizes[name],
            "parameters": parameter_count((features.ConvNets(data.NETWORK, convolutions),)),
            "clustering": evidence.clusterings(fixed, seed=self.config.seed),
            "cosine_similarity": {
                figure: bootstrap.summary(
                    np.concatenate([getattr(part, figure) for part in cosines]), seed=self.config.seed
                )
                for figure in ("within", "across", "margin")
            },
        }

    def _asked(self) -> Record:
        """The photographs by the networks' own answers: no cluster, no test label, nothing chosen.

        Generated and random networks have both parents' heads; the parents are as trained, biases and all.
        """
        parents = {"attribute_only": self.reference.black, "object_only": self.reference.cat}
        members = np.arange(populations.pairs_of(self.reference))
        logits: dict[str, np.ndarray] = {}
        for name in KINDS:
            params = parents.get(name, self.params[name])
            chosen = members if name in parents else np.arange(self.sizes[name])
            logits[name] = features.population_logits(
                data.NETWORK,
                assemble.take_members(params, chosen),
                self.reference.images,
                chunk_size=self.settings.chunk_size,
            )
        logits["and_ensemble"] = np.concatenate([logits[name] for name in parents], axis=-1)
        found = {}
        for name, values in logits.items():
            answers, threshold = features.score(values)
            record = bootstrap.score_intervals(
                answers, self._quadrant, threshold=threshold, resamples=300, seed=self.config.seed
            )
            found[name] = {
                "networks": len(answers),
                "auroc": record["auroc"]["vs_rest"],
                "balanced_accuracy": record["balanced_accuracy"],
            }
        return found

    @property
    def _quadrant(self) -> np.ndarray:
        return np.where(self.reference.positive, scores.CONJUNCTION, scores.REST)

    def _planes(
        self, whose: np.ndarray, where: np.ndarray, screened: np.ndarray, reported: Record | None
    ) -> dict[str, np.ndarray]:
        """UMAP planes of the reported best, and of the best of each side under the fixed protocol."""
        shown: dict[str, tuple[str, int]] = {}
        if reported:
            title = f"reported: {reported['domain']}{reported['model']}"
            shown[title] = (evidence.GENERATED[reported["domain"]], reported["model"])
        generated = np.isin(whose, list(evidence.GENERATED.values()))
        for words, side in (("generated", generated), ("random kernels", whose == "random")):
            best = int(np.where(side, screened, -np.inf).argmax())
            shown[f"{words}: best of {side.sum():,}"] = (str(whose[best]), int(where[best]))
        planes = {}
        for title, (name, number) in shown.items():
            ((_, found),) = self._features(name, np.array([number]))
            planes[f"embedding/{title}"] = self.measurements.embedding(found[0], self.seeds[0])
        return planes

    def _document(self, records: Record, reference: Record) -> Record:
        positive, picked = self.reference.positive, reference["picked"]["random"]["kmeans"]
        return {
            "name": self.config.name,
            "protocol": "reference",
            "config": config_lib.to_json(self.config),
            "versions": environment.versions(),
            "seed": self.config.seed,
            "device": environment.device_words(),
            "command": self.command,
            "data": {"notes": list(self.reference.notes)},
            "pairs": [
                {
                    "pair": {"attribute": "black", "object": "cat"},
                    "data": {
                        "source": f"reference, {self.reference.layout}",
                        "test": {"a&o": int(positive.sum()), "rest": int((~positive).sum())},
                    },
                    "methods": records,
                    "null_test": {
                        "statistic": "mean accuracy of K-means on UMAP of the picked networks, tuned",
                        "method": "cyclegan",
                        "candidates": picked["candidates"],
                        "observed": picked["mean"]["generated"],
                        "null_mean": picked["mean"]["null"],
                        "p_value": picked["mean"]["p_value"],
                    },
                }
            ],
            "reference": reference,
        }


def _shifted(progress: Progress, before: int, total: int) -> Callable[[int, int], None]:
    """Progress of one population as that of all."""
    return lambda done, _: progress(before + done, total)
