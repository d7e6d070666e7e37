"""Lines for the terminal: aligned, never wrapped, plain; hostile names are inert."""

import re

import numpy as np
import pytest

from sprintnet.config import load_config
from sprintnet.evaluation.metrics import summarise
from sprintnet.experiments import compare
from sprintnet.reporting.text.evaluation import (
    calibration_text,
    chance_lines,
    evaluation_lines,
    faithfulness_lines,
    result_lines,
)
from sprintnet.reporting.text.export import missed_precision
from sprintnet.reporting.text.held_out import coverage_spread_text
from sprintnet.reporting.text.statistics import comparison_lines, suggestion_lines, summary_lines
from sprintnet.reporting.text.table import table_lines
from sprintnet.reporting.text.times import seconds_text
from sprintnet.reporting.text.training_table import table_cells


def metrics(classes: int) -> dict[str, object]:
    """Returns the metrics of a split of two images a class, one of them wrong."""
    names = ("[red]cat[/red]", *(f"class {index}" for index in range(1, classes)))
    logits = np.eye(classes)[[*range(classes), 1, *range(1, classes)]] * 3
    found = summarise(logits, np.tile(np.arange(classes), 2), names)
    calibration = {"ece": 0.1, "adaptive_ece": 0.2, "nll": 0.3, "brier": 0.4}
    return {**found, "calibration": calibration, "coverage": [{"coverage": 1.0, "accuracy": 0.5, "confidence": 0.3}]}


def test_names_are_plain_text_in_one_line_and_columns_are_aligned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "20")
    names = ["[bold]x[/bold] [/]", "two\nlines\x1b[31m", "\u732b\u732b", "n" * 300, ":smile:", "https://example.org"]
    header, *rows = table_lines(["name", "count"], [[name, f"{10**index}"] for index, name in enumerate(names)])
    assert [row.split("  ")[0] for row in rows[:3]] == [names[0], "two lines\ufffd[31m", names[2]]
    assert rows[3].startswith(names[3])
    assert header.split() == ["name", "count"]
    assert [row.rstrip().endswith(f" {10**index}") for index, row in enumerate(rows)] == [True] * len(rows)
    assert not any("\x1b" in row or "\n" in row for row in rows)
    assert len(rows[2]) == len(rows[0]) - 2  # two wide characters take four columns
    assert rows[4].startswith(":smile:")


def test_the_accuracy_has_its_interval_and_five_classes_no_top5() -> None:
    for classes, has_top5 in ((5, False), (6, True)):
        found = metrics(classes)
        low, high = (100 * bound for bound in found["accuracy_interval"])  # type: ignore[attr-defined]
        text = f"accuracy        {found['accuracy']:.2%} (95% CI {low:.2f} to {high:.2f})"
        lines = list(evaluation_lines(found))
        assert lines[0] == text
        assert ("top5_accuracy" in found, any("top-5" in line for line in lines)) == (has_top5, has_top5)
        assert sum("confusion matrix" in line for line in lines) == 1
        assert any(line.startswith("[red]cat[/red]  ") for line in lines)


def test_the_results_of_a_training_are_one_line_a_split() -> None:
    tta = {"accuracy": 0.7, "accuracy_interval": [0.6, 0.8], "fraction": 0.4, "seconds": 1.26}
    test = {"accuracy": 0.661, "accuracy_interval": [0.6517, 0.6702], "images": 10_000, "top5_accuracy": 0.9711}
    test |= {"classes": {"cat": {"support": 100}}}
    test |= {"calibration": {"ece": 0.17}, "calibrated": {"ece": 0.01}, "cross_entropy": 1.0795, "tta": tta}
    found = {
        "test": test,
        "val": {**test, "images": 1000},
        "temperature": 0.75,
        "undone_label_smoothing": 0.2,
        "train_seconds": 27.9,
    }
    found["images_per_second"] = 3581.2
    assert list(result_lines(found, "runs/train/x"))[2:] == [
        "test accuracy 66.10% (95% CI 65.17 to 67.02) on 10,000 images, top-5 accuracy 97.11%, cross-entropy 1.0795",
        "test TTA accuracy 70.00% (95% CI 60.00 to 80.00), TTA on 40% of the images, 1.3 s",
        "calibrated probabilities: test ECE 1.00% (before: 17.00%); label smoothing of 0.2 is undone, and a temperature of "
        "0.750 was fitted on the 1,000 val images",
        "trained in 27.9 s (3,581 images/s); run folder: runs/train/x",
    ]
    weak = {**test, "accuracy_interval": [0.09, 0.3]}
    (chance,) = chance_lines({**weak, "classes": {"cat": {"support": 1000}, "dog": {"support": 9000}}})
    assert chance == "not clearly better than chance: always predicting dog is right for 90.00% of these images"
    held_out = {**found, "val": {**test, "images": 30}}
    del held_out["test"]
    assert calibration_text(held_out).endswith(
        "fitted on the 30 val images (the same images: an optimistic estimate); these are few: more validation images give a "
        "better temperature; 30 images are too few to measure how well"
    )
    del found["val"]
    few = {**found, "temperature": None, "test": {**found["test"], "images": 99}}
    assert calibration_text(few).startswith("probabilities are not calibrated: with data.val=0")
    assert calibration_text({**found, "temperature": None}) == (
        "probabilities are not calibrated (test ECE 17.00%): with data.val=0 no images are held out for it; leave it at auto"
    )


