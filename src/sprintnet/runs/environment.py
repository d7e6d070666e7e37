"""The record of the machine and the code that a run comes from."""

import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]
PROCESSOR_NAMES = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16", "avx512f": "AVX-512", "avx2": "AVX2", "asimd": "NEON"}
"""Names of the kinds of processors, by the feature that tells them from older ones; the newest first."""


def environment_record(**more: Any) -> dict[str, Any]:
    """Returns commit, command, versions, system and processor, with `more` added."""
    versions = {}
    for package in ("sprintnet", "torch", "numpy", "safetensors"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "commit": _commit(),
        "code_sha256": _code_sha256(),
        "command": ["sprintnet", *sys.argv[1:]],
        "versions": {"python": platform.python_version(), **versions},
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": cpu_name(),
        "processor": next((feature for feature in PROCESSOR_NAMES if feature in cpu_flags()), None),
        "cores": os.cpu_count(),
        **more,
    }


def own_rank() -> int | None:
    """Returns the rank of this process, by the variables that torchrun sets; None where it is the only one."""
    is_one_of_several = int(os.environ.get("WORLD_SIZE", "1")) > 1 and "MASTER_ADDR" in os.environ
    return int(os.environ["RANK"]) if is_one_of_several else None


def cpu_name() -> str:
    """Returns the processor's name as the kernel or the platform gives it."""
    return _cpuinfo().get("model name") or platform.processor() or "unknown"


def cpu_flags() -> frozenset[str]:
    """Returns the processor's feature flags (`avx512_bf16`, `asimd`, ...); empty where the system does not list them."""
    found = _cpuinfo()
    return frozenset((found.get("flags") or found.get("Features", "")).split())  # of x86, of ARM


def _cpuinfo() -> dict[str, str]:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _commit() -> str | None:
    """Returns the commit of the source tree, with `+` where the package has uncommitted changes.

    Outside of git, that of the installed wheel, or what the environment variable SPRINTNET_COMMIT says, or None.
    """

    def git(*arguments: str) -> str:
        result = subprocess.run(["git", *arguments], cwd=PACKAGE, capture_output=True, text=True, timeout=10, check=True)
        return result.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # an installed copy may lie inside somebody else's repository
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        built_from = PACKAGE / "commit.txt"  # written by hatch_build.py
        return built_from.read_text("ascii") if built_from.exists() else os.environ.get("SPRINTNET_COMMIT")


def _code_sha256() -> str:
    """Returns the digest of the package's files: installed copies have no commit, and a commit may have uncommitted changes."""
    sha256 = hashlib.sha256()
    for file in sorted(file for file in PACKAGE.rglob("*") if file.suffix in {".py", ".c", ".h", ".csv", ".toml"}):
        sha256.update(str(file.relative_to(PACKAGE)).encode() + b"\0" + file.read_bytes())
    return sha256.hexdigest()
