"""Generates finetuned/_sync from finetuned/_async; --check only compares them."""

import subprocess
import sys
import tempfile
from pathlib import Path

import unasync

ROOT = Path(__file__).parents[1]
SOURCE, TARGET = ROOT / "finetuned/_async", ROOT / "finetuned/_sync"
NAMES = {
    **{f"Async{name}": name for name in (
        "Client", "Transport", "Job", "Jobs", "Models", "Evaluation", "Evaluations", "Ratings", "Dataset", "Datasets",
        "Plans", "Sweeps", "Workers", "Keys", "Quotas", "Secrets", "Webhooks",
    )},
    "_async": "_sync",
    "aclose": "close",
    "aread": "read",
    "aiter_lines": "iter_lines",
    "aiter_raw": "iter_raw",
    "follow_async": "follow",
    "download_async": "download",
    "pause_async": "pause",
}  # fmt: skip


def generate(target: Path) -> None:
    """Writes the synchronous modules into `target`."""
    sources = [str(path) for path in sorted(SOURCE.glob("*.py")) if path.name != "__init__.py"]
    unasync.unasync_files(sources, [unasync.Rule(f"{SOURCE}/", f"{target}/", NAMES)])
    (target / "__init__.py").write_text('"""Generated from finetuned/_async by scripts/client.py; edit that."""\n')
    for arguments in (["check", "--quiet", "--fix", "--select=I,F401,UP028", "--unsafe-fixes"], ["format", "--quiet"]):
        config = ["--config", str(ROOT / "pyproject.toml")]
        subprocess.run([sys.executable, "-m", "ruff", *arguments, *config, str(target)], check=True)


def differences() -> list[str]:
    """Names of the committed modules that differ from what the source generates."""
    with tempfile.TemporaryDirectory(dir=ROOT, prefix=".client-") as folder:
        fresh = Path(folder) / "_sync"
        generate(fresh)
        names = {path.name for each in (fresh, TARGET) for path in each.glob("*.py")}
        return sorted(name for name in names if _text(fresh / name) != _text(TARGET / name))


def _text(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        if stale := differences():
            sys.exit(f"finetuned/_sync is stale: {', '.join(stale)}; run python scripts/client.py")
    else:
        generate(TARGET)
