"""The command as a user meets it: help, tables, one message a mistake, documented exit codes."""

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from conftest import SAMPLE, Command
from sprintnet.cli import main as cli
from sprintnet.cli.args import recipe_and_overrides

ARTICLE = (Path(__file__).parents[1] / "reference" / "article_training.txt").read_text().splitlines()


def test_help_lists_the_verbs_without_loading_torch_or_tyro(sprintnet: Command) -> None:
    help_text = sprintnet("--help")
    assert help_text.returncode == 0
    assert all(verb in help_text.stdout for verb in ("train", "val", "summary", "data", "recipes"))
    script = "import sys; from sprintnet.cli.main import main\ntry: main(['--help'])\nexcept SystemExit: print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "tyro", "numpy"} & set(modules)


def test_help_of_train_lists_every_setting_with_the_recipes_value(sprintnet: Command) -> None:
    text = sprintnet("train", "davidnet", "--help").stdout
    assert "--resume" in text
    assert re.search(r"--optim\.max-lr FLOAT.*?0\.45", text, re.DOTALL)
    assert re.search(r"--precision \{auto,fp32,bf16,fp16\}", text)


def test_every_mistake_is_one_message_with_exit_code_2(sprintnet: Command) -> None:
    finished = sprintnet("train", "davidnet", "epocs=3", "--optim.max-lr", "fast", "--data.val=0.9")
    assert finished.returncode == 2
    assert finished.stdout == ""
    assert finished.stderr.splitlines() == [
        "sprintnet: 3 mistakes in the settings; nothing was started:",
        "  epocs=3: there is no such setting; did you mean epochs?",
        "  optim.max_lr=fast: must be a finite number",
        "  data.val=0.9: must be at least 0 and at most 0.5",
    ]


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["train", "davidnett"], 2, "did you mean davidnet"),
        (["train", "davidnet", "extra"], 2, "extra: not understood; an override is written key=value"),
        (["train", "--seed"], 2, "seed: not understood; an override is written key=value or --key value"),
        (["train", "--name", "../x"], 2, "one folder name"),
        (["train", "device=cuda"], 2, "device=cuda: PyTorch sees no GPU here"),
        (["train", "data.name=nowhere"], 3, "data.name=nowhere: no built-in dataset"),
        (["val", "nowhere"], 2, "nowhere: no such run folder"),
        (["val", ".", "--output", "gone/a.csv"], 2, "--output gone/a.csv: there is no folder gone; make it first"),
        (["report", ".", "--output", "gone/a.html"], 2, "--output gone/a.html: there is no folder gone; make it first"),
        (["val", "nowhere", "more"], 2, "nowhere: no such run folder"),
        (["train", "data.name=."], 3, "contains no image of a class that can be opened"),
        (["recipes", "--all"], 2, "not understood: --all"),
        (["data", "fetch"], 2, "dataset (none): must be one of cifar10, cifar100, fashion-mnist, mnist, digits, svhn"),
        (["data", "fetch", "cifar11"], 2, "dataset cifar11: must be one of cifar10"),
    ],
)
def test_a_mistake_is_one_message_and_no_traceback(
    sprintnet: Command, tmp_path: Path, arguments: list[str], exit_code: int, message: str
) -> None:
    hidden = {"CUDA_VISIBLE_DEVICES": ""}  # a GPU that may be here
    finished = sprintnet(*arguments, SPRINTNET_CACHE=str(tmp_path / "cache"), **hidden)
    assert finished.returncode == exit_code
    assert finished.stderr.startswith("sprintnet: ")
    assert message in finished.stderr
    assert "Traceback" not in finished.stderr


def test_a_mistake_leaves_no_run_behind(sprintnet: Command, tmp_path: Path, tiny: list[str]) -> None:
    assert sprintnet("train", "davidnet", "--name", "mine", *tiny, "data.val=0.01").returncode == 2
    assert "runs/train/mine" in sprintnet("train", "davidnet", "--name", "mine", *tiny, "data.val=0.1").stdout


@pytest.mark.parametrize("arguments", [["train", "epocs=3"], ["train", "data.name=nowhere"], ["val", "nowhere"]])
def test_mistakes_are_found_before_torch_is_loaded(arguments: list[str], tmp_path: Path) -> None:
    script = f"import sys; from sprintnet.cli.main import main; main({arguments!r}); print(*sys.modules)"
    finished = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert finished.stderr.startswith("sprintnet: ")
    assert "torch" not in finished.stdout.split()


