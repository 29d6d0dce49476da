"""Pictures as PNG files: plain, or with sky axes."""

import textwrap

import numpy as np

from .errors import FrameError
from .products import atomic_path

__all__ = ["write_png"]

#: Longest side of a PNG in pixels; larger pictures are binned.
LONGEST = 2000
#: The same with axes: their numbers stay readable.
LONGEST_AXES = 1200


def write_png(picture, path, *, wcs=None, title=None):
    """Write a picture as a PNG, the top of the sky image up.

    Parameters
    ----------
    picture : numpy.ndarray of uint8, shape (ny, nx) or (ny, nx, 3)
        Grey or colour picture; row 0 is the bottom. A picture with a side of more than 2000 pixels
        (1200 with axes) is binned by a whole factor: files stay below about 10 MB. A strip that is
        narrower than this factor becomes one pixel wide.
    path : str or pathlib.Path
        The file.
    wcs : astropy.wcs.WCS, optional
        With it the picture gets axes of right ascension and declination, arrows to the north and
        east, and a scale bar.
    title : str, optional
        Text above a picture with axes; it is also written into the file.

    Raises
    ------
    FrameError
        If the picture has no pixels.
    """
    if not picture.size:
        raise FrameError(f"A picture of shape {picture.shape} has no pixels to write.")
    longest = LONGEST if wcs is None else LONGEST_AXES
    factor = -(-max(picture.shape[:2]) // longest)
    small = _binned(picture, factor)
    metadata = {"Title": title} if title else None
    with atomic_path(path) as temporary:
        if wcs is not None:
            _save_axes(small, temporary, wcs, factor, title, metadata)
            return
        from matplotlib.image import imsave

        grey = {"cmap": "gray", "vmin": 0, "vmax": 255} if picture.ndim == 2 else {}
        imsave(temporary, small, origin="lower", metadata=metadata, **grey)


def _binned(picture, factor):
    """Mean of squares of pixels; rows and columns that do not fill one are left out."""
    if factor == 1:
        return picture
    high, wide = (min(factor, n) for n in picture.shape[:2])  # A strip may be narrower.
    ny, nx = picture.shape[0] // high, picture.shape[1] // wide
    squares = picture[: ny * high, : nx * wide].reshape(ny, high, nx, wide, *picture.shape[2:])
    total = squares.sum(axis=(1, 3), dtype=np.uint32)
    return ((total + high * wide // 2) // (high * wide)).astype(np.uint8)


def _save_axes(picture, path, wcs, factor, title, metadata):
    """Draw a picture with axes, one of its pixels to a pixel of the file."""
    from matplotlib import style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from .skyplots import sky_picture

    ny, nx = picture.shape[:2]
    lines = textwrap.wrap(title or "", max(20, nx // 8))  # 8 pixels for a letter.
    left, bottom, right, top = 100, 60, 30, 25 + 20 * len(lines)
    width, height = left + nx + right, bottom + ny + top
    place = (left / width, bottom / height, nx / width, ny / height)
    # A product is the same whatever the user's style is.
    with style.context("default"):
        figure = Figure(figsize=(width / 100, height / 100), dpi=100)
        FigureCanvasAgg(figure)
        ax = figure.add_axes(place, projection=wcs)
        sky_picture(picture, wcs, factor=factor, title="\n".join(lines), ax=ax)
        figure.savefig(path, format="png", metadata=metadata)
