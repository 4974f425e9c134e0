import importlib
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from configs import default
from kernelgan import config as config_lib
from kernelgan.types import UserError

DEFAULTS = dict(config_lib.flatten(default.get_config()))


def _with(given=None, /, **changes):
    """The default config, or a given one, with these fields, ``zoo__models=3``, whatever their type."""
    config = ConfigDict((given or default.get_config()).to_dict(), type_safe=False)
    for name, value in changes.items():
        *sections, field = name.split("__")
        section = config
        for part in sections:
            section = section[part]
        section[field] = value
    return config


def _planted(field, value, given=None):
    return _with(given, **{field.replace(".", "__"): value})


def _bad_values(field, default_value):
    """Values of another type, and of the same type out of range."""
    if field in ("pairs.attributes", "pairs.objects"):
        return ["black", (), ("black", "black"), ("",), (1,)]
    if isinstance(default_value, tuple):
        return [3, (), (0, 0), ("a", "b"), (float("nan"), 1)]
    if isinstance(default_value, bool):
        return [1, "True", None]
    if isinstance(default_value, str):
        return [3, None]
    return [-1, "3", None, float("nan"), float("inf")]


def test_every_field_has_a_rule_and_every_rule_a_field():
    assert set(DEFAULTS) == set(config_lib.RULES)


def test_the_default_is_usable():
    config_lib.check(default.get_config())


@pytest.mark.parametrize("field", config_lib.RULES)
def test_each_rule_refuses_bad_values_and_names_the_field(field):
    for value in _bad_values(field, DEFAULTS[field]):
        config = _planted(field, value)
        planted = dict(config_lib.flatten(config))[
            field
        ]  # a ConfigDict makes a float of -1, of a list a tuple
        with pytest.raises(UserError) as caught:
            config_lib.check(config)
        (line,) = str(caught.value).splitlines()[1:]
        assert line.strip().startswith(f"{field} is {planted!r}; expected ")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("device", "tpu"),
        ("pairs.exclude", "none"),
        ("data.source", "imagenet"),
        ("kernels.normalisation", "whiten"),
        ("assemble.bias", "mean"),
        ("name", ""),
        ("zoo.models", 0),
        ("zoo.models", 2.0),
        ("zoo.models", True),
        ("zoo.balanced", 0),
        ("zoo.learning_rate", 0.0),
        ("data.validation_share", 1.0),
        ("data.broken_share", 1.0),
        ("evaluate.svm_nu", 1.5),
        ("seed", 2**31),
    ],
)
def test_values_just_out_of_range_are_refused(field, value):
    with pytest.raises(UserError, match=field):
        config_lib.check(_planted(field, value))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cyclegan.identity_weight", 5),
        ("zoo.object_models", 40),
        ("data.broken_share", 0),
        ("evaluate.svm_nu", 1),
        ("seed", 2**31 - 1),
        ("pairs.attributes", ["black", "red"]),
        ("cyclegan.epochs", [1, 1]),
    ],
)
def test_values_just_in_range_are_taken(field, value):
    config_lib.check(_planted(field, value))


def test_an_unknown_field_is_named():
    with pytest.raises(UserError, match=r"zoo\.modles: unknown field"):
        config_lib.check(_with(zoo__modles=3))


def test_a_missing_field_is_named_with_what_was_expected():
    config = default.get_config()
    del config.zoo["models"]
    with pytest.raises(UserError, match=r"zoo\.models: missing; expected a whole number of at least 2"):
        config_lib.check(config)


def test_every_problem_is_reported_at_once():
    with pytest.raises(UserError) as caught:
        config_lib.check(_with(zoo__models=0, device="tpu", extra=1))
    message = str(caught.value)
    assert all(field in message for field in ("zoo.models", "device", "extra"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__filters": (6, 16, 32)}, r"model\.filters is \(6, 16, 32\)"),
        ({"cyclegan__epochs": (1,)}, r"cyclegan\.epochs is \(1,\); expected 2 values"),
        ({"cyclegan__batch_size": (1, 1, 1)}, r"cyclegan\.batch_size is \(1, 1, 1\)"),
        ({"cyclegan__learning_rate": (0.1,)}, r"cyclegan\.learning_rate is \(0\.1,\)"),
        ({"data__image_size": 12}, r"data\.image_size is 12: nothing is left"),
        ({"model__kernel_size": 33}, r"data\.image_size is 32: nothing is left"),
        ({"cyclegan__batch_size": (16, 33)}, r"cyclegan\.batch_size is 33 for layer 2"),
        ({"zoo__object_models": 8}, r"cyclegan\.batch_size is 16 for layer 1, but the smaller zoo has 8"),
        ({"zoo__images_per_epoch": 64}, r"zoo\.batch_size is 128, more than the 64"),
        ({"zoo__object_images_per_epoch": 64}, r"zoo\.batch_size is 128, more than the 64"),
        ({"data__source": "folder"}, r"data\.folder is empty"),
    ],
)
def test_fields_that_do_not_fit_each_other_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        config_lib.check(_with(**changes))


@pytest.mark.parametrize("size", [16, 17, 32])
def test_the_smallest_images_are_those_that_leave_a_pixel(size):
    config_lib.check(_with(data__image_size=size))


def test_objects_zoos_are_as_the_attributes_unless_told_otherwise():
    assert config_lib.zoo_models(_with(zoo__models=5)) == (5, 5)
    assert config_lib.zoo_models(_with(zoo__models=5, zoo__object_models=3)) == (5, 3)
    assert config_lib.images_per_epoch(_with(zoo__images_per_epoch=9)) == (9, 9)
    changed = _with(zoo__images_per_epoch=9, zoo__object_images_per_epoch=4)
    assert config_lib.images_per_epoch(changed) == (9, 4)


def test_a_plain_config_holds_every_field_and_no_tuple():
    plain = config_lib.to_json(default.get_config())
    assert set(dict(config_lib.flatten(plain))) == set(DEFAULTS)
    assert plain["cyclegan"]["epochs"] == list(DEFAULTS["cyclegan.epochs"])


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
            config_lib.check(config)
        config.data.folder = "somewhere"
    config_lib.check(config)


def test_shipped_configs_have_names_of_their_own():
    names = [module.values[0].get_config(*filter(None, module.values[1:])).name for module in _shipped()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("name", "known"), [("black_cat", "photos"), ("pair_matrix", "photos")])
def test_an_unknown_variant_is_refused_with_the_known_ones(name, known):
    module = importlib.import_module(f"configs.{name}")
    with pytest.raises(ValueError, match=rf"no variant 'nosuch'; known .*'{known}'"):
        module.get_config("nosuch")
