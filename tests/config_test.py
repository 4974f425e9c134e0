import dataclasses
import importlib
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import default
from kernelgan import config as config_lib
from kernelgan import fields, population
from kernelgan.baselines.trained import CEILING_SHARES
from kernelgan.compare import Compared
from kernelgan.generators import FAMILIES
from kernelgan.results import Run
from kernelgan.types import UserError

DEFAULTS = dict(fields.flatten(default.get_config()))


def _with(**changes):
    """The default config with these fields, ``zoo__models=3``, whatever their type."""
    config = default.get_config()
    for name, value in changes.items():
        *sections, field = name.split("__")
        section = config
        for part in sections:
            section = section[part]
        section[field] = value
    return config


def _planted(field, value):
    return _with(**{field.replace(".", "__"): value})


def _problems(config):
    """The lines about fields of a config that is refused."""
    with pytest.raises(UserError) as caught:
        config_lib.parse(config)
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


def _bad_values(field, default_value):
    """Values of another type, and of the same type out of range."""
    if field in ("pairs.attributes", "pairs.objects"):
        return ["black", (), ("black", "black"), ("",), (1,)]
    if field == "baselines.methods":
        return ["average", ("averages",), ("average", "average"), (1,), None]
    if isinstance(default_value, tuple):
        return [0, "3", (), (0, 0), ("a", "b"), (float("nan"), 1), None, True]
    if isinstance(default_value, bool):
        return [1, "True", None]
    if isinstance(default_value, str):
        return [3, None]
    values = ["3", None, float("nan"), float("inf"), (1,)]
    # A ConfigDict makes a float of a whole number, and of True, where the default is a float.
    return [*values, -1, True] if isinstance(default_value, int) else [*values, -1.0]


@pytest.mark.parametrize("field", DEFAULTS)
def test_each_field_refuses_bad_values_by_its_name(field):
    for value in _bad_values(field, DEFAULTS[field]):
        (line,) = _problems(_planted(field, value))
        assert line.startswith(f"{field} is {value!r}; expected ")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("device", "tpu"),
        ("pairs.exclude", "none"),
        ("data.source", "imagenet"),
        ("generators.cyclegan.normalisation", "whiten"),
        ("generators.cyclegan.bias", "mean"),
        ("generators.cyclegan.epochs", (1.5,)),
        ("baselines.random_bias", "mean"),
        ("name", ""),
        ("zoo.models", 1),
        ("zoo.models", 2.0),
        ("zoo.object_models", 1),
        ("zoo.balanced", 0),
        ("zoo.learning_rate", 0.0),
        ("zoo.batch_size", 4),
        ("data.validation_share", 1.0),
        ("data.broken_share", 1.0),
        ("evaluate.svm_nu", 1.5),
        ("checkpoint.steps", 0),
        ("seed", 2**31),
    ],
)
def test_values_just_out_of_range_are_refused(field, value):
    (line,) = _problems(_planted(field, value))
    assert line.startswith(f"{field} is {value!r}; ")


@pytest.mark.parametrize(
    ("field", "value", "parsed"),
    [
        ("generators.cyclegan.identity_weight", 5, 5.0),
        ("generators.cyclegan.epochs", 3, (3,)),
        ("generators.cyclegan.epochs", [1, 1], (1, 1)),
        ("generators.cyclegan.learning_rate", (1, 0.5), (1.0, 0.5)),
        ("zoo.object_models", 40, 40),
        ("zoo.batch_size", 5, 5),
        ("zoo.learning_rate", 1, 1.0),
        ("data.broken_share", 0, 0.0),
        ("evaluate.svm_nu", 1, 1.0),
        ("seed", 2**31 - 1, 2**31 - 1),
        ("pairs.attributes", ["black", "red"], ("black", "red")),
        ("model.filters", [4], (4,)),
    ],
)
def test_values_just_in_range_get_the_type_of_the_field(field, value, parsed):
    found = dict(fields.flatten(config_lib.parse(_planted(field, value))))[field]
    assert (found, type(found)) == (parsed, type(parsed))
    if isinstance(parsed, tuple):
        assert list(map(type, found)) == list(map(type, parsed))


@pytest.mark.parametrize("shares", [CEILING_SHARES, (1, 1, 1), (1, 1)])
def test_the_smallest_batch_has_a_place_for_every_group(shares):
    sizes = range(5, 65)
    counts = [np.bincount(population.batch_pattern(shares, size), minlength=len(shares)) for size in sizes]
    assert np.min(counts) >= 1


def test_a_smaller_batch_would_never_draw_a_quadrant():
    with pytest.raises(UserError, match=r"zoo\.batch_size is 4 .*at least 5"):
        population.batch_pattern(CEILING_SHARES, 4)
    assert "trained_on_conjunction" in _problems(_with(zoo__batch_size=4))[0]


