"""Predictions without PyTorch: equal to those of `val`; ways to name files; inputs and files that are refused."""

import csv
import io
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from PIL import Image

from conftest import SAMPLE, Command
from images import claiming
from sprintnet.data.dataset import ImageDataset
from sprintnet.data.preprocessing import Normalisation, Preprocessing
from sprintnet.deploy.predict_files import find_files
from sprintnet.deploy.predictor import Predictor, in_batches
from sprintnet.errors import DataError, SettingsError
from sprintnet.evaluation.trained_model import load_run
from sprintnet.runs.folder import RunFolder

IMAGES = np.zeros((2, 32, 32, 3), np.uint8)


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_predictions_equal_those_of_val(
    exported: dict[str, RunFolder], sprintnet: Command, tmp_path: Path, test_set: ImageDataset
) -> None:
    run = exported["davidnet"]
    assert sprintnet("val", str(run.path), "precision=fp32", "--split", "test", "--output", "val.csv").returncode == 0
    done = sprintnet("predict", str(run.export / "model.onnx"), str(SAMPLE / "test"), "--format", "csv")
    assert (done.returncode, done.stderr) == (0, "")
    found, expected = rows(done.stdout), rows((tmp_path / "val.csv").read_text())
    assert [row["file"] for row in found] == [row["file"] for row in expected]
    assert [row["predicted"] for row in found] == [row["predicted"] for row in expected]
    trained, _ = load_run(run.path, ["precision=fp32"])
    assert trained.preprocessing.temperature is not None
    calibrated = trained.preprocessing.probabilities(trained.predict_logits(test_set.images)).max(axis=1)
    for ours, confidence in zip(found, calibrated, strict=True):
        assert float(ours["confidence"]) == pytest.approx(confidence, abs=1e-5)
        assert float(ours["probability_1"]) >= float(ours["probability_2"]) >= float(ours["probability_3"])


