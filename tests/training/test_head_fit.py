"""The last layer fitted to embeddings: scikit-learn's logistic regression, its penalty by cross-validation; whole runs."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from conftest import SAMPLE
from sprintnet.config import Config, load_config
from sprintnet.data.dataset import ImageDataset
from sprintnet.data.load import load_splits
from sprintnet.errors import ArgumentError, SettingsError, VerificationError
from sprintnet.evaluation.explain import explain
from sprintnet.evaluation.task import TASKS
from sprintnet.evaluation.trained_model import load_run
from sprintnet.experiments.placement import Placement
from sprintnet.experiments.tuning.tune import Tuning, tune
from sprintnet.models.ensemble import Ensemble
from sprintnet.models.transfer import load_pretrained
from sprintnet.replay import repeat
from sprintnet.reporting.html.comparison import write_comparison
from sprintnet.reporting.html.report import write_report
from sprintnet.runs.folder import RunFolder, read_arrays, read_json, read_rows
from sprintnet.runs.io import cache_folder, write_arrays
from sprintnet.runtime import select_runtime
from sprintnet.training import head_fit
from sprintnet.training import train as pipeline
from sprintnet.training.head_fit import FOLDS, PATIENCE, STRENGTHS, Embeddings, Objective, cross_validate, embed
from sprintnet.training.setup import build_step
from sprintnet.training.warm_up import step_seconds
from sprintnet.verification import _metrics

WORDS = ["data.size=0", "model.enlarge_to=64", "threads=1", "precision=fp32", "device=cpu"]
SINGLE = Objective(TASKS["single-label"], 0.0, None)
CPU = select_runtime("cpu", "fp32", 1)


def blobs(images: int, classes: int = 3, features: int = 8, views: int = 1) -> tuple[Embeddings, np.ndarray]:
    """Overlapping classes of embeddings, scaled as `embed` scales them."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(images) % classes
    centres = torch.randn(classes, features, generator=generator)
    values = centres[labels] + torch.randn(views, images, features, generator=generator)
    values -= values.mean((0, 1))
    return Embeddings(values / values.square().mean().sqrt(), labels, 1.0, torch.zeros(features)), labels.numpy()


@pytest.mark.parametrize("strength", [1.0, 0.01])
def test_the_layer_is_that_of_scikit_learn(strength: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_fit, "TOLERANCE", 1e-6)
    embeddings, labels = blobs(90)
    inputs = embeddings.values[0]
    layer = SINGLE.minimised(inputs, embeddings.targets, strength, np.zeros((3, 9)))
    theirs = LogisticRegression(C=1 / (strength * len(labels)), tol=1e-8, max_iter=1000).fit(inputs.numpy(), labels)
    np.testing.assert_allclose(layer[:, :-1], theirs.coef_, atol=2e-3)
    centred = layer[:, -1] - layer[:, -1].mean()  # softmax is the same for any sum of biases
    np.testing.assert_allclose(centred, theirs.intercept_ - theirs.intercept_.mean(), atol=2e-3)


def test_the_layer_of_several_labels_is_that_of_scikit_learn_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_fit, "TOLERANCE", 1e-6)
    embeddings, labels = blobs(80)
    inputs = embeddings.values[0]
    marks = np.stack([labels == 0, labels >= 1], 1).astype(np.float32)
    objective = Objective(TASKS["multi-label"], 0.0, None)
    layer = objective.minimised(inputs, torch.from_numpy(marks), 0.1, np.zeros((2, 9)))
    for row, mark in zip(layer, marks.T, strict=True):
        theirs = LogisticRegression(C=1 / (0.1 * len(labels)), tol=1e-8, max_iter=1000).fit(inputs.numpy(), mark)
        np.testing.assert_allclose(row, [*theirs.coef_[0], *theirs.intercept_], atol=2e-3)


