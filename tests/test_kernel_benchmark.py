"""benchmark --kernels: each layer's implementations, and failure where the chosen one is slower than another."""

import pytest

from sprintnet.cli.main import main
from sprintnet.experiments import kernel_benchmark
from sprintnet.experiments.kernel_benchmark import LayerTimes
from sprintnet.kernels import dispatch


def test_a_choice_that_is_slower_than_the_best_by_more_than_a_twentieth_is_seen() -> None:
    times = LayerTimes("conv3x3", 64, 64, 15, {"amx": 100.0, "pytorch": 105.0}, "pytorch")
    assert times.is_best
    assert not times._replace(milliseconds={"amx": 100.0, "pytorch": 106.0}).is_best
    assert times.gflops("amx") == pytest.approx(3 * 2 * 9 * 64 * 64 * 15 * 15 * 1000 / 0.1 / 1e9)


def test_the_command_lists_layers_and_fails_for_slow_choices(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    choice = dispatch.Choice(128, 128, 3, ("winograd_torch", "pytorch"))
    monkeypatch.setattr(dispatch, "choices", lambda: {("avx2", "conv3x3"): [choice]})
    for name, value in (("IMAGES", 64), ("WARM_UP", 0), ("REPEATS", 1)):
        monkeypatch.setattr(kernel_benchmark, name, value)
    monkeypatch.setattr(kernel_benchmark, "TOLERANCE", 1e9)
    assert main(["benchmark", "--kernels", "precision=fp32", "threads=1"]) == 0
    printed = capsys.readouterr().out
    assert "conv3x3 128->128, 3x3" in printed
    assert "pytorch" in printed
    monkeypatch.setattr(kernel_benchmark, "TOLERANCE", 0.0)
    assert main(["benchmark", "--kernels", "precision=fp32", "threads=1"]) == 1
    assert "1 of 1 layers have a faster implementation" in capsys.readouterr().err


def test_a_precision_without_kernels_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "--kernels", "precision=fp16"]) == 2
    assert "precision=fp16: kernels exist for bf16 and fp32 only" in capsys.readouterr().err