@pytest.mark.parametrize(
    ("section", "known"), [("zoo", "models"), ("data__tfds", "data_dir"), ("generators__cyclegan", "hidden")]
)
def test_an_unknown_field_is_named_with_the_known_ones(section, known):
    (line,) = _problems(_with(**{f"{section}__hiden": 3}))
    name, _, rest = line.partition(": unknown field; known are ")
    assert name == f"{section.replace('__', '.')}.hiden"
    assert known in rest.split(", ")


@pytest.mark.parametrize("field", [*DEFAULTS, "zoo", "data.rendered", "generators"])
def test_a_missing_field_or_section_is_named(field):
    config = default.get_config()
    *sections, name = field.split(".")
    section = config
    for part in sections:
        section = section[part]
    del section[name]
    (line,) = _problems(config)
    assert line.startswith(f"{field}: missing; expected ")


@pytest.mark.parametrize("field", ["zoo", "data.tfds", "generators", "generators.cyclegan"])
def test_a_value_in_place_of_a_section_is_named(field):
    (line,) = _problems(_planted(field, 3))
    assert line.startswith(f"{field} is 3; expected ")


def test_a_config_needs_generators_and_each_a_known_family():
    (line,) = _problems(_with(generators=ConfigDict()))
    assert line.startswith("generators is {}; ")
    assert "cyclegan" in line
    (line,) = _problems(_with(generators__nosuch=ConfigDict()))
    assert line == f"generators.nosuch: unknown family; known are {', '.join(FAMILIES)}"


def test_every_problem_is_reported_at_once():
    config = _with(zoo__models=0, device="tpu", extra=1, generators__cyclegan__hidden=0, zoo__modles=1)
    assert {line.split()[0].rstrip(":") for line in _problems(config)} == {
        *("zoo.models", "device", "extra", "generators.cyclegan.hidden", "zoo.modles")
    }


@pytest.mark.parametrize(
    ("changes", "batch", "fact"),
    [
        ({"generators__cyclegan__batch_size": (8, 9)}, (8, 8), "zoo has 8"),
        ({"generators__cyclegan__batch_size": 9}, (8,), "instead of 9"),
        ({"zoo__object_models": 4}, (4,), "zoo has 4"),
        ({"zoo__models": 16}, (8,), ""),
    ],
)
def test_a_generators_batch_has_at_most_the_smaller_zoos_networks_and_a_note_says_so(changes, batch, fact):
    config = _with(**changes)
    settings = config_lib.parse(config)
    assert settings.generators["cyclegan"].batch_size == batch
    notes = config_lib.caps(config, settings)
    assert len(notes) == bool(fact)
    assert all(fact in note and "generators.cyclegan.batch_size" in note for note in notes)
    assert config_lib.caps(settings, settings) == []


@pytest.mark.parametrize(
    ("changes", "facts"),
    [
        ({"model__filters": (6, 16, 32)}, ("data.image_size is 32", "3 convolutions of 5")),
        ({"data__image_size": 12}, ("data.image_size is 12",)),
        ({"model__kernel_size": 33}, ("data.image_size is 32", "33 pixels")),
        (
            {"generators__cyclegan__epochs": (1, 1, 1)},
            ("generators.cyclegan.epochs is (1, 1, 1)", "2 values"),
        ),
        ({"model__filters": (6,), "generators__cyclegan__batch_size": (1, 1)}, ("batch_size is (1, 1)",)),
        ({"zoo__images_per_epoch": 32}, ("zoo.batch_size is 64", "32 images")),
        ({"zoo__object_images_per_epoch": 32}, ("zoo.batch_size is 64", "32 images")),
        ({"baselines__images_per_epoch": 32}, ("zoo.batch_size is 64", "32 images")),
        ({"data__source": "folder"}, ("data.folder is empty", "--config.data.folder=DIR")),
        ({"data__folder": "mine"}, ("'mine'", "'rendered'", "black_cat.py:folder")),
        ({"pairs__attributes": ("(striped,)",)}, ("pairs.attributes", "(striped,)", "('black', 'white')")),
        ({"pairs__attributes": ("a", "a_b"), "pairs__objects": ("b_c", "c")}, ("pairs.attributes",)),
        ({"evaluate__umap_networks": 40}, ("umap_networks is 40", "clustered_networks, 32")),
    ],
)
def test_fields_that_contradict_each_other_are_refused(changes, facts):
    line = _problems(_with(**changes))[0]
    assert all(fact in line for fact in facts)


@pytest.mark.parametrize(("filters", "kernel"), [((4,), 5), ((4, 4), 5), ((4, 4, 4), 3)])
def test_any_number_of_layers_is_accepted(filters, kernel):
    settings = config_lib.parse(_with(model__filters=filters, model__kernel_size=kernel))
    assert fields.each_layer(settings.generators["cyclegan"].epochs, len(filters)) == (250,) * len(filters)


@pytest.mark.parametrize("value", [7, (7,), (7, 7)])
def test_a_value_for_all_layers_is_a_value_for_each(value):
    assert fields.each_layer(value, 2) == (7, 7)
    with pytest.raises(ValueError, match="3 layers"):
        fields.each_layer((7, 7), 3)


