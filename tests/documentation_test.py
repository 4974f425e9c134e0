"""What README.md, CONTRIBUTING.md and docs/ show: code that runs, links that lead somewhere."""

import re
import runpy
from pathlib import Path

import jax
import pytest

from kernelgan import config, generators, models
from kernelgan.baselines import methods
from kernelgan.generators import base, check, fitting, loading

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
NETWORK = models.ConvNet(filters=(2, 3))
IMAGE_SIZE = 16


def _code(page, word):
    (block,) = [
        b for b in re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL) if word in b
    ]
    return block


@pytest.fixture(scope="module")
def parents():
    def zoo(seed):
        keys = jax.random.split(jax.random.key(seed), 3)
        init = jax.jit(jax.vmap(lambda key: models.initialise_convnet(NETWORK, IMAGE_SIZE, key)))
        return jax.device_get(init(keys))

    return base.Parents(zoo(0), zoo(1))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_schema_of_results_is_that_of_the_dataclasses():
    script = runpy.run_path(str(ROOT / "docs" / "results_schema.py"))
    assert script["FILE"].read_text() == script["text"](), "run python docs/results_schema.py"


def test_the_readme_is_short_and_its_sample_report_is_small_and_of_no_machine():
    words = re.sub(r"```.*?```", "", (ROOT / "README.md").read_text(), flags=re.DOTALL).split()
    assert len(words) <= 1500
    sample = (ROOT / "docs" / "sample_report.html").read_bytes()
    assert len(sample) < 1_000_000
    assert not re.search(rb"/(tmp|work|home|root|Users)/", sample)


def test_the_readme_quotes_the_library_in_full():
    assert _code("README.md", "kg.train_zoo") == (ROOT / "docs" / "library.py").read_text()


@pytest.mark.parametrize(("page", "name"), [("README.md", "my_generator"), ("CONTRIBUTING.md", "rescaled")])
def test_the_generators_that_are_shown_work(page, name, tmp_path, parents):
    file = tmp_path / f"{name}.py"
    file.write_text(_code(page, "def make("))
    (loaded,) = loading.load({}, [str(file)], NETWORK)
    fitted = fitting.fit_pair(loaded.generator, parents)
    networks = loaded.generator.generate(jax.random.key(0), fitted.state, parents, None)
    check.check_networks(jax.device_get(networks), NETWORK, IMAGE_SIZE, name)


def test_every_module_has_a_place_in_the_layout():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    modules = [path for path in (ROOT / "kernelgan").iterdir() if not path.name.startswith("__")]
    names = [f"`{path.name}`" if path.is_file() else f"`{path.name}/`" for path in modules]
    assert [name for name in names if name not in text] == []
    listed = re.findall(r"`(\w+\.py)`", text.split("## Conventions")[0])
    assert [name for name in listed if not list((ROOT / "kernelgan").rglob(name))] == []


def test_every_method_is_described():
    text = (ROOT / "docs" / "method.md").read_text()
    assert [name for name in (*methods.BASELINES, *generators.FAMILIES) if f"`{name}" not in text] == []


def test_sections_that_the_recipe_for_a_figure_names_exist():
    text = (ROOT / "kernelgan" / "report" / "sections.py").read_text()
    named = re.findall(r'^        ("[A-Z][^"]+": \[)', (ROOT / "CONTRIBUTING.md").read_text(), re.M)
    assert named
    assert [name for name in named if name not in text] == []


def test_fields_that_are_named_exist():
    listing = config.listing()
    for page in PAGES:
        fields = re.findall(r"--config\.([a-z_.]+)", page.read_text()) if page.name != "jain2024.md" else []
        assert [field for field in fields if not re.search(rf"^{re.escape(field)}\b", listing, re.M)] == []
