"""Data sets: what they hold, where their pixels come from, and how they are split.

To add a data set, write a function that returns an :class:`ImageSet` and register it with :func:`data_set`; for images
or videos in files, a function that returns a :class:`Catalogue`, registered with :func:`layout`.
"""

from trainables.data import absent as _absent  # noqa: F401  (these modules register their data sets)
from trainables.data import digits as _digits  # noqa: F401
from trainables.data.imageset import DATA_SETS, ArrayPixels, ImageSet, Pixels, data_set
from trainables.data.layouts import class_folders as _class_folders  # noqa: F401
from trainables.data.layouts import image_lists as _image_lists  # noqa: F401
from trainables.data.layouts import solar_cells as _solar_cells  # noqa: F401
from trainables.data.layouts import torchvision_sets as _torchvision_sets  # noqa: F401
from trainables.data.layouts import video_lists as _video_lists  # noqa: F401
from trainables.data.layouts.catalogue import LAYOUTS, Catalogue, DataError, Layout, Problem, layout
from trainables.data.opening import load, reopen
from trainables.data.places import Places
from trainables.data.splits import Split, split

__all__ = [
    "DATA_SETS",
    "LAYOUTS",
    "ArrayPixels",
    "Catalogue",
    "DataError",
    "ImageSet",
    "Layout",
    "Pixels",
    "Places",
    "Problem",
    "Split",
    "data_set",
    "layout",
    "load",
    "reopen",
    "split",
]