def test_settings_and_the_config_have_the_same_fields_and_json():
    config = _with(generators__cyclegan__epochs=(3, 2))
    settings = config_lib.parse(config)
    assert dict(fields.flatten(settings)) == dict(fields.flatten(config))
    assert config_lib.to_json(settings) == config_lib.to_json(config)
    assert config_lib.parse(config_lib.to_json(settings)) == config_lib.parse(settings) == settings


def test_settings_made_by_hand_are_checked_too():
    settings = config_lib.Settings(zoo=dataclasses.replace(config_lib.Zoo(), models=0))
    assert _problems(settings)[0].startswith("zoo.models is 0; ")


def test_the_listing_has_every_field_with_its_default_and_meaning():
    lines = config_lib.listing().splitlines()
    for field, value in DEFAULTS.items():
        place = lines.index(f"{field} = {value!r}")
        assert lines[place + 1].strip()


@pytest.mark.parametrize("size", [16, 17, 32])
def test_the_smallest_images_are_those_that_leave_a_pixel(size):
    assert config_lib.parse(_with(data__image_size=size)).data.image_size == size


def test_differences_name_changed_fields_and_leave_harmless_ones():
    theirs = config_lib.to_json(default.get_config())
    ours = config_lib.to_json(_with(zoo__models=5, device="cpu", checkpoint__seconds=3.0))
    assert config_lib.differences(theirs, theirs) == []
    (line,) = config_lib.differences(ours, theirs)
    assert line == f"zoo.models: {DEFAULTS['zoo.models']} there, 5 now"


def test_differences_name_fields_that_only_one_has():
    theirs = config_lib.to_json(default.get_config())
    ours = config_lib.to_json(_with(extra=1))
    assert config_lib.differences(ours, theirs) == ["extra: 'absent' there, 1 now"]
    assert config_lib.differences(theirs, ours) == ["extra: 1 there, 'absent' now"]


def test_a_field_that_is_new_and_at_its_default_is_no_difference():
    ours = config_lib.to_json(default.get_config("cyclegan", "reduce"))
    theirs = config_lib.to_json(default.get_config("cyclegan", "reduce"))
    del theirs["generators"]["reduce"]["whole_zoo"], theirs["zoo"]["decay"]
    assert config_lib.differences(ours, theirs) == []
    ours["generators"]["reduce"]["whole_zoo"] = True
    assert config_lib.differences(ours, theirs) == ["generators.reduce.whole_zoo: False there, True now"]
    del theirs["data"]["tfds"]  # a section that is new
    assert len(config_lib.differences(ours, theirs)) == 1
    ours["data"]["tfds"]["name"] = "another"
    (line, _) = config_lib.differences(ours, theirs)
    assert line == f"data.tfds.name: {DEFAULTS['data.tfds.name']!r} there, 'another' now"
    ours["data"]["tfds"]["name"] = DEFAULTS["data.tfds.name"]
    del theirs["generators"]["reduce"]  # a family that was not there is a difference
    assert len(config_lib.differences(ours, theirs)) == len(ours["generators"]["reduce"])


def test_a_run_of_before_a_section_is_compared_with_its_defaults():
    whole = config_lib.to_json(default.get_config("reduce"))
    older = {name: value for name, value in whole.items() if name != "checkpoint"} | {
        "data": {name: value for name, value in whole["data"].items() if name != "tfds"}
    }
    recorded = [Compared("run", Path(), Run(config=config, pairs=())).recorded for config in (whole, older)]
    assert recorded[0] == recorded[1]
    assert not any(name.startswith("generators.cyclegan") for name in recorded[1])


def _shipped():
    for path in sorted(Path(default.__file__).parent.glob("*.py")):
        if path.stem != "__init__":
            module = importlib.import_module(f"configs.{path.stem}")
            for variant in getattr(module, "VARIANTS", ("",)):
                yield pytest.param(module, variant, id=f"{path.stem}:{variant}")


@pytest.mark.parametrize(("module", "variant"), _shipped())
def test_every_shipped_config_is_usable(module, variant):
    config = module.get_config(variant) if variant else module.get_config()
    if config.data.source == "folder":  # the user names it
        with pytest.raises(UserError, match=r"--config\.data\.folder=DIR"):
            config_lib.parse(config)
        config.data.folder = "somewhere"
    assert config_lib.parse(config).name == config.name


def test_shipped_configs_have_names_of_their_own():
    names = [module.values[0].get_config(*filter(None, module.values[1:])).name for module in _shipped()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("name", "known"), [("black_cat", "photos"), ("pair_matrix", "photos")])
def test_an_unknown_variant_is_refused_with_the_known_ones(name, known):
    module = importlib.import_module(f"configs.{name}")
    with pytest.raises(ValueError, match=rf"no variant 'nosuch'; known .*'{known}'"):
        module.get_config("nosuch")
