"""Names of studies and searches."""

import os
from pathlib import PurePath

TUNED = "tuned"
"""The ablation of the nets that are each at their best."""
OWN_SETTINGS = "this study's settings"
"""The point of a search that has them."""
PATH = "ablation path"
"""The ablation of the nets on the way from a study's settings to the best that its search found."""
MOST_BYTES = 200
"""File systems take 255 for a folder; some tools add an ending."""


def name_fault(name: str) -> str | None:
    """What is wrong with the name of a study or a search, which becomes one folder, and what would be right.

    Returns:
        A clause for a message, or None if the name can be used.
    """
    if not name or name != PurePath(name).name or name == "..":
        return "give a name without slashes"
    if not name.isprintable():
        return "give a name without control characters, such as tabs and line breaks"
    if name.startswith("-") or name.endswith(".") or name != name.strip():
        return "give a name that does not start with a dash, end with a dot, or have spaces around it"
    if len(os.fsencode(name)) > MOST_BYTES:
        return f"give a name of at most {MOST_BYTES} bytes"
    return None
