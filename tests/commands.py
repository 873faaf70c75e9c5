"""The study of conftest through the command line, for the tests of the whole system."""

import io
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pandas as pd

from study import ablation, schema
from study.files import Folder

ADDRESS = "object at 0x"
"""Of no use to a user: nothing that is printed may hold one."""
SECONDS = 900
"""More than any of these runs takes on a very busy machine."""


def command(preset: Path | str, storage: Path | str, *more: str) -> list[str]:
    return [sys.executable, "-m", "study.ablation", "--preset", str(preset), "--storage", str(storage), *more]


def study(preset: Path | str, storage: Path | str, *more: str, status: int = 0) -> str:
    """Run the command within this process, and without Ray unless it gets slots or an address; return what it prints.

    Ray is slow to start, and what is trained is the same without it.
    """
    where = () if {"--slots", "--address"} & set(more) else ("--slots", "0")
    arguments = ["--preset", str(preset), "--storage", str(storage), *more, *where]
    with redirect_stdout(printed := io.StringIO()), redirect_stderr(printed):
        ended = ablation.main(arguments)
    return _printed(printed.getvalue(), ended, status)


def study_process(preset: Path | str, storage: Path | str, *more: str, status: int = 0) -> str:
    """Run the command as a process of its own, on Ray unless it gets no slots; return what it prints."""
    done = subprocess.run(command(preset, storage, *more), capture_output=True, text=True, timeout=SECONDS)
    return _printed(done.stdout + done.stderr, done.returncode, status)


def _printed(text: str, ended: int, status: int) -> str:
    assert ended == status, text
    assert "Traceback" not in text and ADDRESS not in text, text
    return text


def table(storage: Path | str, name: str, study: str = "tiny") -> pd.DataFrame:
    """A result table, as the user reads it, of a storage on a disk or in an object store."""
    content = Folder(str(storage)).read(f"studies/{study}/{name}.parquet")
    assert content is not None
    return pd.read_parquet(io.BytesIO(content))


def assert_same_results(one: Path | str, other: Path | str, *studies: str) -> None:
    """Two runs of one study must agree in all columns but times, hosts and versions.

    The runs may have had different names, which are then given.
    """
    names = studies or ("tiny", "tiny")
    for name in schema.TABLES:
        volatile = schema.volatile_columns(name)
        left, right = (
            table(storage, name, study).drop(columns=volatile)
            for storage, study in zip((one, other), names, strict=True)
        )
        pd.testing.assert_frame_equal(left, right, check_exact=True)