def test_every_way_to_name_files(model: Path, sprintnet: Command, tmp_path: Path) -> None:
    folder = SAMPLE / "test"
    names = sorted(str(path) for path in folder.rglob("*.png"))
    process = subprocess.run(
        [sys.executable, "-m", "sprintnet", "predict", str(model), "-", "--format", "json"],
        input="\n".join([*names[:2], "", *names[2:3]]), cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    listed = json.loads(process.stdout)
    assert [row["file"] for row in listed] == names[:3]
    assert {"class", "probability"} == set(listed[0]["top"][0])
    assert len(list(find_files([str(folder)], sys.stdin))) == len(list(find_files([f"{folder}/**/*.png"], sys.stdin))) == 100
    one = sprintnet("predict", str(model), names[0], "--top", "99")
    assert one.stdout.count("%") == 10
    assert one.stderr == "--top 99: the model has 10 classes; all are listed\n"
    assert one.stdout.splitlines()[1].endswith(names[0])


def test_the_unsure_are_left_open(model: Path, sprintnet: Command) -> None:
    file = str(next((SAMPLE / "test").rglob("*.png")))
    sure = json.loads(sprintnet("predict", str(model), file, "--format", "json").stdout)[0]
    asked = ["predict", str(model), file, "--abstain-below"]
    unsure = sprintnet(*asked, f"{sure['confidence'] + 1e-3:.4f}").stdout.splitlines()[1]
    assert unsure.startswith(f"{sure['predicted']} ? ")
    below = sprintnet(*asked, f"{sure['confidence'] + 1e-3:.4f}", "--format", "csv")
    assert rows(below.stdout)[0]["predicted"] == ""
    assert rows(below.stdout)[0]["class_1"] == sure["predicted"]
    assert sprintnet(*asked, f"{sure['confidence'] - 1e-3:.4f}").stdout.splitlines()[1].startswith(sure["predicted"])


@pytest.mark.parametrize("batch", ["1", "7"])
def test_bad_files_are_set_aside_and_counted(model: Path, sprintnet: Command, tmp_path: Path, batch: str) -> None:
    good = sorted((SAMPLE / "test").rglob("*.png"))[:3]
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty.png").touch()
    odd = os.fsencode(tmp_path) + b"/\xff\n.png"
    Path(os.fsdecode(odd)).write_bytes(good[0].read_bytes())
    long = "a" * 300 + ".png"
    files = [
        str(good[0]),
        str(good[0]),
        long,
        "none*.png",
        "text.png",
        str(good[1]),
        "empty.png",
        "gone.png",
        str(good[2]),
        os.fsdecode(odd),
    ]
    done = sprintnet("predict", str(model), *files, "--batch", batch)
    assert done.returncode == 3
    assert "5 of 10 files could not be read:" in done.stderr
    assert "  text.png: cannot be read as an image" in done.stderr
    assert "  empty.png: is empty; restore or remove it" in done.stderr
    assert "  gone.png: no such file" in done.stderr
    lines = done.stdout.splitlines()
    assert f"{long}: cannot be read: File name too long; make it readable, or remove it" in done.stderr
    assert "none*.png: no such file" in done.stderr
    assert len(lines) == 6  # a header and a line for each that could be read
    assert lines[-1].endswith("\\xff .png")
    for format, read in (("json", json.loads), ("csv", rows)):  # which programs read: a row for every file
        found = read(sprintnet("predict", str(model), *files, "--batch", batch, "--format", format).stdout)
        assert [bool(row.get("error")) for row in found] == [False, False, True, True, True, False, True, True, False, False]
        assert "is empty" in found[6]["error"]


def test_the_class_takes_arrays_and_files(model: Path, test_set: ImageDataset) -> None:
    predictor = Predictor(model)
    whole = predictor(test_set.images, batch=7)
    assert whole.labels == [test_set.classes[k] for k in whole.probabilities.argmax(1)]
    np.testing.assert_array_equal(whole.confidences, whole.probabilities.max(1))
    np.testing.assert_allclose(whole.probabilities.sum(1), 1, atol=1e-5)
    assert test_set.files is not None
    np.testing.assert_allclose(predictor(list(test_set.files[:5])).probabilities, whole.probabilities[:5], atol=1e-6)
    assert predictor([]).probabilities.shape == (0, 10)
    assert predictor(test_set.files[0]).labels == whole.labels[:1]
    best = whole.top(2)[3]
    assert best[0] == (whole.labels[3], pytest.approx(float(whole.confidences[3])))
    with pytest.raises(DataError, match=r"gone\.png"):
        predictor(["gone.png"])


def test_every_kind_of_input(model: Path, tmp_path: Path, test_set: ImageDataset) -> None:
    predictor, image = Predictor(model), test_set.images[0]
    expected = predictor([image]).probabilities[0]
    Image.fromarray(image).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as lazy:
        kinds = [
            image, image[None], [image], (image,), (one for one in [image]), lazy, [lazy], {tmp_path / "a.png"},
            str(tmp_path / "a.png"), np.array([str(tmp_path / "a.png")]), image[:, ::-1][:, ::-1],
        ]  # fmt: skip
        for kind in kinds:
            np.testing.assert_allclose(predictor(kind).probabilities, expected[None], atol=1e-6)
    grey = image[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    same = [predictor(kind).probabilities for kind in (grey, [grey], Image.fromarray(grey), tmp_path / "grey.png")]
    for other in same[1:]:
        np.testing.assert_allclose(other, same[0], atol=1e-6)
    assert predictor(image[:3]).labels  # three rows, not three images
    none = predictor(np.zeros((0, 32, 32, 3), np.uint8))
    assert none.logits is not None and none.logits.shape == (0, 10)
    assert none.labels == [] and none.top(1) == []
    assert [len(part) for part in predictor.stream(test_set.images[:5], batch=2)] == [2, 2, 1]
    assert len(predictor(image).top(99)[0]) == 10


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            None,
            "images: NoneType; must be files, PIL images, or arrays (H, W), (H, W, 1, 3 or 4) or (N, H, W, 1, 3 or 4), uint8",
        ),
        (5, "images: int; must be"),
        (b"a.png", "images: bytes; must be"),
        ([b"a.png"], "images: bytes; must be"),
        ([[[0, 0, 0]]], "images: list; must be"),
        (IMAGES[0] - 1.0, "images: floats from -1 to 0; must be in 0..1, or uint8 in 0..255"),
        (IMAGES[:2] + 255.0, "images: floats from 0 to 255; must be in 0..1"),
        (IMAGES[:2].astype(np.int64), "images: int64 of shape (32, 32, 3); must be"),
        (IMAGES[0, ..., :2], "images: uint8 of shape (32, 32, 2); must be"),
        (IMAGES[:2, None], "images: uint8 of shape (2, 1, 32, 32, 3); must be"),
        (np.uint8(3), "images: uint8; must be"),
        (np.array(3), "images: int64 of shape (); must be"),
        (np.zeros((0, 4, 3), np.uint8), "images: uint8 of shape (0, 4, 3); must be"),
        ([Path("a.png"), None], "no such file"),
    ],
)
def test_other_inputs_are_refused(model: Path, wrong: object, message: str) -> None:
    with pytest.raises((SettingsError, DataError)) as caught:
        Predictor(model)(wrong)  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_a_batch_size_is_at_least_one(model: Path, test_set: ImageDataset) -> None:
    for batch in (0, -1):
        with pytest.raises(SettingsError, match=f"batch={batch}: must be at least 1"):
            Predictor(model)(test_set.images[:2], batch)


