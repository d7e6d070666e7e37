"""The command as a user meets it: help, tables, one message a mistake, documented exit codes."""

import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from conftest import SAMPLE, Command
from sprintnet.cli.args import split_words
from sprintnet.cli.verbs import FIRST_STEPS, GROUPS, VERBS
from sprintnet.config import load_config, recipes
from sprintnet.datasets import same_data
from sprintnet.errors import INSTALL, nearest
from sprintnet.runs.folder import RunFolder, dotted, run_name

ARTICLE = (Path(__file__).parents[1] / "reference" / "article_training.txt").read_text().splitlines()


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A folder, runs/train/smoke, with the files that a finished run has."""
    run = RunFolder(tmp_path / "runs" / "train" / "smoke")
    run.path.mkdir(parents=True)
    run.config.write_text(load_config("smoke").to_toml())
    run.weights.write_bytes(b"none")
    run.metrics.write_text("{}")
    return run


def test_help_lists_the_verbs(sprintnet: Command) -> None:
    shown = sprintnet("--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    listed = [verb for group in GROUPS.values() for verb in group]
    assert sorted(listed) == sorted(VERBS)
    assert re.findall(r"^  ([a-z-]+)  +[A-Z].*\.$", shown.stdout, re.MULTILINE) == listed
    assert "\033" not in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) < 80
    assert sprintnet().stdout == shown.stdout


@pytest.mark.parametrize("command", FIRST_STEPS)
def test_the_first_steps_of_the_help_are_understood(sprintnet: Command, folder: Path, command: str) -> None:
    words = command.replace("FOLDER", str(folder)).split()
    done = sprintnet(*words, *(["epochs=x"] if words[0] == "train" else []))  # the mistake is found before it starts
    assert done.returncode == (2 if words[0] == "train" else 0), done.stderr
    assert ("1 mistake in the settings" in done.stderr) == (words[0] == "train")


@pytest.mark.parametrize(("environment", "has_colour"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_colour_is_for_terminals_that_have_it(environment: dict[str, str], has_colour: bool) -> None:
    terminal, end = os.openpty()
    environment = {**{key: value for key, value in os.environ.items() if key != "NO_COLOR"}, "TERM": "xterm", **environment}
    command = [sys.executable, "-m", "sprintnet", "trian"]
    assert subprocess.run(command, stdout=end, stderr=end, env=environment).returncode == 2
    shown = os.read(terminal, 10_000).decode()
    os.close(end)
    os.close(terminal)
    prefix = "\033[31msprintnet:\033[0m" if has_colour else "sprintnet:"
    assert shown.startswith(f"{prefix} trian: there is no such verb; did you mean train?")


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_help(sprintnet: Command, verb: str) -> None:
    shown = sprintnet(verb, "--help", COLUMNS="80")
    assert shown.returncode == 0
    assert shown.stdout.startswith(f"usage: sprintnet {verb} ")
    assert max(map(len, shown.stdout.splitlines())) < 80


def test_help_shows_the_common_settings_and_all_shows_every_setting(sprintnet: Command) -> None:
    common = sprintnet("train", "davidnet", "epochs=3", "--help").stdout
    assert len(re.findall(r"^  [a-z_.]+=", common, re.MULTILINE)) == 10
    assert re.search(r"^  epochs=3 +Passes over the training images$", common, re.MULTILINE)
    assert "--resume" in common
    for words in (["train", "--help", "all"], ["train", "--help", "davidnet"], ["study", "-h"]):
        assert sprintnet(*words).returncode == 0
    shown = {recipe: sprintnet("train", recipe, "--help").stdout for recipe in ("sprint94", "photos")}
    for setting, recipe in (("model.width=64", "sprint94"), ("data.size=224", "photos"), ("head.fit=true", "photos")):
        assert [name for name, text in shown.items() if setting in text] == [recipe]
    every = sprintnet("train", "--help", "all").stdout
    settings = load_config("sprint94").to_toml()
    assert set(re.findall(r"^  ([a-z_.0-9]+)=", every, re.MULTILINE)) == set(dotted(_read(settings)))
    assert "schedule.resolution=0.75,1\n" in every


def _read(toml: str) -> dict[str, object]:
    import tomllib

    return tomllib.loads(toml)


def test_every_mistake_is_one_message_with_exit_code_2(sprintnet: Command) -> None:
    finished = sprintnet("train", "davidnet", "epocs=3", "--optim.max-lr", "fast", "--data.val=0.9")
    assert finished.returncode == 2
    assert finished.stdout == ""
    assert finished.stderr.splitlines() == [
        "sprintnet: 3 mistakes in the settings; nothing was started:",
        "  epocs=3: there is no such setting; did you mean epochs?",
        "  optim.max_lr=fast: must be a finite number",
        "  data.val=0.9: must be at least 0 and at most 0.5, or auto",
    ]


@pytest.mark.parametrize(
    ("command", "exit_code", "message"),
    [
        ("fly", 2, "fly: there is no such verb; see sprintnet --help"),
        ("trian", 2, "trian: there is no such verb; did you mean train?"),
        ("train davidnett", 2, "sprint95-long, or the path of a .toml file; did you mean davidnet?"),
        ("train sprint49", 2, "did you mean sprint94?"),
        ("train /tmp/nowhere", 2, "or the path of a .toml file\n"),
        ("train davidnet extra", 2, "extra: one word too many; usage: sprintnet train [RECIPE] [KEY=VALUE]... [options]"),
        ("train davidnet pictures", 2, "[options]; did you mean --data pictures?"),
        ("train --nme x", 2, "--nme: there is no such option; did you mean --name?"),
        ("train --seed", 2, "seed: not understood; an override is written key=value or --key value"),
        ("train --name", 2, "--name: expected one argument; see sprintnet train --help"),
        ("train --name ../x", 2, "folder name"),
        ("train data.name=nowhere", 3, "data.name=nowhere: no "),
        ("train --data nowhere", 3, "data.name=nowhere: no "),
        ("study --data=nowhere", 3, "data.name=nowhere: no "),
        ("summary data=nowhere", 3, "data.name=nowhere: no "),
        ("lr-find data=nowhere", 3, "data.name=nowhere: no "),
        ("benchmark data=nowhere", 3, "data.name=nowhere: no "),
        ("check --data nowhere", 3, "data.name=nowhere: no "),
        ("train mnist", 2, "recipe mnist: is data, not a recipe; use: sprintnet train --data mnist"),
        ("study pictures", 2, "sprintnet study --data pictures, or, of few photos, sprintnet study photos --data pictures"),
        ("train runs/train/smoke", 2, "is a run folder; to repeat the run, name runs/train/smoke/config.toml"),
        ("val", 2, "RUN is missing; usage: sprintnet val RUN [KEY=VALUE]... [options]; such as: sprintnet val sprint94\n"),
        ("compare a", 2, "usage: sprintnet compare STUDY STUDY [options]; such as: sprintnet compare sprint94 sprint95\n"),
        ("predict", 2, "[IMAGE]... [options]; such as: sprintnet predict sprint94 cat.png\n"),
        ("data", 2, "list|fetch is missing; usage: sprintnet data list|fetch [DATASET] [options]; such as: "),
        ("val nowhere", 2, "nowhere: no such run folder; {here}/runs/train has smoke"),
        ("val somke", 2, "somke: no such run folder; did you mean runs/train/smoke?"),
        ("val runs/train/smoek --output x.csv", 2, "did you mean runs/train/smoke?"),
        ("report runs/study/x", 2, "is the folder of a study, not of a run; name one of its runs, such as runs/study/x/seed-0"),
        ("val pictures", 2, "pictures: config.toml, weights.safetensors, metrics.json missing; it is not a run folder"),
        ("val smoke --split all", 2, "--split all: must be one of test, val, train"),
        ("val . --output gone/a.csv", 2, "--output gone/a.csv: there is no folder gone; create it first"),
        ("report . --output runs", 2, "--output runs: is a folder; name a file in it"),
        ("lr-find --seeds 0", 2, "--seeds 0: must be a whole number from 1 to 1,000,000, such as 1"),
        ("lr-find --lowest 1 --highest 1", 2, "--lowest 1: must be below --highest 1"),
        ("serve x.onnx --port 99999", 2, "--port 99999: must be a whole number from 0 to 65,535, such as 8000"),
        ("serve smoke", 2, "runs/train/smoke: has no export to serve; create one first: sprintnet export runs/train/smoke"),
        ("label-errors smoke --folds 1", 2, "--folds 1: must be a whole number from 2 to 1,000,000, such as 5"),
        ("export smoke --quantise int8", 2, "no such option; see sprintnet export --help; did you mean --quantize?"),
        ("export smoke --quantize int4", 2, "--quantize int4: must be one of int8, fp16; did you mean int8?"),
        ("check", 2, "check: DATA is missing"),
        ("recipes --all", 2, "--all: there is no such option"),
        ("data eat cifar10", 2, "data eat: must be one of list, fetch"),
        ("data fetch", 2, "must be one of cifar10, "),
        ("data fetch cifar11", 2, "cifar11: must be one of cifar10"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_message(
    sprintnet: Command, run: RunFolder, tmp_path: Path, command: str, exit_code: int, message: str
) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "runs" / "study" / "x" / "seed-0").mkdir(parents=True)
    (tmp_path / "runs" / "study" / "x" / "seed-0" / "config.toml").touch()
    finished = sprintnet(*command.split(), SPRINTNET_CACHE=str(tmp_path / "cache"))
    assert (finished.returncode, finished.stdout) == (exit_code, "")
    assert finished.stderr.startswith("sprintnet: ")
    assert message.replace("{here}", str(tmp_path)) in finished.stderr


def test_what_cannot_be_written_is_said_without_advice_on_training(sprintnet: Command, folder: Path) -> None:
    finished = sprintnet("check", str(folder), "--output", "/proc/rows.csv")  # a file system that takes no files
    assert finished.returncode in (1, 2)
    assert "/proc" in finished.stderr
    assert "--resume" not in finished.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SAMPLE, tmp_path / "pictures"))


def test_no_gpu_is_one_message_and_leaves_no_run_behind(sprintnet_process: Command, tmp_path: Path) -> None:
    finished = sprintnet_process("train", "device=cuda", f"data={SAMPLE}", CUDA_VISIBLE_DEVICES="")
    assert finished.returncode == 2
    assert finished.stdout.startswith("starting: sprint94 on ")
    assert finished.stderr.startswith("sprintnet: device=cuda: PyTorch sees no GPU here")
    assert not (tmp_path / "runs" / "train" / "sprint94").exists()


def test_resume_without_a_recipe_takes_the_newest_unfinished_run(sprintnet: Command, tiny: list[str], tmp_path: Path) -> None:
    for age, name in enumerate(("old", "older")):
        config = tmp_path / "runs" / "train" / name / "config.toml"
        config.parent.mkdir(parents=True)
        config.write_text(load_config("davidnet", tiny).to_toml())
        os.utime(config, (10**9 - age, 10**9 - age))
    run = tmp_path / "runs" / "train" / "mine"
    run.mkdir(parents=True)
    (run / "config.toml").write_text(load_config("davidnet", tiny).to_toml())
    done = sprintnet("train", "--resume", "--no-report")
    assert done.returncode == 0, done.stderr
    assert ", in runs/train/mine\n" in done.stdout
    assert (run / "metrics.json").is_file()
    again = sprintnet("train", "--resume", "--name", "mine", "--no-report")
    assert "already finished, nothing to resume" in again.stdout
    assert ", in runs/train/old\n" in sprintnet("train", "--resume", "--no-report").stdout
    for name in ("/tmp/x", "../x"):
        refused = sprintnet("train", "--resume", "--name", name)
        assert refused.returncode == 2
        assert "must be a single folder name" in refused.stderr


def test_a_run_with_a_checkpoint_is_resumed_before_a_newer_one_without(
    sprintnet: Command, tiny: list[str], tmp_path: Path
) -> None:
    settings = load_config("davidnet", tiny).to_toml()
    for name in ("davidnet", "davidnet-2"):
        (tmp_path / "runs" / "train" / name).mkdir(parents=True)
        (tmp_path / "runs" / "train" / name / "config.toml").write_text(settings)
    (tmp_path / "runs" / "train" / "davidnet" / "checkpoint.safetensors").touch()
    resumed = sprintnet("train", "--resume", "--no-report")
    assert "runs/train/davidnet/environment.json: missing" in resumed.stderr  # of a real run it would be there
    beside = sprintnet("train", "davidnet", *tiny, "--no-report")
    assert "in runs/train/davidnet-3\n" in beside.stdout
    assert "runs/train/davidnet is unfinished: sprintnet train --resume --name davidnet continues it\n" in beside.stdout
    lease = RunFolder(tmp_path / "runs" / "train" / "davidnet").lease()
    with lease.acquire():  # another process trains there
        beside = sprintnet("train", "davidnet", *tiny, "--no-report")
    assert "runs/train/davidnet is" not in beside.stdout
    assert "runs/train/davidnet-2 is unfinished" in beside.stdout


def test_nothing_is_started_by_a_resume_that_names_nothing(sprintnet: Command, tiny: list[str], tmp_path: Path) -> None:
    refused = sprintnet("train", "--resume")
    assert refused.returncode == 2
    assert f"no run in {tmp_path}/runs/train is unfinished; to start one: sprintnet train sprint94\n" in refused.stderr
    (tmp_path / "runs" / "study" / "mine" / "seed-0").mkdir(parents=True)
    (tmp_path / "runs" / "study" / "mine" / "seed-0" / "config.toml").touch()
    refused = sprintnet("study", "--resume")
    assert refused.returncode == 2
    there = f"nothing to resume in runs/study/sprint94; {tmp_path}/runs/study has mine; repeat the whole command of the study"
    assert there in refused.stderr
    assert not (tmp_path / "runs" / "study" / "sprint94").exists()


def test_a_mistake_leaves_no_run_behind(sprintnet: Command, tiny: list[str], tmp_path: Path) -> None:
    assert sprintnet("train", "davidnet", "--name", "mine", *tiny, "data.val=0.01").returncode == 2
    assert not (tmp_path / "runs" / "train" / "mine").exists()
    trained = sprintnet("train", "davidnet", "--name", "mine", "--no-report", *tiny, "data.val=0.1")
    assert "runs/train/mine" in trained.stdout


def test_help_and_mistakes_load_no_torch(tmp_path: Path) -> None:
    script = """
