"""The config of a run: every field with its default, check and meaning, and the checks across fields.

A run is given an ``ml_collections.ConfigDict`` from ``configs/``; `parse` makes `Settings` of it. Both have
the same attributes, such as ``config.zoo.models``. ``python -m kernelgan.config`` lists every field.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from kernelgan import assemble, fields, models
from kernelgan import splits as splits_lib
from kernelgan.baselines.methods import BASELINES
from kernelgan.fields import flatten, section, setting
from kernelgan.files import given_path
from kernelgan.generators import FAMILIES
from kernelgan.stopping import outlast_readers
from kernelgan.types import Config, UserError

HARMLESS = ("checkpoint.seconds", "device", "registry")
"""Fields that may differ between a run and its resumption: they do not change what is computed."""

FamilyConfig = Any
"""The ``Config`` dataclass of a family of generators."""

_BATCH = fields.whole(5)._replace(
    words="a whole number of at least 5: a smaller batch has no place for one of the 4 quadrants that "
    "`trained_on_conjunction` draws from, in the shares 3 : 1 : 1 : 1"
)
_FAMILIES = fields.Rule(
    lambda value: fields.is_section(value) and len(value) > 0,
    f"at least one family of generators, with its fields; known are {', '.join(FAMILIES)}",
)


@dataclasses.dataclass(frozen=True)
class Pairs:
    """What is composed: every attribute with every object."""

    attributes: tuple[str, ...] = setting(("black",), fields.names, "attributes; a single one is usual")
    objects: tuple[str, ...] = setting(("cat",), fields.names, "objects; a single one is usual")
    exclude: str = setting(
        "own",
        fields.one_of("own", "all", "groups"),
        "which objects an attribute's zoo never sees, and which attributes an object's: 'own': the pair's; "
        "'all': all of the config, so that one zoo serves all pairs of its concept; 'groups': pairs.group at "
        "once, so that one zoo serves the pairs with any of these",
    )
    group: int = setting(2, fields.whole(1), "concepts that a zoo excludes at once, for exclude='groups'")
    skip_rare: bool = setting(
        False,
        fields.truth,
        "leave out a pair with fewer images than data.minimum_train or data.minimum_test; False: refuse it",
    )
    splits: str = setting(
        "",
        fields.text,
        "a file that says which folds of pairs are sealed, such as configs/splits/cifar10.json; a run on "
        "sealed pairs needs a registry; '': no pair is sealed",
    )
    folds: str = setting(
        "all", fields.one_of(*splits_lib.USES), "which folds of pairs.splits the run takes its pairs from"
    )


@dataclasses.dataclass(frozen=True)
class Rendered:
    """The images that the package renders."""

    train: int = setting(24_000, fields.whole(1), "images for training and validation")
    test: int = setting(1200, fields.whole(1), "images for the test")


@dataclasses.dataclass(frozen=True)
class Tfds:
    """Photographs from TensorFlow Datasets."""

    name: str = setting("cifar10", fields.text, "a name in kernelgan.data.tfds.SPECS")
    data_dir: str = setting(
        "", fields.text, "where the data set is prepared; '': $TFDS_DATA_DIR, or the default of TFDS"
    )


@dataclasses.dataclass(frozen=True)
class Data:
    """The images."""

    source: str = setting("rendered", fields.one_of("rendered", "tfds", "folder"), "where images come from")
    image_size: int = setting(
        32, fields.whole(1), "pixels a side; images of another size are resized (bilinear)"
    )
    validation_share: float = setting(
        0.15, fields.between(0, 1), "share of the training images kept for validation"
    )
    minimum_train: int = setting(
        32, fields.whole(1), "fewest training images in each quadrant that a zoo learns from"
    )
    minimum_test: int = setting(20, fields.whole(2), "fewest test images in a quadrant that is scored")
    maximum_train: int = setting(0, fields.whole(0), "most training images in a quadrant; 0: all")
    maximum_test: int = setting(0, fields.whole(0), "most test images in a quadrant; 0: all")
    folder: str = setting(
        "", fields.text, "for source='folder': a directory in the layout that README.md describes"
    )
    broken_share: float = setting(
        0.05,
        fields.between(0, 1, with_low=True),
        "for source='folder': largest share of unreadable files that is skipped",
    )
    rendered: Rendered = section(Rendered)
    tfds: Tfds = section(Tfds)


@dataclasses.dataclass(frozen=True)
class Model:
    """The networks of all zoos."""

    filters: tuple[int, ...] = setting(
        (6, 16), fields.each(fields.whole(1)), "filters of each convolutional layer"
    )
    kernel_size: int = setting(5, fields.whole(1), "pixels a side of each kernel")


@dataclasses.dataclass(frozen=True)
class Zoo:
    """The parents: a population of networks for each concept."""

    models: int = setting(8, fields.whole(2), "networks in the zoo of each attribute")
    object_models: int = setting(
        0, fields.whole_or_zero(2), "networks in the zoo of each object; 0: as many as for an attribute"
    )
    epochs: int = setting(24, fields.whole(1), "epochs")
    images_per_epoch: int = setting(
        2560,
        fields.whole(1),
        "images drawn anew for each network and epoch; a class that is used up is used again",
    )
    object_images_per_epoch: int = setting(
        0, fields.whole(0), "the same for zoos of objects; 0: as many as for an attribute"
    )
    batch_size: int = setting(64, _BATCH, "images in a batch, of zoos and of baselines")
    learning_rate: float = setting(0.004, fields.positive, "of Adam")
    decay: bool = setting(
        True,
        fields.truth,
        "the learning rate falls linearly to zero over the epochs, of zoos and of baselines",
    )
    balanced: bool = setting(
        True, fields.truth, "half of each batch holds the concept; False: as the data come (the original)"
    )
    validation_images: int = setting(512, fields.whole(2), "most images that are read after each epoch")
    chunk_size: int = setting(
        0,
        fields.whole(0),
        "networks in memory at a time, over all devices; 0: as many as fit a GPU, 32 on a CPU",
    )
    attribute_file: str = setting(
        "",
        fields.text,
        "weights of an attribute's zoo trained elsewhere (.safetensors, .npz or a directory of .pth), used "
        "instead of training; '': train",
    )
    object_file: str = setting("", fields.text, "the same for an object's zoo")
    attribute_positive: int = setting(
        1, fields.whole(0, 1), "which logit of the networks in attribute_file says that the attribute holds"
    )
    object_positive: int = setting(1, fields.whole(0, 1), "the same for object_file")


@dataclasses.dataclass(frozen=True)
class Baselines:
    """Random networks and networks trained by gradient, which generated networks are compared with."""

    methods: tuple[str, ...] = setting(
        (),
        fields.some_of(*BASELINES),
        "baselines that are measured beside `random` and both parents; (): all. Without a null or a merge "
        "that the generated networks must beat there is no verdict",
    )
    models: int = setting(8, fields.whole(1), "networks of each baseline that is trained by gradient")
    epochs: int = setting(24, fields.whole(1), "epochs of `distilled` and `trained_on_conjunction`")
    images_per_epoch: int = setting(2560, fields.whole(1), "images of an epoch of these two")
    learning_rate: float = setting(
        0.004, fields.positive, "of Adam, for these two; batch size and decay are those of the zoo"
    )
    random_networks: int = setting(256, fields.whole(2), "networks of each of `random` and `gaussian`")
    random_bias: str = setting(
        "zero", fields.one_of(*assemble.BIASES), "biases of these: 'zero', or 'parent': of the parents"
    )


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Intervals and clusterings."""

    bootstrap: int = setting(1000, fields.whole(2), "resamples behind each 95% interval")
    clustered_networks: int = setting(
        32, fields.whole(1), "networks of each method, the first, for K-means and cosine similarities"
    )
    umap_networks: int = setting(
        1, fields.whole(0), "networks of each method that are embedded: the first, not the best"
    )
    umap_images: int = setting(
        240, fields.whole(16), "test images that are embedded, the same number of each quadrant"
    )
    umap_neighbours: int = setting(15, fields.whole(2), "neighbours of UMAP")
    dbscan_radius: float = setting(
        0.2, fields.positive, "radius of DBSCAN, in standard deviations of the embedding"
    )
    dbscan_minimum_samples: int = setting(5, fields.whole(1), "minimum samples of DBSCAN")
    svm_nu: float = setting(0.1, fields.between(0, 1, with_high=True), "nu of the one-class SVM")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Saves in the middle of a stage."""

    seconds: float = setting(20.0, fields.not_negative, "least time between two saves, in seconds")
    steps: int = setting(
        25, fields.whole(1), "generator steps between two looks at the losses and a possible save"
    )


def _cyclegan() -> dict[str, FamilyConfig]:
    return {"cyclegan": FAMILIES["cyclegan"].Config()}


@dataclasses.dataclass(frozen=True)
class Settings:
    """The config of a run."""

    name: str = setting("default", fields.title, "names the default work directory, runs/<name>")
    seed: int = setting(0, fields.whole(0, 2**31 - 1), "every random number of the run is derived from it")
    device: str = setting(
        "auto", fields.one_of("auto", "cpu", "gpu"), "an absent device that is asked for is an error"
    )
    registry: str = setting(
        "",
        fields.text,
        "a CSV file in which every run on sealed test images is registered, such as docs/attempts.csv; "
        "p-values count the attempts; '': the test images are not sealed",
    )
    trainings: int = setting(
        1,
        fields.whole(1),
        "times that each generator with steps is trained, from other starts; a claim needs 3",
    )
    pairs: Pairs = section(Pairs)
    data: Data = section(Data)
    model: Model = section(Model)
    zoo: Zoo = section(Zoo)
    generators: dict[str, FamilyConfig] = dataclasses.field(
        default_factory=_cyclegan, metadata={"rule": _FAMILIES}
    )
    baselines: Baselines = section(Baselines)
    evaluate: Evaluate = section(Evaluate)
    checkpoint: Checkpoint = section(Checkpoint)


def default(*families: str) -> ConfigDict:
    """The default of every field.

    Values are checked by `parse` and not by the ``ConfigDict``, so that a number may become a tuple.

    Args:
      families: names in ``kernelgan.generators.FAMILIES``; none: the CycleGANs.
    """
    settings = Settings()
    if families:
        settings = dataclasses.replace(
            settings, generators={name: FAMILIES[name].Config() for name in families}
        )
    return ConfigDict(fields.plain(settings), type_safe=False)


def parse(config: Config) -> Settings:
    """Checks a config.

    Args:
      config: a ``ConfigDict`` or another nested mapping, or `Settings`.

    Raises:
      UserError: with every field that is unknown, missing or out of range, or, if there is none, with all
        fields that contradict each other: what each is and what was expected.
    """
    values = fields.plain(config)
    problems = fields.problems(Settings, values)
    families = values.get("generators")
    if fields.is_section(families):
        for name, given in families.items():
            if name in FAMILIES:
                problems += fields.problems(FAMILIES[name].Config, given, f"generators.{name}.")
            else:
                problems.append(f"generators.{name}: unknown family; known are {', '.join(FAMILIES)}")
    if not problems:
        built = {name: fields.build(FAMILIES[name].Config, given) for name, given in families.items()}
        settings = dataclasses.replace(fields.build(Settings, values), generators=built)
        settings = _with_batches_that_fit(settings)
        problems = list(_disagreements(settings))
    if problems:
        raise UserError("The config is not usable:\n  " + "\n  ".join(problems))
    return settings


def _with_batches_that_fit(settings: Settings) -> Settings:
    """A batch of a generator is of at most as many networks as the smaller zoo has."""
    most = min(zoo_models(settings))
    families = dict(settings.generators)
    for name, family in families.items():
        batch = getattr(family, "batch_size", None)
        if isinstance(batch, tuple) and max(batch, default=0) > most:
            families[name] = dataclasses.replace(family, batch_size=tuple(min(size, most) for size in batch))
    return dataclasses.replace(settings, generators=families)


def _largest(value: Any) -> int:  # noqa: ANN401
    """Of a number, or of some."""
    return value if isinstance(value, int) else max(value, default=0)


def caps(config: Config, settings: Settings) -> list[str]:
    """What `parse` made smaller than the config asks for, in words."""
    fewest = min(zoo_models(settings))
    given = fields.plain(config)["generators"]
    return [
        f"generators.{name}.batch_size is {family.batch_size} instead of {given[name]['batch_size']}, for "
        f"the smaller zoo has {fewest} networks"
        for name, family in settings.generators.items()
        if _largest(given[name].get("batch_size", 0)) > _largest(getattr(family, "batch_size", 0))
    ]


def _disagreements(config: Settings) -> Iterator[str]:
    """Fields that are sound alone and contradict each other."""
    layers = len(config.model.filters)
    network = models.ConvNet(config.model.filters, config.model.kernel_size)
    if models.last_side(network, config.data.image_size) < 1:
        yield (
            f"data.image_size is {config.data.image_size}: nothing is left of an image after {layers} "
            f"convolutions of {config.model.kernel_size} pixels and poolings; expected a larger image_size, "
            "a smaller model.kernel_size or fewer model.filters"
        )
    pairs = [f"{a}_{o}" for a in config.pairs.attributes for o in config.pairs.objects]
    if len(set(pairs)) < len(pairs):
        yield "pairs.attributes and pairs.objects join to the same name twice; expected names that do not"
    yield from splits_lib.problems(config)
    fewest = min(*images_per_epoch(config), config.baselines.images_per_epoch)
    if config.zoo.batch_size > fewest:
        yield (
            f"zoo.batch_size is {config.zoo.batch_size}, more than the {fewest} images of an epoch "
            "(zoo.images_per_epoch, baselines.images_per_epoch)"
        )
    if config.evaluate.umap_networks > config.evaluate.clustered_networks:
        yield (
            f"evaluate.umap_networks is {config.evaluate.umap_networks}, more than "
            f"evaluate.clustered_networks, {config.evaluate.clustered_networks}; expected no more"
        )
    for kind in ("attribute", "object"):
        file, named = getattr(config.zoo, f"{kind}_file"), getattr(config.pairs, f"{kind}s")
        if file and len(named) > 1:
            yield (
                f"zoo.{kind}_file is {file!r}, a zoo of a single {kind}, but pairs.{kind}s names "
                f"{len(named)}; expected a single {kind}"
            )
        try:
            is_there = not file or given_path(file, f"zoo.{kind}_file").exists()
        except UserError as error:
            yield str(error)
            continue
        if not is_there:
            yield f"zoo.{kind}_file is {file!r}, which does not exist; expected .safetensors, .npz, .pth"
    if config.data.source == "folder" and not config.data.folder:
        yield "data.folder is empty; expected the directory of your images: --config.data.folder=DIR"
    if config.data.folder and config.data.source != "folder":
        yield (
            f"data.folder is {config.data.folder!r}, but data.source is {config.data.source!r}, which reads "
            "no folder; expected --config=configs/black_cat.py:folder or --config.data.source=folder"
        )
    for name, family in config.generators.items():
        yield from (f"generators.{name}.{line}" for line in family_problems(config, name, family))


def family_problems(config: Config, name: str, family: Any) -> list[str]:  # noqa: ANN401
    """What in a family's settings contradicts the rest of the config; lines that begin with a field's name.

    Args:
      config: the other settings.
      name: of the family.
      family: its settings.
    """
    layers = len(config.model.filters)
    wrong = list(fields.layer_problems(family, layers))
    check = getattr(FAMILIES[name], "problems", None)
    if check and not wrong:
        wrong = list(check(family, layers=layers, models=zoo_models(config)))
    return wrong


def zoo_models(config: Config) -> tuple[int, int]:
    """Networks in an attribute's and in an object's zoo."""
    return config.zoo.models, config.zoo.object_models or config.zoo.models


def images_per_epoch(config: Config) -> tuple[int, int]:
    """Images of an epoch in an attribute's and in an object's zoo."""
    return config.zoo.images_per_epoch, config.zoo.object_images_per_epoch or config.zoo.images_per_epoch


def to_json(config: Config) -> dict[str, Any]:
    """A config, or `Settings`, as nested dicts of what JSON knows: tuples become lists."""
    return json.loads(json.dumps(fields.plain(config)))


def with_defaults(flat: Mapping[str, Any]) -> dict[str, Any]:
    """A flat plain config with the defaults of fields and sections that it lacks: versions add some.

    The section of a generator that it has not is not added, for that generator does not run.
    """
    sections = {name.rpartition(".")[0] for name in flat}
    return {
        name: value
        for name, value in _defaults().items()
        if not name.startswith("generators.") or name.rpartition(".")[0] in sections
    } | dict(flat)


@functools.cache
def _defaults() -> dict[str, Any]:
    families = {name: family.Config() for name, family in FAMILIES.items()}
    return dict(flatten(to_json(Settings(generators=families))))


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Fields in which two plain configs would compute different things, as ``field: theirs, now ours``.

    A field or a section that one does not know has its defaults there, see `with_defaults`.
    """
    a, b = (with_defaults(dict(flatten(one))) for one in (ours, theirs))
    return [
        f"{name}: {b.get(name, 'absent')!r} there, {a.get(name, 'absent')!r} now"
        for name in sorted(a.keys() | b.keys())
        if a.get(name, "absent") != b.get(name, "absent") and not name.startswith(HARMLESS)
    ]


def listing() -> str:
    """Every field, a paragraph each: its name, default, meaning and what it accepts."""
    families = {name: family.Config() for name, family in FAMILIES.items()}
    found = fields.documented(Settings(generators=families))
    return "\n".join(f"{name} = {value!r}\n    {doc}\n    ({words})" for name, value, doc, words in found)


if __name__ == "__main__":
    outlast_readers()
    print(listing())