def test_cross_validation_is_what_its_folds_say() -> None:
    embeddings, labels = blobs(60, views=2)
    losses, accuracies, chosen, predictions = cross_validate(SINGLE, embeddings, labels, 3)
    from sprintnet.data.splits import stratified_k_fold

    fold_of = stratified_k_fold(labels, FOLDS)
    expected = []
    for fold in range(FOLDS):
        kept, rest = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
        both = embeddings.values[:, kept].flatten(0, 1).numpy()  # an image and its mirror image are in one fold
        theirs = LogisticRegression(C=1 / (STRENGTHS[0] * len(both)), max_iter=1000).fit(both, np.tile(labels[kept], 2))
        probabilities = theirs.predict_proba(embeddings.values[0, rest].numpy())
        expected += [-np.log(probabilities[np.arange(len(rest)), labels[rest]])]
    assert losses[0] == pytest.approx(np.concatenate(expected).mean(), abs=2e-3)
    logits, kept_labels, index = (predictions.arrays[name] for name in ("logits", "labels", "index"))
    assert (logits.argmax(1) == kept_labels).mean() == pytest.approx(accuracies[chosen])
    assert chosen == int(np.argmin(losses))
    assert np.array_equal(kept_labels, labels[index])
    assert sorted(index) == list(range(len(labels)))
    assert len(losses) == len(accuracies) == len(STRENGTHS) or len(losses) - 1 - int(np.argmin(losses)) == PATIENCE


def test_images_of_a_group_are_in_one_fold() -> None:
    embeddings, labels = blobs(60)
    twins = embeddings._replace(values=embeddings.values.repeat(1, 2, 1), targets=embeddings.targets.repeat(2))
    groups = [str(index % 60) for index in range(120)]  # of each image a copy
    apart = cross_validate(SINGLE, twins, np.tile(labels, 2), 3, groups)
    mixed = cross_validate(SINGLE, twins, np.tile(labels, 2), 3)
    assert min(apart.losses) > min(mixed.losses)  # copies on both sides flatter
    assert apart.accuracies[apart.chosen] == pytest.approx(
        cross_validate(SINGLE, embeddings, labels, 3).accuracies[apart.chosen], abs=0.1
    )


def test_few_images_of_a_class_are_no_error() -> None:
    embeddings, _ = blobs(4, classes=4)
    assert np.isfinite(cross_validate(SINGLE, embeddings, np.arange(4), 4).losses).all()


def config(*words: str) -> Config:
    return load_config("photos", [f"data={SAMPLE}", *WORDS, *words])


Train = Callable[..., RunFolder]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The sample's 200 training images of CIFAR-10, the last layer alone."""
    folder = RunFolder(tmp_path_factory.mktemp("photos") / "run")
    pipeline.train(config(), folder)
    return folder


def test_a_few_images_suffice(run: RunFolder) -> None:
    metrics = read_json(run.metrics)
    assert metrics["epochs"] == 0
    assert metrics["images_per_second"] is None
    assert metrics["val"]["accuracy"] > 0.5  # ten classes; from scratch a third
    fit = read_json(run.head_fit)
    assert fit["mirrored"]
    assert fit["strength"] == fit["strengths"][int(np.argmin(fit["losses"]))]
    assert metrics["val"]["accuracy"] == pytest.approx(max(fit["accuracies"]), abs=0.15)
    assert not run.results.exists()
    assert metrics["cross_validation"]["images"] == 180  # the temperature is that of all training images, each held out in turn
    kept = read_arrays(run.predictions)
    assert np.array_equal(np.sort(kept["cross_validation_index"]), np.arange(180))
    wrong = kept["cross_validation_logits"].argmax(axis=1) != kept["cross_validation_labels"]
    assert metrics["cross_validation"]["accuracy"] == pytest.approx(1 - wrong.mean()) == pytest.approx(max(fit["accuracies"]))
    artifacts = read_arrays(run.artifacts)  # what the layer was fitted to
    assert np.array_equal(artifacts["augmented"], artifacts["originals"][None, :, :, ::-1])


def test_the_report_of_few_images_has_cross_validation_and_no_calibration_error(run: RunFolder, tmp_path: Path) -> None:
    page = write_report(run, tmp_path / "report.html").read_text("utf-8")
    found = read_json(run.metrics)
    assert f"<dt>accuracy in cross-validation</dt><dd>{found['cross_validation']['accuracy']:.2%}" in page
    assert "20 images are too few to measure it" in page
    for key in ("calibration", "calibrated"):
        assert f"<td>{found['val'][key]['ece']:.2%}</td>" not in page