def test_a_damaged_pil_image_is_a_data_error(model: Path, tmp_path: Path, test_set: ImageDataset) -> None:
    Image.fromarray(test_set.images[0]).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:600])
    with Image.open(tmp_path / "a.png") as lazy, pytest.raises(DataError, match="images: a PIL image: cannot be read"):
        Predictor(model)(lazy)


def test_a_file_name_comes_before_a_pattern(tmp_path: Path) -> None:
    for name in ("photo[1].png", "photo1.png", "[ex]/a.png", "e/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def found(word: str) -> list[str]:
        return [str(file.relative_to(tmp_path)) for file in find_files([str(tmp_path / word)], sys.stdin)]

    assert found("photo[1].png") == ["photo[1].png"]
    assert found("[ex]/a.png") == found("[ex]") == ["[ex]/a.png"]
    assert found("photo[1]*.png") == ["photo1.png"]


def test_hidden_and_system_files_in_a_folder_are_skipped(tmp_path: Path) -> None:
    for name in (
        "a.png",
        "._a.png",
        "__MACOSX/a.png",
        "@eaDir/a.png/thumb.jpg",
        ".ipynb_checkpoints/a.png",
        "deep/b.PNG",
        "c.txt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert list(find_files([str(tmp_path)], sys.stdin)) == [tmp_path / "a.png", tmp_path / "deep/b.PNG"]


def test_predictions_do_not_depend_on_the_batch(model: Path, test_set: ImageDataset) -> None:
    predictor = Predictor(model)
    alone = np.concatenate([predictor([image]).probabilities for image in test_set.images[:6]])

    @given(st.lists(st.integers(0, 5), max_size=9), st.integers(1, 4))
    def together(chosen: list[int], batch: int) -> None:
        found = predictor([test_set.images[index] for index in chosen], batch).probabilities
        np.testing.assert_allclose(found, alone[chosen].reshape(-1, 10), atol=1e-6)

    together()


def test_large_images_are_not_held_together() -> None:
    sizes = [(10, 10)] * 5 + [(2000, 1500), (2000, 1500), (3000, 4000), (10, 10)]
    drawn = []

    def images() -> Iterator[np.ndarray]:
        for size in sizes:
            drawn.append(size)
            yield np.zeros((*size, 1), np.uint8)

    parts = [(len(part), len(drawn)) for part in in_batches(images(), 4)]
    assert parts == [(4, 4), (3, 7), (1, 8), (1, 9)]


def foreign(path: Path, output: str = "probabilities", input_name: str = "images", **metadata: str) -> Path:
    node = helper.make_node("Cast", [input_name], [output], to=TensorProto.FLOAT)
    shape = ["N", "H", "W", 3]
    taken = helper.make_tensor_value_info(input_name, TensorProto.UINT8, shape)
    given_out = helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)
    file = helper.make_model(helper.make_graph([node], "g", [taken], [given_out]), opset_imports=[helper.make_opsetid("", 20)])
    file.ir_version = 10
    helper.set_model_props(file, metadata)
    onnx.save(file, path)
    return path


def test_files_that_are_not_ours(model: Path, sprintnet: Command, tmp_path: Path) -> None:
    def message(path: Path) -> str:
        with pytest.raises(SettingsError) as caught:
            Predictor(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "sprintnet export RUN" in str(caught.value)
        return str(caught.value)

    place = tmp_path / "a.onnx"
    assert "No such file" in message(tmp_path / "gone.onnx")
    place.write_bytes(b"")
    assert "not a usable ONNX file" in message(place)
    place.write_bytes(model.read_bytes()[:-1000])
    assert "not a usable ONNX file" in message(place)
    with pytest.raises(SettingsError, match=r"is a folder; name the file, such as RUN/export/model\.onnx"):
        Predictor(tmp_path)
    assert "has no usable preprocessing" in message(foreign(place))
    assert "has no usable preprocessing" in message(foreign(place, classes="cat", preprocessing="none"))
    assert "has no usable preprocessing" in message(foreign(place, classes="[1", preprocessing='{"image_shape": [2]}'))
    assert "no output `probabilities`" in message(foreign(place, output="logits"))
    assert "no input `images` (uint8)" in message(foreign(place, input_name="x"))
    preprocessing = Preprocessing(("a", "b"), (32, 32, 3), Normalisation((0,) * 3, (1,) * 3), "stretch", "single-label", True)
    ours = {"preprocessing": json.dumps(preprocessing.to_metadata())}
    assert "outputs do not match its metadata" in message(foreign(place, **ours))
    fewer = onnx.load(model)
    helper.set_model_props(fewer, ours)
    onnx.save(fewer, place)
    assert "outputs do not match its metadata" in message(place)
    outside = onnx.load(model)
    onnx.save(outside, place, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert "not a usable ONNX file" in message(place)
    done = sprintnet("predict", str(place), "x.png")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"sprintnet: {place}: not a usable ONNX file")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "IMAGE is missing"),
        (["a.png", "--top", "0"], "--top 0: must be a whole number from 1"),
        (["a.png", "--abstain-below", "2"], "--abstain-below 2: must be a number from 0 to 1"),
        (["a.png", "--fast"], "--fast: there is no such option"),
    ],
)
def test_mistakes(model: Path, sprintnet: Command, words: list[str], message: str) -> None:
    done = sprintnet("predict", str(model), *words)
    assert done.returncode == 2
    assert message in done.stderr