@pytest.mark.parametrize("arguments", [[], ["fly"], ["val"], ["data", "eat", "cifar10"], ["val", "x", "--split", "all"]])
def test_an_unknown_verb_or_choice_exits_with_2(sprintnet: Command, arguments: list[str]) -> None:
    finished = sprintnet(*arguments)
    assert finished.returncode == 2
    assert finished.stderr.startswith("usage: sprintnet")


def test_train_then_val_then_resume(sprintnet: Command, tmp_path: Path, tiny: list[str]) -> None:
    trained = sprintnet("train", "davidnet", *tiny)
    assert trained.returncode == 0, trained.stderr
    run = Path("runs/train/davidnet")
    lines = trained.stdout.splitlines()
    assert sum(bool(re.match(r"\|     [12] \| 0\.\d{6} \| \d\dm \d\ds \|", line)) for line in lines) == 2
    assert lines[-2].endswith(f"run folder: {run}")
    assert lines[-1] == f"report: {run / 'report.html'}"
    assert (tmp_path / run / "log.txt").read_text() == trained.stdout
    assert trained.stderr == ""

    evaluated = sprintnet("val", str(run))
    accuracy = re.search(r"^accuracy\s+(\S+)%", evaluated.stdout, re.MULTILINE)
    assert accuracy is not None
    assert f"val accuracy {accuracy[1]}% (95% CI " in trained.stdout
    assert "airplane" in evaluated.stdout
    resumed = sprintnet("train", "davidnet", *tiny, "--resume")
    assert resumed.returncode == 0
    assert "finished already" in resumed.stdout
    assert "runs/train/davidnet-2" in sprintnet("train", "davidnet", *tiny).stdout


def test_a_damaged_run_says_what_is_missing(sprintnet: Command, tmp_path: Path, tiny: list[str]) -> None:
    sprintnet("train", "davidnet", *tiny, "epochs=1")
    run = tmp_path / "runs" / "train" / "davidnet"
    weights = (run / "weights.safetensors").read_bytes()
    (run / "weights.safetensors").write_bytes(weights[:500])
    assert "not the weights of a network of ours" in sprintnet("val", str(run)).stderr
    (run / "weights.safetensors").unlink()
    assert "weights.safetensors missing" in sprintnet("val", str(run)).stderr
    (run / "weights.safetensors").write_bytes(weights)
    (run / "config.toml").write_text("epochs = = 1")
    assert "not valid TOML" in sprintnet("val", str(run)).stderr


def test_summary_prints_the_layers_then_the_plan(sprintnet: Command) -> None:
    finished = sprintnet("summary", "davidnet")
    assert "Total params: 6,573,130" in finished.stdout
    plan = re.findall(r"^\| +\d+ \| (\d\.\d{6}) \| (\d\.\d{6}) \|$", finished.stdout, re.MULTILINE)
    assert [lr for lr, _ in plan] == [line.split("|")[2].strip() for line in ARTICLE]
    assert {momentum for _, momentum in plan} == {"0.900000"}


def test_summary_follows_the_data(sprintnet: Command, tmp_path: Path) -> None:
    for part in ("train", "test"):
        (tmp_path / "three" / part).mkdir(parents=True)
        for name in ("cat", "dog", "frog"):
            (tmp_path / "three" / part / name).symlink_to(SAMPLE / part / name)
    assert "Linear-34                   [-1, 3]" in sprintnet("summary", "davidnet", "data.name=three").stdout


def test_the_version_is_the_packages(sprintnet: Command) -> None:
    assert sprintnet("--version").stdout == f"sprintnet {metadata.version('sprintnet')}\n"


def test_recipes_show_their_heads(sprintnet: Command) -> None:
    assert "davidnet\n  DavidNet as in the article" in sprintnet("recipes").stdout


def test_a_reader_that_leaves_early_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "sprintnet", "summary", "davidnet"]
    finished = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (finished.stderr, finished.returncode) == ("", 141)


def test_a_missing_extra_says_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "sprintnet.training.train", None)
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in [name for name in sys.modules if name.startswith("sprintnet.models.")]:
        monkeypatch.delitem(sys.modules, name)
    assert cli.main(["summary", "davidnet"]) == 2
    assert 'pip install "sprintnet[train]"' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ("sprint94", [])),
        (["x.toml", "a=1"], ("x.toml", ["a=1"])),
        (["a.b=1"], ("sprint94", ["a.b=1"])),
        (["--a.b", "1", "c=2", "--d=3"], ("sprint94", ["a.b=1", "c=2", "d=3"])),
        (["r", "--a.b", "-1"], ("r", ["a.b=-1"])),
    ],
)
def test_overrides_have_two_spellings(words: list[str], expected: tuple[str, list[str]]) -> None:
    assert recipe_and_overrides(words) == expected
