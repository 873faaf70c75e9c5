"""Names of studies and searches."""

from pathlib import PurePath


def is_folder_name(name: str) -> bool:
    """Whether a study or a search may have this name: it becomes one folder."""
    return bool(name) and name == PurePath(name).name and name != ".."
