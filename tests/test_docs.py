"""What the documentation says works: its commands and Python are understood, links lead somewhere, the site opens."""

import ast
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

import sprintnet
from sprintnet.cli.args import recipe_of
from sprintnet.cli.main import _parse
from sprintnet.cli.settings_help import described
from sprintnet.cli.verbs import OVERRIDES, VERBS
from sprintnet.config import load_config, recipes

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(path for path in (ROOT / "docs").rglob("*.md") if "_generated" not in path.parts)]
FEW_STEPS = ["threads=1", "epochs=2"]


def blocks(page: Path, *languages: str) -> Iterator[str]:
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE):
        if language in languages:
            yield block


def commands() -> Iterator[tuple[str, list[str]]]:
    for page in PAGES:
        for block in blocks(page, "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                for command in re.split(r"&&|\|", line.partition("#")[0].partition(" > ")[0]):
                    words = shlex.split(command)
                    if words[:1] == ["sprintnet"] and len(words) > 1:
                        yield page.name, words[1:]


def test_every_command_of_the_documentation_is_understood() -> None:
    found = list(commands())
    assert len(found) > 40
    assert {words[0] for _, words in found} >= set(VERBS) - {"benchmark", "recipes", "data"}
    for page, words in found:
        shown = [word for word in words if not (word.startswith("[") or word == "...")]
        options = _parse(shown)
        if OVERRIDES in VERBS[options.verb][1] and recipe_of(options) in recipes():
            assert load_config(recipe_of(options), options.overrides), page


def test_every_python_example_is_python_and_names_what_there_is() -> None:
    names = set()
    for page in PAGES:
        for block in blocks(page, "python"):
            for node in ast.walk(ast.parse(block)):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sn":
                    names.add(node.attr)
                if isinstance(node, ast.ImportFrom) and node.module == "sprintnet":
                    names |= {alias.name for alias in node.names}
    assert len(names) >= 6
    assert [name for name in names if not hasattr(sprintnet, name)] == []


def test_the_readme_is_short_and_its_links_lead_to_files() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 150
    targets = re.findall(r'(?:\]\(|src="|srcset=")([^)"#]+)', text)
    local = [target for target in targets if "://" not in target]
    assert len(local) > 30
    assert [target for target in local if not (ROOT / target).exists()] == []


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as by `make docs`: a warning, such as of a link that leads nowhere, is an error."""
    place = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet", "--doctree-dir", place / "tree"]
    done = subprocess.run([*command, ROOT / "docs", place / "html"], capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    return place / "html"


def test_the_site_opens_without_the_network_on_a_screen_and_a_phone(site: Path, browser: Browser) -> None:
    pages = [
        page for page in sorted(site.rglob("*.html")) if page.name not in ("genindex.html", "py-modindex.html", "search.html")
    ]
    assert len(pages) >= len(PAGES) - 1
    failures: list[str] = []
    for width, scheme in ((1280, "light"), (390, "dark")):
        context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme, offline=True)  # type: ignore[arg-type]
        visited = context.new_page()
        visited.on("requestfailed", lambda request: failures.append(request.url))
        visited.on("console", lambda message: failures.append(message.text) if message.type == "error" else None)
        for page in pages:
            visited.goto(page.as_uri())
            assert visited.locator("h1").first.is_visible(), page
            assert visited.evaluate("document.documentElement.scrollWidth") <= width, page
            broken = (
                "[...document.images].filter(image => image.checkVisibility() && !image.naturalWidth).map(image => image.src)"
            )
            assert visited.evaluate(broken) == [], page
        context.close()
    assert failures == []


def test_the_reference_has_every_command_and_setting(site: Path) -> None:
    text = (site / "reference" / "commands.html").read_text("utf-8")
    assert [verb for verb in VERBS if f'id="{verb}"' not in text] == []
    text = (site / "reference" / "settings.html").read_text("utf-8")
    keys = [setting.key for setting in described(load_config("davidnet"))]
    assert len(keys) > 60
    assert [key for key in keys if f">{key} = " not in text and f'<span class="pre">{key}</span>' not in text] == []


def test_the_commands_for_custom_datasets_run(tmp_path: Path) -> None:
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    section = (ROOT / "docs" / "tutorials" / "own_images.md").read_text("utf-8").split("<!-- custom data:")[1]
    runs = [line.partition("#")[0].strip() for line in section.split("```")[1].splitlines()[1:]]
    assert len(runs) >= 4
    printed = []
    for command in runs:
        program, *words = shlex.split(command)
        assert program == "sprintnet"
        settings = FEW_STEPS if words[0] == "train" else []
        done = subprocess.run(
            [sys.executable, "-m", "sprintnet", *words, *settings],
            cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout)
    assert "no problems found" in printed[0]
    assert "report: runs/train/mine/report.html" in printed[1]
    assert re.search(r"test, 100 images\n(top-1 )?accuracy", printed[2])
    assert "180 train, 20 val" in printed[1]
    assert "180 train, 20 val" in printed[3]
    assert (tmp_path / "runs" / "train" / "mine" / "test_access.csv").read_text().count("\n") == 2
