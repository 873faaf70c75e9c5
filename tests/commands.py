"""The study of conftest through the command line, for the tests of the whole system."""

import subprocess
import sys
from pathlib import Path

import pandas as pd

from study import schema

SECONDS = 900
"""More than any of these runs takes on a very busy machine."""


def command(preset: Path | str, storage: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "study.ablation", "--preset", str(preset), "--storage", str(storage), *more]


def study(preset: Path | str, storage: Path, *more: str, status: int = 0) -> str:
    """Run the command, and give what it printed."""
    done = subprocess.run(command(preset, storage, *more), capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout + done.stderr


def table(storage: Path, name: str) -> pd.DataFrame:
    """A result table, as the user reads it."""
    return pd.read_parquet(storage / "studies" / "tiny" / f"{name}.parquet")


def assert_same_results(one: Path, other: Path) -> None:
    """Two runs of one study must agree in all columns but times, hosts and versions."""
    for name in schema.TABLES:
        volatile = schema.volatile_columns(name)
        left, right = (table(storage, name).drop(columns=volatile) for storage in (one, other))
        pd.testing.assert_frame_equal(left, right, check_exact=True)
