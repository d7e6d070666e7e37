"""A wheel brings compiled kernels along: the same bits as those compiled at first use, and no compiler where it runs."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from sprintnet.kernels import build, compiler
from sprintnet.kernels.compiler import instruction_sets

ROOT = Path(__file__).parents[2]
NO_PROGRAMS = str(ROOT / "no such folder")
KERNELS = sorted(path.stem for path in build.SOURCES.glob("*.c"))
pytestmark = pytest.mark.usefixtures("gcc")

STEP = """
import hashlib, json, torch
from pathlib import Path
from torch.nn import functional as F
from sprintnet.kernels import build
from sprintnet.models.sprintnet import SprintNet

torch.set_num_threads(1)
report = {}
for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
    torch.manual_seed(0)
    network = SprintNet(10, 3, (32, 32), width=32).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype, enabled=precision != "fp32"):
        loss = F.cross_entropy(network(torch.randn(64, 3, 32, 32)), torch.arange(64) % 10)
    loss.backward()
    gradients = b"".join(p.grad.numpy().tobytes() for p in network.parameters() if p.grad is not None)
    paths = [Path(build.load_library(name)._name) for name in build.available_libraries(precision)]
    report[precision] = {
        "gradients": hashlib.sha256(gradients).hexdigest(),
        "libraries": build.available_libraries(precision),
        "folders": sorted({str(path.parent) for path in paths}),
        "reason": build.unavailable_reason(precision),
    }
report["openmp"] = len({line.split()[-1] for line in open("/proc/self/maps") if "libgomp" in line})
print(json.dumps(report))
"""
"""A training step in each precision, and where its kernels come from."""


def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, *arguments]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


def build_wheel(folder: Path, path: str = os.environ["PATH"]) -> tuple[Path, str]:
    """Returns the wheel of this source tree and the warnings; `path` is where programs are found."""
    command = ("-m", "pip", "wheel", "--verbose", "--no-build-isolation", "--no-deps", "--wheel-dir", str(folder), str(ROOT))
    warnings = run(*command, PATH=path).stderr
    (wheel,) = folder.glob("*.whl")
    return wheel, warnings


def install(wheel: Path, folder: Path) -> Path:
    run("-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), str(wheel))
    return folder


def libraries(wheel: Path) -> dict[str, bytes]:
    with ZipFile(wheel) as archive:
        return {Path(name).name: archive.read(name) for name in archive.namelist() if name.endswith(".so")}


def test_its_kernels_give_the_bits_of_those_compiled_at_first_use(tmp_path: Path) -> None:
    wheel, warnings = build_wheel(tmp_path)
    assert wheel.name.endswith("-py3-none-linux_x86_64.whl")
    assert "not compiled" not in warnings
    with ZipFile(wheel) as archive:
        assert ("sprintnet/commit.txt" in archive.namelist()) == (ROOT / ".git").exists()
    packaged = libraries(wheel)
    assert sorted(packaged) == sorted(f"{name}-{each.name}.so" for name in KERNELS for each in instruction_sets(name))
    assert not any(b"libgomp" in library for library in packaged.values())  # nor is another loaded, see below

    installed = install(wheel, tmp_path / "installed")
    isolated = {"PATH": NO_PROGRAMS, "SPRINTNET_CACHE": str(tmp_path / "cache")}
    found = json.loads(run("-c", STEP, PYTHONPATH=str(installed), **isolated).stdout)
    expected = json.loads(run("-c", STEP, PYTHONPATH=str(ROOT / "src")).stdout)
    for precision in ("fp32", "bf16"):
        assert found[precision]["reason"] == expected[precision]["reason"]
        assert found[precision]["libraries"] == expected[precision]["libraries"]
        assert found[precision]["gradients"] == expected[precision]["gradients"]
        if build.processor(precision):
            assert found[precision]["folders"] == [str(installed / "sprintnet" / "kernels" / "compiled")]
            assert found[precision]["folders"] != expected[precision]["folders"]
    assert found["openmp"] == expected["openmp"] == 1
    assert not (tmp_path / "cache").exists()


def test_its_build_needs_nothing_but_the_standard_library_to_compile() -> None:
    run("-I", "-S", str(compiler.__file__))


def test_without_a_compiler_it_is_built_without_kernels(tmp_path: Path) -> None:
    wheel, warnings = build_wheel(tmp_path, NO_PROGRAMS)
    assert wheel.name.endswith("-py3-none-any.whl")
    assert libraries(wheel) == {}
    assert "kernels not compiled, PyTorch does their work: gcc is not installed" in warnings
    installed = install(wheel, tmp_path / "installed")
    script = "import torch; from sprintnet.kernels import build; print(build.__file__, build.unavailable_reason('fp32'))"
    found = run("-c", script, PYTHONPATH=str(installed), PATH=NO_PROGRAMS).stdout
    assert found.startswith(str(installed))
    assert "gcc is not installed" in found


def test_what_an_older_compiler_refuses_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "programs").mkdir()
    older = tmp_path / "programs" / "gcc"
    older.write_text(
        f"""#!/bin/sh
case "$*" in
*max_pool_fp32* | -shared*) exec {shutil.which("gcc")} "$@" ;;
*) echo "gcc: error: unrecognized command-line option" >&2; exit 1 ;;
esac
""",
        "utf-8",
    )
    older.chmod(0o755)
    wheel, warnings = build_wheel(tmp_path, f"{older.parent}:{os.environ['PATH']}")
    assert wheel.name.endswith("-py3-none-linux_x86_64.whl")
    assert sorted(libraries(wheel)) == ["max_pool_fp32-avx2.so", "max_pool_fp32-avx512.so"]
    total = sum(len(instruction_sets(name)) for name in KERNELS)
    assert f"{total - 2} of {total} kernels not compiled" in warnings
    assert "gcc: error: unrecognized command-line option" in warnings