import contextlib, sys
from sprintnet.cli.main import main
for command in ("--help", "train --help all", "recipes", "train epocs=3", "train data=nowhere", "val x"):
    with contextlib.suppress(SystemExit):
        main(command.split())
print(*sys.modules)
"""
    finished = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert finished.stderr.count("sprintnet: ") == 3
    assert "torch" not in finished.stdout.splitlines()[-1].split()


def test_train_then_val_then_resume(sprintnet: Command, tmp_path: Path, tiny: list[str]) -> None:
    trained = sprintnet("train", "davidnet", *tiny, "--no-report")
    assert trained.returncode == 0, trained.stderr
    run = "runs/train/davidnet"
    lines = trained.stdout.splitlines()
    assert lines[0] == f"starting: davidnet on {SAMPLE}, in {run}"
    assert sum(bool(re.match(r"\|     [12] \| 0\.\d{6} \| (\d\dm \d\ds|0\.\d{3} s) \|", line)) for line in lines) == 2
    assert lines[-4].endswith(f"run folder: {run}")
    assert lines[-3:] == [
        f"next: sprintnet val {run} --split test   the test set, unused by this run",
        f"      sprintnet explain {run}            where the network looks",
        f"      sprintnet export {run}             an ONNX file to ship",
    ]
    assert (tmp_path / run / "log.txt").read_text() == trained.stdout.partition("\n")[2]
    assert trained.stderr == ""

    evaluated = sprintnet("val", "davidnet")
    accuracy = re.search(r"^accuracy\s+(\S+)%", evaluated.stdout, re.MULTILINE)
    assert accuracy is not None
    assert f"val accuracy {accuracy[1]}% (95% CI " in trained.stdout
    assert evaluated.stdout.startswith(f"{run}: val, 100 images\n")
    assert sprintnet("val", run, "--split", "test").returncode == 0
    resumed = sprintnet("train", "davidnet", *tiny, "--resume", "--no-report")
    assert resumed.returncode == 0
    assert "already finished" in resumed.stdout
    assert "--split test" not in resumed.stdout
    nameless = sprintnet("train", "--resume", "--name", "davident")
    assert nameless.returncode == 2
    assert "--name davident: nothing to resume in runs/train/davident; did you mean davidnet?\n" in nameless.stderr
    misspelt = sprintnet("train", "davidnet", *tiny, "--resume", "--name", "davident", "--no-report", "epochs=1")
    assert "runs/train/davident: nothing to resume, starting; did you mean davidnet?\n" in misspelt.stdout
    repeated = sprintnet("train", f"{run}/config.toml", "--no-report")
    assert repeated.stdout.startswith(f"starting: {run}/config.toml on {SAMPLE}, in {run}-2\n")


def test_val_evaluates_other_data(sprintnet: Command, folder: Path, tmp_path: Path, tiny: list[str]) -> None:
    from PIL import Image

    assert sprintnet("train", "davidnet", *tiny, "--no-report").returncode == 0
    same = sprintnet("val", "davidnet", "--data", str(folder), "--split", "test", "precision=fp32", "--output", "rows.csv")
    assert same.stdout.startswith(f"runs/train/davidnet on {folder}: test, 100 images\n"), same.stderr
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 101
    assert ": all, 300 images" in sprintnet("val", "davidnet", f"data={folder}").stdout
    own = sprintnet("val", "davidnet", "--split", "test", "precision=fp32").stdout.splitlines()
    assert own[1] == same.stdout.splitlines()[1]
    for file in (folder / "test").rglob("*.png"):  # another size, which is resized as in training; fewer classes
        Image.open(file).resize((40, 30)).save(file)
    shutil.rmtree(folder / "train")
    shutil.rmtree(folder / "test" / "cat")
    smaller = sprintnet("val", "davidnet", "--data", str(folder / "test"))
    assert ": all, 90 images" in smaller.stdout, smaller.stderr
    assert "has no such split" in sprintnet("val", "davidnet", "--data", str(folder / "test"), "--split", "val").stderr
    (folder / "test" / "dog").rename(folder / "test" / "wolf")
    other = sprintnet("val", "davidnet", "--data", str(folder / "test"))
    assert other.returncode == 2
    assert "its classes wolf are none of the model's: airplane, automobile, bird, cat, deer, ...;" in other.stderr


def test_the_same_data_is_known_in_any_spelling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for first, second, is_same in (
        ("~/pictures", str(tmp_path / "pictures"), True),
        ("pictures", "~/pictures", True),
        ("pictures", "~nobody-there/pictures", False),
        ("cifar10", "cifar10", True),
        ("cifar10", "./cifar10", False),
    ):
        assert same_data(first, second) == same_data(second, first) == is_same


def test_a_damaged_run_says_what_is_missing(sprintnet: Command, run: RunFolder) -> None:
    assert "not a weights file of this version of SprintNet" in sprintnet("val", "smoke").stderr
    run.weights.unlink()
    assert "weights.safetensors missing" in sprintnet("val", "smoke").stderr
    run.weights.touch()
    run.config.write_text("epochs = = 1")
    assert "not valid TOML" in sprintnet("val", "smoke").stderr


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
    assert "Linear-34                   [-1, 3]" in sprintnet("summary", "davidnet", "data=three").stdout


def test_the_version_is_the_packages(sprintnet: Command) -> None:
    assert sprintnet("--version").stdout == f"sprintnet {metadata.version('sprintnet')}\n"


def test_recipes_are_a_table(sprintnet: Command) -> None:
    shown = sprintnet("recipes", COLUMNS="80").stdout
    facts = "sprint94       2,194,232  93.25% (n=10)  94.13% (n=10)   222 s, 2 cores  db67e7a"
    assert f"{facts}\n  SprintNet, width 64: the default\n" in shown
    assert "AMD EPYC with AVX512-BF16" in " ".join(shown.split())
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize("name", recipes())
def test_the_table_of_recipes_counts_parameters_as_summary_does(sprintnet: Command, name: str) -> None:
    assert f"Total params: {recipes()[name]['parameters']}\n" in sprintnet("summary", name).stdout


def test_a_reader_that_leaves_early_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "sprintnet", "summary", "davidnet"]
    finished = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (finished.stderr, finished.returncode) == ("", 141)


@pytest.mark.parametrize(("module", "extra"), [("torch", "train"), ("safetensors", "train"), ("scipy", "study")])
def test_a_missing_extra_says_the_line_that_installs_it(
    sprintnet: Command, monkeypatch: pytest.MonkeyPatch, module: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    for name in [
        name for name in sys.modules if name.startswith(("sprintnet.models.", "sprintnet.training.", "sprintnet.experiments."))
    ]:
        monkeypatch.delitem(sys.modules, name)
    verb = "compare" if module == "scipy" else "summary"
    finished = sprintnet(*([verb, "a", "b"] if module == "scipy" else [verb, "davidnet"]))
    assert finished.returncode == 2
    assert (
        finished.stderr
        == f"sprintnet: `sprintnet {verb}` needs {module}; in a clone of the repository: {INSTALL.format(extra)}\n"
    )


def test_in_python_a_missing_extra_says_so_too(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    script = """
import sys

