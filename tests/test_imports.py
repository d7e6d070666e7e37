"""What may be imported when: help and mistakes load no torch, public names load on first use."""

import subprocess
import sys

import pytest

import sprintnet


def modules_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*sys.modules)"
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(finished.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import sprintnet, sprintnet.cli.main",
        "import sprintnet; sprintnet.load_data, sprintnet.check, sprintnet.SettingsError",
        "import sprintnet.runs.folder, sprintnet.data.builtin.cache, sprintnet.data.custom.load, sprintnet.data.validate",
        "import sprintnet.evaluation.metrics",
        "import sprintnet.deploy.predictor, sprintnet.deploy.predict_files",
        "import sprintnet.deploy.serve.server, sprintnet.deploy.serve.web",
        "import sprintnet.reporting.text.training_table, sprintnet.progress, sprintnet.training.schedule",
    ],
)
def test_what_needs_no_torch_does_not_load_it(code: str) -> None:
    assert "torch" not in modules_after(code)


def test_this_check_would_see_torch() -> None:
    assert "torch" in modules_after("import sprintnet; sprintnet.SprintNetClassifier")


def test_public_names_are_sealed_and_exist() -> None:
    assert all(getattr(sprintnet, name) for name in sprintnet.__all__)
    assert set(dir(sprintnet)) == {*sprintnet.__all__, "__version__"}
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        sprintnet.nothing  # noqa: B018