@pytest.mark.parametrize(
    ("recipe", "setting", "taken"),
    [("davidnet", "optim.max_lr", "optim.max_lr=0.2"), ("sprint94", "muon.max_lr", "muon.max_lr=0.2 optim.max_lr=")],
)
def test_suggestions_name_their_setting_and_the_recommended_one(recipe: str, setting: str, taken: str) -> None:
    config, suggestions = load_config(recipe), {"steepest": 0.2, "minimum": 0.3, "valley": 0.1, "slide": 0.4}
    header, steepest, hint, peak, advice = suggestion_lines([{"suggestions": suggestions}], config, "steepest")
    assert header.split("  ")[0] == f"suggestion for {setting}"
    assert steepest.startswith("steepest (the loss falls fastest)")
    assert hint == "lr_find=true takes this one; other rules, shown on request: minimum, valley, slide"
    rows = list(suggestion_lines([{"suggestions": suggestions}], config, "steepest", all_rules=True))[1:5]
    assert [row.split()[0] for row in rows] == list(suggestions)
    assert peak == f"the recipe's {setting}, at its batch size: {config.peak_lr:g}"
    assert advice.startswith(f"to train with steepest: {taken}")
    assert load_config(recipe, advice.split(": ")[1].split()).peak_lr == pytest.approx(0.2, rel=1e-2)


def test_deletion_and_insertion_say_which_direction_is_good() -> None:
    random = {"deletion": 0.3, "insertion": 0.3}
    header, row, _, images = faithfulness_lines({"block2": {"deletion": 0.25, "insertion": 0.5}, "random": random}, 3)
    assert images == "means over the first 3 images: of large images, few are scored"
    assert header.split("  ")[1:] == ["deletion (lower is better)", "insertion (higher is better)"]
    assert row.split() == ["block2", "25.0%", "50.0%"]
    for worse in ({"deletion": 0.31, "insertion": 0.5}, {"deletion": 0.25, "insertion": 0.29}):
        *_, last = faithfulness_lines({"block2": worse, "random": random}, 1)
        assert last == "block2: not better than maps at random"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0821, "0.082 s"), (0.9124, "0.912 s"), (1.26, "1.26 s"), (9.87, "9.87 s"), (45.84, "45.8 s"), (1698.2, "1,698 s")],
)
def test_times_have_three_significant_digits(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


def test_the_time_of_an_epoch_is_the_articles_or_below_a_second_significant() -> None:
    row = dict.fromkeys(("epoch", "lr", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_seconds"), 0)
    assert [table_cells({**row, "train_seconds": seconds})[2] for seconds in (81.2, 6, 0.0821)] == [
        "01m 21s",
        "00m 06s",
        "0.082 s",
    ]


def test_metrics_that_do_not_vary_have_no_interval() -> None:
    table = summary_lines({"accuracy": compare.summarise([0.5, 0.7]), "ECE": compare.summarise([0.1, 0.1, 0.1])})
    _, accuracy, ece, reason = table
    assert accuracy.split() == ["accuracy", "60.00%", "14.14%", "0.00%", "to", "100.00%"]
    assert ece.split() == ["ECE", "10.00%", "0.00%", "-"]
    assert reason == "without an interval: nothing varies, so that the spread is unknown; more runs are needed"


def test_small_differences_and_p_values_are_not_shown_as_zero() -> None:
    losses = [2.30259, 2.30261, 2.30260], [2.30256, 2.30258, 2.30257]
    _, loss, *_ = comparison_lines({"cross-entropy": compare.compare(*losses)}, is_paired=False, split="val")
    assert "  -3e-05  " in loss
    assert " -0.0000 " not in loss
    tested = {"accuracy": compare.compare([0.5, 0.51, 0.505, 0.495], [0.9, 0.91, 0.905, 0.895])}
    _, accuracy, *_ = comparison_lines(tested, is_paired=False, split="val")
    assert " <0.0001 " in accuracy


def test_classes_that_are_surely_less_precise_than_asked_are_named() -> None:
    rows = [
        {"class": name, "threshold": 0.5, "predictions": 100, "precision": precision, "precision_interval": interval}
        for name, precision, interval in [("cat", 0.7, [0.6, 0.78]), ("dog", 0.75, [0.66, 0.82]), ("ship", None, None)]
    ]
    assert missed_precision({"rows": rows, "min_precision": 0.8}) == "less precise than the 80% asked for: cat"
    assert missed_precision({"rows": rows}) == ""


def test_the_coverage_of_one_draw_varies_as_the_beta_distribution_says() -> None:
    from scipy import stats

    for images, expected in {
        500: "of one draw of 500, 90% means 87% to 93%",
        99: "of one draw of 99, 90% means 84% to 96%",
    }.items():
        assert expected in coverage_spread_text({"held_out": images})
        left_out = int((images + 1) * 0.1)
        bounds = stats.beta.interval(0.95, images + 1 - left_out, left_out)  # Vovk 2012, exactly
        assert np.array(re.findall(r"(\d+)%", expected)[1:], float) / 100 == pytest.approx(bounds, abs=0.012)
