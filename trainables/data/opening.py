"""Opening the data set that a configuration names: one of the project's, one in files, or one of the user's own."""

import traceback
from functools import cache

from trainables.data.files import open_layout
from trainables.data.imageset import DATA_SETS, ImageSet, Reader
from trainables.data.layouts.catalogue import LAYOUTS, DataError
from trainables.data.layouts.torchvision_sets import PREFIX
from trainables.data.places import Places
from trainables.objects import find
from trainables.settings import DataConfig
from trainables.suggestions import choices

WANTED = "a data set is a function of its configuration and of where data lie, which returns an ImageSet"


def load(config: DataConfig, places: Places) -> ImageSet:
    """The data set that a configuration names, opened once per process; its pixels are not read yet.

    Raises:
        KeyError: no such data set.
        DataError: it is not there, or not whole, or cannot be seen as ``modality`` asks.
    """
    content = (_packaged if config.name in DATA_SETS else _opened)(_content(config), places)
    if config.modality == "flow" and "modality" not in content.reads:
        raise DataError(f"{content.title} holds images, no videos: set modality to rgb or grey")
    if config.modality == "grey" and content.shape[0] != 1 and not content.is_empty:
        raise DataError(f"{content.title} is made with {content.shape[0]} channels: set modality to rgb")
    return content


@cache
def _content(config: DataConfig) -> DataConfig:
    """Kept, as every stage of a plan asks for it."""
    return config.content()


def reopen() -> None:
    """Let the next :func:`load` look at files again: they may have changed."""
    _opened.cache_clear()


@cache
def _packaged(config: DataConfig, places: Places) -> ImageSet:
    """A data set that comes with a package, so that it cannot change while this process runs."""
    return DATA_SETS[config.name](config, places)


@cache
def _opened(config: DataConfig, places: Places) -> ImageSet:
    if config.name in LAYOUTS:
        return open_layout(LAYOUTS[config.name], config, places)
    if config.name.startswith(PREFIX):
        known = sorted(name for name in LAYOUTS if name.startswith(PREFIX))
        raise KeyError(
            f"no data set {config.name!r}: {choices(config.name, known)}. Any other can be read by a function of "
            "yours, module:function"
        )
    if ":" not in config.name:
        raise KeyError(f"no data set {config.name!r}")
    return _read_by(config.name, find(config.name), config, places)


def _read_by(name: str, read: Reader, config: DataConfig, places: Places) -> ImageSet:
    """What a function of the user's own returns, if that is a data set.

    Raises:
        DataError: it fails, or returns something else.
    """
    try:
        content: object = read(config, places)
    except (DataError, KeyError):
        raise
    except Exception as error:  # it is the user's, and may raise anything
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = "" if last.filename == __file__ else f" ({last.filename}, line {last.lineno})"
        raise DataError(f"{name} cannot be read: {type(error).__name__}: {error}{place}; {WANTED}") from error
    if not isinstance(content, ImageSet):
        raise DataError(f"{name} returns {type(content).__name__}: {WANTED}")
    return content