def test_the_report_shows_which_training_images_are_wrong_in_cross_validation(run: RunFolder, tmp_path: Path) -> None:
    images = load_splits(config().data, lambda line: None)["train"]
    rows = [row for row in read_rows(run.predictions_csv) if row["split"] == "cross_validation"]
    assert [row["true"] for row in rows] == [images.classes[images.labels[int(row["index"])]] for row in rows]
    wrong = {row["index"]: float(row["confidence"]) for row in rows if row["true"] != row["predicted"]}
    artifacts = read_arrays(run.artifacts)
    index = artifacts["cross_validation_error_index"]
    assert {str(one) for one in index} == set(wrong)
    assert (np.diff([wrong[str(one)] for one in index]) <= 0).all()
    assert np.array_equal(artifacts["cross_validation_error_images"], images.images[index])
    page = write_report(run, tmp_path / "report.html").read_text("utf-8")
    section = page[page.index('<section id="cross-validation">') : page.index('<section id="classes">')]
    assert section.count("<figure ") == len(wrong)
    assert f"All {len(wrong)} wrong predictions" in section


def test_verification_computes_the_cross_validation_again(run: RunFolder, tmp_path: Path) -> None:
    copy = RunFolder(tmp_path / "run")
    shutil.copytree(run.path, copy.path)
    (check,) = _metrics(copy)
    assert "val and cross_validation" in check.detail
    arrays = read_arrays(copy.predictions)
    arrays["cross_validation_logits"][0] *= -1
    write_arrays(copy.predictions, **arrays)
    (copy.path / "checksums.txt").unlink()
    with pytest.raises(VerificationError, match="cross_validation"):
        list(_metrics(copy))


def test_embeddings_are_those_of_the_network_and_its_mirror_images(run: RunFolder) -> None:
    settings = config()
    images: ImageDataset = load_splits(settings.data, lambda line: None)["train"]
    pretrained = load_pretrained(settings.init_from, settings.model)
    step, loader = build_step(settings, images, CPU, pretrained)
    with CPU.activated():
        found = embed(step.model, loader, images, settings, CPU, lambda items, *_: items)
    assert found.values.shape == (2, len(images), 1280)
    step.model.eval()
    first = loader.read(slice(3))
    with torch.no_grad():
        for view, pixels in zip(found.values, (first, first.flip(-1)), strict=True):
            expected = step.model.embed(step.model.features(pixels))
            torch.testing.assert_close(view[:3] * found.scale + found.centre, expected, rtol=1e-3, atol=1e-4)
    assert found.values.square().mean().item() == pytest.approx(1, rel=1e-3)


