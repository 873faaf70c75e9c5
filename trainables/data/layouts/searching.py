"""Looking through the folders of a data set: which files are its images, and what is passed over."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from trainables.data.layouts.catalogue import Problem

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff"})
"""What counts as an image in a folder, in lower case; other files are passed over, and counted."""
OTHER_PICTURES = frozenset(
    {".gif", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".tga", ".svg", ".dcm", ".npy", ".raw", ".dng", ".cr2", ".nef"}
)
"""Pictures that are not read: whoever has some among the others wants them to count."""
ENDING = "files ending in "
HELPERS = frozenset(
    {"@eaDir", "#recycle", "@Recycle", "@tmp", "#snapshot", "__MACOSX", "$RECYCLE.BIN", "lost+found"}
    | {"System Volume Information"}
)
"""Folders that network drives and operating systems leave behind, with copies of images in some."""


@dataclass
class FolderSearch:
    """A search through a data set's folders, each once, whatever links there are."""

    root: Path | None = None
    """The data set's folder; None: whichever is searched."""
    endings: frozenset[str] = EXTENSIONS
    """What counts as one of its files, in lower case."""
    left_out: Counter[str] = field(default_factory=Counter)
    """What was passed over, with its number."""
    problems: list[Problem] = field(default_factory=list)
    _visited: set[tuple[int, int]] = field(default_factory=set)

    def subfolders(self, folder: Path) -> list[str]:
        """Names of the folders in a folder, sorted, without hidden ones; none if it is not there."""
        if not folder.is_dir():
            return []
        found = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_symlink() and not os.path.exists(entry.path):  # noqa: PTH110 (a name, not a path)
                        self.problems.append(Problem(entry.path, "it is a link to what is not there"))
                    elif entry.is_dir() and self._is_own(folder, folder, entry.name):
                        found.append(entry.name)
        except OSError as error:
            self.problems.append(Problem(str(folder), f"the folder cannot be read: {error.strerror}"))
        return sorted(found)

    def images(self, folder: Path, *, deep: bool = True) -> Iterator[str]:
        """Relative paths of the images in a folder and the folders in it, with forward slashes, in a fixed order.

        Args:
            folder: where to look.
            deep: look into the folders in it, too.
        """
        for root, folders, names in os.walk(folder, followlinks=True, onerror=self._unreadable):
            status = Path(root).stat()
            if (here := (status.st_dev, status.st_ino)) in self._visited:
                self.left_out["folders that a link leads to again"] += 1
                folders.clear()
                continue
            self._visited.add(here)
            folders[:] = sorted(name for name in folders if self._is_own(folder, Path(root), name)) if deep else []
            inner = Path(root).relative_to(folder).as_posix()
            prefix = "" if inner == "." else f"{inner}/"
            for name in sorted(names):
                if not name.startswith(".") and self._is_image(root, name):
                    yield prefix + name

    def notes(self) -> list[str]:
        """What was passed over, as text."""
        if not self.left_out:
            return []
        each = [f"{what} ({count:,})" for what, count in sorted(self.left_out.items())]
        return [f"left out: {'; '.join(each)}"]

    def found(self) -> list[Problem]:
        """What is wrong: pictures in files that are not read among them."""
        pictures = [
            Problem(
                f"*{kind.removeprefix(ENDING)}", f"pictures that are not read ({count:,}): convert them to PNG or JPEG"
            )
            for kind, count in sorted(self.left_out.items())
            if kind.removeprefix(ENDING) in OTHER_PICTURES
        ]
        return [*self.problems, *pictures]

    def _is_own(self, searched: Path, root: Path, name: str) -> bool:
        """Whether to look into a folder."""
        return self._counts(root, name) and not self._leads_back(searched, root / name)

    def _leads_back(self, searched: Path, folder: Path) -> bool:
        """Whether a folder is a link to what the data set holds by another path, or to what holds the data set.

        The images there belong to the class whose folder they lie in, whichever is looked into first.
        """
        if not folder.is_symlink():
            return False
        root, target = (self.root or searched).resolve(), folder.resolve()
        # A hidden store within the data set is not looked into: its images are found only by links.
        within = target.is_relative_to(root) and not any(map(_is_passed_over, target.relative_to(root).parts))
        if back := within or root.is_relative_to(target):
            self.left_out["folders that a link leads to again"] += 1
        return back

    def _counts(self, root: Path, name: str) -> bool:
        """Whether a folder is one of the data set's."""
        if name in HELPERS:
            self.left_out[f"folders {name}/"] += 1
        return not _is_passed_over(name) and self._is_text(str(root), name)

    def _is_image(self, root: str, name: str) -> bool:
        ending = os.path.splitext(name)[1].lower()  # noqa: PTH122 (faster)
        if ending in self.endings:
            return self._is_text(root, name)
        path = Path(root, name)
        if path.is_symlink() and not path.exists():
            self.problems.append(Problem(str(path), "it is a link to what is not there"))
        else:
            self.left_out[f"{ENDING}{ending}" if ending else "files without an ending"] += 1
        return False

    def _is_text(self, root: str, name: str) -> bool:
        """Whether a name can be written down, in tables as elsewhere."""
        try:
            name.encode()
        except UnicodeEncodeError:
            shown = os.fsencode(name).decode(errors="backslashreplace")
            self.problems.append(Problem(f"{root}/{shown}", "its name is not in UTF-8: rename it"))
            return False
        return True

    def _unreadable(self, error: OSError) -> None:
        self.problems.append(Problem(str(error.filename), f"the folder cannot be read: {error.strerror}"))


def _is_passed_over(name: str) -> bool:
    return name in HELPERS or name.startswith(".")


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted, without hidden ones; none if it is not there."""
    return FolderSearch().subfolders(folder)


def images_in(folder: Path) -> Iterator[str]:
    """Paths of the images in a folder and the folders in it, relative to it, with forward slashes, in a fixed order."""
    return FolderSearch().images(folder)