def test_no_torch_is_loaded(model: Path) -> None:
    file = next((SAMPLE / "test").rglob("*.png"))
    code = (
        "import sys; from sprintnet.cli.main import main; "
        f"assert main(['predict', {str(model)!r}, {str(file)!r}]) == 0; "
        "print([name for name in ('torch', 'matplotlib', 'safetensors', 'onnx', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.skipif("CI" not in os.environ, reason="needs a package index: runs where CI is set")
def test_a_fresh_environment_without_torch_predicts(model: Path, tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "env")], check=True)
    python = tmp_path / "env" / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--constraint", root / "constraints.txt", f"{root}[predict]"]
    subprocess.run(install, check=True, timeout=600)
    assert subprocess.run([python, "-c", "import torch"], capture_output=True, check=False).returncode == 1
    file = next((SAMPLE / "test").rglob("*.png"))
    command = [tmp_path / "env" / "bin" / "sprintnet", "predict", model, file, "--format", "json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    expected = Predictor(model)([file])
    (found,) = json.loads(done.stdout)
    assert found["predicted"] == expected.labels[0]
    assert found["confidence"] == pytest.approx(float(expected.confidences[0]), abs=1e-6)


def test_a_run_predicts_as_its_export_does(exported: dict[str, RunFolder], sprintnet: Command, tmp_path: Path) -> None:
    runs = tmp_path / "runs" / "train"
    shutil.copytree(exported["davidnet"].path, runs / "whole")
    shutil.copytree(exported["davidnet"].path, runs / "bare", ignore=shutil.ignore_patterns("export"))
    Image.open(next((SAMPLE / "test" / "dog").iterdir())).resize((50, 40)).save(tmp_path / "large.png")
    words = ["large.png", str(SAMPLE / "test" / "cat"), "--format", "csv"]
    tables = [rows(sprintnet("predict", name, *words).stdout) for name in ("whole", str(runs / "whole/export"), "bare")]
    assert tables[0] == tables[1]
    assert len(tables[2]) == 11
    for exact, ours in zip(tables[0], tables[2], strict=True):
        assert (exact["file"], exact["predicted"]) == (ours["file"], ours["predicted"])
        assert float(exact["confidence"]) == pytest.approx(float(ours["confidence"]), abs=1e-4)
    assert rows(sprintnet("predict", "runs/train/whole/export/model.onnx", *words).stdout) == tables[0]


NETWORK_CALLS = """
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <netdb.h>
static void tell(const char *call) {
    FILE *log = fopen(getenv("CALLS"), "a");
    fprintf(log, "%s\\n", call);
    fclose(log);
}
int getaddrinfo(const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    tell(host ? host : "-");
    return EAI_FAIL;
}
int connect(int descriptor, const struct sockaddr *address, socklen_t length) {
    if (address->sa_family != AF_UNIX) tell("connect");
    return -1;
}
"""


def test_no_packet_is_sent_and_no_file_is_left(model: Path, tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        if os.environ.get("CI"):
            pytest.fail("no gcc: .ci/run installs it")
        pytest.skip("no gcc: apt-get install gcc libc6-dev")
    (tmp_path / "calls.c").write_text(NETWORK_CALLS)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", "calls.so", "calls.c"], cwd=tmp_path, check=True)
    home = tmp_path / "home"
    home.mkdir()
    paths = {"HOME": str(home), "CALLS": str(tmp_path / "calls"), "LD_PRELOAD": str(tmp_path / "calls.so")}
    environment = {key: text for key, text in os.environ.items() if not key.startswith(("XDG_", "ORT_"))} | paths
    code = (
        "import time; from sprintnet import Predictor; "
        f"print(Predictor({str(model)!r})({str(next((SAMPLE / 'test').rglob('*.png')))!r}).labels); time.sleep(12)"
    )
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert not (tmp_path / "calls").exists()
    assert list(home.rglob("*")) == []
    ask = "import contextlib, socket\nwith contextlib.suppress(OSError):\n    socket.getaddrinfo('example.org', 80)"
    subprocess.run([sys.executable, "-c", ask], env=environment, check=True)
    assert (tmp_path / "calls").read_text() == "example.org\n"  # this check would see a call


def test_one_file_that_is_too_large_costs_no_other(model: Path, sprintnet: Command, tmp_path: Path) -> None:
    good = sorted((SAMPLE / "test").rglob("*.png"))[:2]
    (tmp_path / "long.png").write_bytes(claiming(1, 64_000_000))
    done = sprintnet("predict", str(model), str(good[0]), "long.png", str(good[1]), "--format", "json")
    assert done.returncode == 3
    assert [row["file"] for row in json.loads(done.stdout) if "error" not in row] == [str(file) for file in good]
    assert "long.png: 1x64000000, more than 64 million pixels or a side of 30,000" in done.stderr


def test_other_sizes_are_resized_as_in_training(model: Path, exported: dict[str, RunFolder]) -> None:
    from sprintnet.deploy.run_predictor import RunPredictor

    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, (*size, 3), np.uint8) for size in ((500, 7), (97, 41), (16, 16), (33, 64))]
    found, expected = (
        predictor(images).probabilities for predictor in (Predictor(model), RunPredictor(exported["davidnet"].path))
    )
    np.testing.assert_allclose(found, expected, atol=1e-3)