def test_without_flips_no_mirror_images_are_embedded(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    pipeline.train(config("augment.flip=0", "auto=", "epochs=0"), folder)
    assert not read_json(folder.head_fit)["mirrored"]
    assert not len(read_arrays(folder.artifacts)["augmented"])


def test_embeddings_are_kept_for_the_next_run(run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list((cache_folder() / "embeddings").glob("*.npz"))

    def fail(*_: Any, **__: Any) -> None:
        pytest.fail("embedded again")

    monkeypatch.setattr(head_fit, "_one_pass", fail)
    again = RunFolder(tmp_path / "again")
    pipeline.train(config(), again)
    assert again.weights.read_bytes() != b""
    assert read_json(again.metrics)["val"] == read_json(run.metrics)["val"]


def test_a_run_of_no_epochs_is_repeated_to_the_bit(run: RunFolder) -> None:
    settings = load_config(run.resolved)
    assert repeat(run, settings, load_splits(settings.data, lambda line: None, run))[0]


def test_all_layers_are_trained_after_the_last(run: RunFolder, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "tuned")
    pipeline.train(config("auto=", "epochs=2", "batch_size=50"), folder)
    rows = read_rows(folder.results)
    assert len(rows) == 2
    said = re.search(r"next, all layers: 2 epochs, about ([\d.]+) s", folder.log_text.read_text())
    assert said
    taken = sum(float(row["train_seconds"]) for row in rows)
    assert taken / 4 < float(said[1]) < 4 * taken
    assert float(rows[-1]["train_accuracy"]) > read_json(run.metrics)["val"]["accuracy"]
    before, after = (load_run(each.path)[0].model.state_dict() for each in (run, folder))
    changes = {name: float((after[name] - before[name]).norm() / before[name].norm()) for name in after if "conv" in name}
    assert 0 < changes["stem.conv.weight"] < changes["head.conv.weight"]  # smaller learning rates towards the first layers
    assert torch.equal(after["stem.norm.running_mean"], before["stem.norm.running_mean"])


def test_expecting_how_long_it_takes_changes_nothing() -> None:
    settings = config("auto=", "model.dropout=0.5", "batch_size=20")
    images = load_splits(settings.data, lambda line: None)["train"]
    with CPU.activated(0):
        step, loader = build_step(settings, images, CPU, load_pretrained(settings.init_from, settings.model))
        before = {name: tensor.clone() for name, tensor in step.model.state_dict().items()}
        generator = torch.get_rng_state()
        assert step_seconds(step, loader) > 0
        assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(tensor, before[name]) for name, tensor in step.model.state_dict().items())
    assert all(parameter.grad is None for parameter in step.model.parameters())


def test_the_average_of_the_weights_begins_with_the_fitted_head(run: RunFolder, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "averaged")
    pipeline.train(config("ema=0.9"), folder)
    assert read_json(folder.metrics)["val"]["accuracy"] == read_json(run.metrics)["val"]["accuracy"]


def test_an_ensemble_works_on_images_of_its_members_size(run: RunFolder) -> None:
    member = load_run(run.path)[0].model
    ensemble = Ensemble([member, member], is_multi_label=False)
    assert ensemble.working_shape((32, 32, 3)) == member.working_shape((32, 32, 3)) == (64, 64, 3)


def test_runs_without_epochs_are_compared(run: RunFolder, tmp_path: Path) -> None:
    other = RunFolder(tmp_path / "other")
    pipeline.train(config("augment.flip=0", "auto=", "epochs=0"), other)
    write_comparison([run, other], tmp_path / "page.html")
    assert "accuracy" in (tmp_path / "page.html").read_text("utf-8")


def test_a_search_over_no_epochs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="epochs=0: only the last layer is fitted"):
        tune(Tuning(config("data.val=0.2"), (), 1, 1, 0, Placement()), RunFolder(tmp_path / "search"), print)


def test_maps_of_a_layer_inside_are_shown_or_refused(run: RunFolder) -> None:
    trained = load_run(run.path)[0]
    images = load_splits(config().data, lambda line: None)["train"].images[:2]
    assert explain(trained, images, layer="stages.3").scored == 2
    with pytest.raises(ArgumentError, match="has no feature maps"):
        explain(trained, images, layer="head.conv")  # folded with its norm


def test_fits_the_head_of_an_earlier_run(run: RunFolder, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "other")
    pipeline.train(config(f"init_from={run.path}"), folder)
    assert read_json(folder.metrics)["val"]["accuracy"] == read_json(run.metrics)["val"]["accuracy"]


def test_a_last_layer_without_bias_is_refused(tmp_path: Path) -> None:
    words = [f"data={SAMPLE}", "epochs=1", "model.width=8", "threads=1", "precision=fp32"]
    origin = RunFolder(tmp_path / "origin")
    pipeline.train(load_config("sprint94", words), origin)
    with pytest.raises(SettingsError, match="the last layer of sprintnet has no bias; use freeze_backbone=true"):
        pipeline.train(
            load_config("sprint94", [*words, f"init_from={origin.path}", "head.fit=true"]), RunFolder(tmp_path / "run")
        )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["head.fit=false", "epochs=0"], "epochs=0: trains nothing; use 1 or more, or head.fit=true"),
        (["init_from="], "head.fit=true: fits the head of a trained network only"),
    ],
)
def test_settings_that_train_nothing_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        config(*words)


def test_the_record_of_a_fit_is_complete(run: RunFolder) -> None:
    assert set(json.loads(run.head_fit.read_text())) == {
        "strength", "strengths", "losses", "accuracies", "mirrored", "embedding_seconds", "fit_seconds",
    }  # fmt: skip
