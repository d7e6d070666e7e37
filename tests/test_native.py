"""Kernels in C: made once, kept, and done without where they cannot be made."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sprintnet import native
from sprintnet.files import cache_folder

KERNEL = "#include <stdint.h>\nvoid twice(int64_t count, float *x) { for (int64_t i = 0; i < count; i++) x[i] *= 2; }\n"


@pytest.fixture(autouse=True)
def forgets() -> Iterator[None]:
    """What a test made of the compiler is not remembered after it."""
    yield
    for remembered in (native.compiler, native.compiled):
        remembered.cache_clear()


pytestmark = pytest.mark.skipif(shutil.which(native.COMPILER) is None, reason="no compiler here")


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kernel in a cache of its own, for a process that has PyTorch and its threads."""
    pytest.importorskip("torch")
    monkeypatch.setenv("SPRINTNET_CACHE", str(tmp_path / "cache"))
    for remembered in (native.compiler, native.compiled):
        remembered.cache_clear()
    path = tmp_path / "kernel.c"
    path.write_text(KERNEL, "utf-8")
    return path


def test_a_kernel_is_made_once_and_called_with_tensors(source: Path) -> None:
    import torch

    numbers = torch.arange(3.0)
    native.call(source, "twice", 2, numbers)
    assert numbers.tolist() == [0, 2, 2]
    (library,) = (cache_folder() / "compiled").iterdir()
    made = library.stat()
    native.compiled.cache_clear()
    native.call(source, "twice", 3, numbers)
    assert numbers.tolist() == [0, 4, 4]
    assert library.stat().st_mtime_ns == made.st_mtime_ns
    source.write_text(KERNEL.replace("*= 2", "*= 3"), "utf-8")
    native.compiled.cache_clear()
    native.call(source, "twice", 3, numbers)
    assert numbers.tolist() == [0, 12, 12]  # another source, another library


def test_its_threads_are_pytorchs(source: Path) -> None:
    source.write_text("#include <omp.h>\nvoid threads(int *found) { *found = omp_get_max_threads(); }\n", "utf-8")
    script = (
        "import sys, torch\nfrom pathlib import Path\nfrom sprintnet.native import call\n"
        "torch.set_num_threads(3)\nfound = torch.zeros(1, dtype=torch.int32)\ncall(Path(sys.argv[1]), 'threads', found)\n"
        "print(found.item(), sum('libgomp' in line and ' r-xp ' in line for line in open('/proc/self/maps')))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(source)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3", "1"]  # and one OpenMP library, not two


@pytest.mark.parametrize("obstacle", ["compiler", "source", "cache", "threads"])
def test_what_cannot_be_made_is_done_without(
    source: Path, obstacle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if obstacle == "compiler":
        monkeypatch.setattr(native, "COMPILER", "no-such-compiler")
    elif obstacle == "source":
        source.write_text("#error no such instructions\n", "utf-8")
    elif obstacle == "cache":
        (tmp_path / "cache").write_text("a file, not a folder", "utf-8")
    else:
        monkeypatch.setattr(native, "_loaded_openmp", lambda: None)
    assert native.compiled(source) is None
    if obstacle == "source":
        assert not list((cache_folder() / "compiled").iterdir())