class WithoutTorch:
    def find_spec(name, *_):
        if name == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name=name)

sys.meta_path.insert(0, WithoutTorch)
import sprintnet as sn
for call in (lambda: sn.train("smoke"), lambda: sn.load("run"), lambda: sn.study("smoke"), lambda: sn.compare("a", "b")):
    try:
        call()
    except sn.SettingsError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    assert all(line.endswith(f"needs torch; in a clone of the repository: {INSTALL.format('train')}") for line in lines), lines


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ([], [])),
        (["x.toml", "a=1"], (["x.toml"], ["a=1"])),
        (["a.b=1", "x.toml"], (["x.toml"], ["a.b=1"])),
        (["--a.b", "1", "c=2", "--d=3"], ([], ["a.b=1", "c=2", "d=3"])),
        (["r", "--a.b", "-1"], (["r"], ["a.b=-1"])),
    ],
)
def test_overrides_have_three_spellings(words: list[str], expected: tuple[list[str], list[str]]) -> None:
    assert split_words(words, has_settings=True) == expected


def test_a_repeated_run_is_named_after_its_folder() -> None:
    names = ["sprint94", "my/recipe.toml", "runs/train/mine-2/config.toml", "runs/train/mine/resolved.toml"]
    assert [run_name(recipe) for recipe in names] == ["sprint94", "recipe", "mine-2", "mine"]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("cifar-10", "cifar10"), ("CIFAR10", "cifar10"), ("fashion_mnist", "fashion-mnist"), ("photos", None), ("", None)],
)
def test_the_nearest_name_is_near(typed: str, meant: str | None) -> None:
    assert nearest(typed, ["cifar10", "cifar100", "fashion-mnist", "mnist", "digits", "svhn"]) == meant


def test_the_first_of_several_processes_alone_speaks_of_what_all_have(sprintnet_process: Command) -> None:
    several = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    first, second = (sprintnet_process("train", "smoke", "epochs=-1", **several, RANK=rank) for rank in ("0", "1"))
    assert first.returncode == second.returncode == 2
    assert "epochs=-1" in first.stderr
    assert second.stderr == ""