def hostile(
    path: Path, *nodes: onnx.NodeProto, metadata: dict[str, str], initializers: tuple[onnx.TensorProto, ...] = ()
) -> Path:
    taken = helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", "H", "W", 3])
    given = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [taken], [given], initializers)
    file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    file.ir_version = 10
    helper.set_model_props(file, metadata)
    onnx.save(file, path)
    return path


def constant(name: str, values: np.ndarray) -> onnx.TensorProto:
    return onnx.numpy_helper.from_array(values, name)


def endless() -> onnx.NodeProto:
    """A loop that never ends."""
    names = ("i", "condition", "condition_out")
    kinds = (TensorProto.INT64, TensorProto.BOOL, TensorProto.BOOL)
    number, condition, out = (helper.make_tensor_value_info(name, kind, []) for name, kind in zip(names, kinds, strict=True))
    value_in, value_out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 2]) for name in ("v", "w"))
    nodes = [helper.make_node("Identity", ["condition"], ["condition_out"]), helper.make_node("Identity", ["v"], ["w"])]
    body = helper.make_graph(nodes, "body", [number, condition, value_in], [out, value_out])
    return helper.make_node("Loop", ["", "true", "start"], ["probabilities"], body=body)


@pytest.mark.parametrize(
    "kind", ["one row for all", "no number", "endless", "deep JSON", "1e999", "NaN in metrics", "not UTF-8"]
)
def test_files_that_answer_wrongly_or_never_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr("sprintnet.deploy.predictor.TRIAL_SECONDS", 1.0)
    preprocessing = Preprocessing(("a", "b"), (8, 8, 3), Normalisation((0,) * 3, (1,) * 3), "stretch", "single-label", True)
    text = json.dumps(preprocessing.to_metadata())
    half, row = np.full((2, 2), 0.5, np.float32), np.full((1, 2), 0.5, np.float32)
    node = helper.make_node("Identity", ["value"], ["probabilities"])
    metadata = {"preprocessing": text}
    constants = (constant("value", half),)
    if kind == "one row for all":
        constants = (constant("value", row),)
    elif kind == "no number":
        constants = (constant("value", half * np.nan),)
    elif kind == "endless":
        node, constants = endless(), (constant("start", half), constant("true", np.array(True)))
    elif kind == "deep JSON":
        metadata = {"preprocessing": "[" * 100_000}
    elif kind == "1e999":
        metadata = {"preprocessing": text.replace("[8, 8, 3]", "[1e999, 8, 3]")}
    elif kind == "NaN in metrics":
        metadata["metrics"] = '{"accuracy": NaN}'
    file = hostile(tmp_path / "a.onnx", node, metadata=metadata, initializers=constants)
    if kind == "not UTF-8":
        file.write_bytes(file.read_bytes().replace(b"stretch", b"stre\xff\xfeh"))
    with pytest.raises(SettingsError, match=r"a\.onnx: .*sprintnet export RUN"):
        Predictor(file)


def test_links_end_and_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("a/0.png", "1.png"):
        Image.fromarray(IMAGES[0]).save(tmp_path / name)
    for name in ("a/up", "a/again"):
        (tmp_path / name).symlink_to(tmp_path)
    (tmp_path / "gone.png").symlink_to("nowhere")
    found = [file.relative_to(tmp_path) for file in find_files([str(tmp_path)], io.StringIO())]
    assert found == [Path("1.png"), Path("a/0.png"), Path("gone.png")]


def test_a_file_that_has_changed_since_its_export_is_refused(model: Path, tmp_path: Path) -> None:
    content, generator, refused = model.read_bytes(), random.Random(0), 0
    for _ in range(30):
        changed = bytearray(content)
        changed[generator.randrange(len(changed))] ^= 1 << generator.randrange(8)
        (tmp_path / "a.onnx").write_bytes(changed)
        with pytest.raises(SettingsError) as caught:
            Predictor(tmp_path / "a.onnx")
        refused += "its content is not what was exported" in str(caught.value)
    assert refused > 20  # the others are no ONNX file any more
