"""Builds a release in dist/ and tries it: sdist and wheel, their checks, a clean install of each, a list of what it installs.

    make release

The sdist and the wheel are installed into fresh environments of the oldest and of the newest Python that this machine has, of
those that the package supports. dist/ also gets an SBOM (CycloneDX) of the oldest environment, which has the extra `all`.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
MINORS = range(11, 30)
"""Minor versions of Python 3 that are looked for; pyproject.toml has the first."""
TRIAL = "import sprintnet; sprintnet.Predictor; print(sprintnet.__version__)"


def run(*command: str | Path) -> str:
    """Runs a command and returns what it printed; ends the program where it fails."""
    print("+", *command, flush=True)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}release: the command above failed with exit code {done.returncode}")
    return done.stdout


def pythons() -> list[str]:
    """Returns the oldest and the newest interpreter, as they start."""
    found = []
    for minor in MINORS:
        if program := shutil.which(f"python3.{minor}"):
            started = subprocess.run([program, "--version"], capture_output=True, check=False)  # a shim may have none
            found += [program] * (started.returncode == 0)
    if not found:
        sys.exit("release: no Python 3.11 or newer is on PATH")
    return list(dict.fromkeys([found[0], found[-1]]))


def try_install(python: str, package: Path, extra: str, folder: Path) -> Path:
    """Installs a package into a fresh environment and uses it; returns the environment's Python."""
    run(python, "-m", "venv", folder)
    installed = folder / "bin" / "python"
    run(installed, "-m", "pip", "install", "--quiet", "--constraint", "constraints.txt", f"{package}[{extra}]")
    version = run(installed, "-c", TRIAL).strip()
    if version not in package.name:
        sys.exit(f"release: {package.name} says that it is version {version}")
    run(folder / "bin" / "sprintnet", "recipes")
    run(folder / "bin" / "sprintnet", "predict", "--help")
    return installed


def main() -> None:
    """Builds, checks, installs."""
    if run("git", "status", "--porcelain"):
        sys.exit("release: there are uncommitted changes; commit them first, so that the wheel has its commit")
    shutil.rmtree(DIST, ignore_errors=True)
    run(sys.executable, "-m", "build", "--outdir", DIST)
    packages = sorted(DIST.iterdir())
    run(sys.executable, "-m", "twine", "check", "--strict", *packages)
    with tempfile.TemporaryDirectory() as folder:
        for number, python in enumerate(pythons()):
            for package in packages:
                is_first = number == 0 and package.suffix == ".whl"
                place = Path(folder) / f"{number}{package.suffix}"
                installed = try_install(python, package, "all" if is_first else "predict", place)
                if is_first:
                    bill = DIST / f"{package.name.rsplit('-', 3)[0]}.cdx.json"
                    run(sys.executable, "-m", "cyclonedx_py", "environment", installed, "--output-file", bill)
    print(*(f"{path.relative_to(ROOT)}  {path.stat().st_size:,} bytes" for path in sorted(DIST.iterdir())), sep="\n")


if __name__ == "__main__":
    main()
