"""Pictures of a night: its stacks as grey pictures and as one colour picture, in ``work/stack``."""

import logging

import numpy as np
from astropy.table import Table

from .apertures import SATURATED as SATURATED_STAR
from .colourbalance import SUN, catalogue_balance, colour_balance, sun_magnitude
from .errors import DataredError, FrameError
from .extinction import WAVELENGTHS
from .frames import read_product
from .instrumental import passband, plain_values, system_of
from .photometry import aperture_photometry
from .pictures import colour_image, gray_image, write_png
from .pixels import SATURATED
from .products import Manifest, Task, run_tasks
from .sources import NEIGHBOUR, detect, field_fwhm
from .systems import JOHNSON_COUSINS, johnson_cousins, transform

__all__ = ["colour_filters", "write_pictures"]

log = logging.getLogger("datared.nightpictures")

#: Wavelengths (angstrom) of filters that are no bands of a photometric system, in small letters.
OTHER_FILTERS = {
    **{"blue": 4500.0, "green": 5300.0, "red": 6400.0},
    **{"hbeta": 4861.0, "hb": 4861.0, "oiii": 5007.0, "halpha": 6563.0, "ha": 6563.0},
    **{"sii": 6724.0},
}
#: Stars that the balance is measured with, at most.
MOST_STARS = 300
#: Side of the middle part of a stack in which stars are looked for, in pixels.
MIDDLE = 2000
#: Stars whose magnitudes are known worse than this (mag) do not count.
LARGEST_ERROR = 0.1
#: Frames that must overlap for cosmic rays to be left out of a stack.
LEAST_FRAMES = 3


def colour_filters(filters):
    """Choose the filters of a colour picture.

    Parameters
    ----------
    filters : sequence of str
        Names of the filters that there are.

    Returns
    -------
    tuple of str
        Three filters from red to blue: those of the longest, the middle and the shortest
        wavelength; two where there are no more; none where fewer than two have a wavelength that
        is known. Filters such as ``clear`` have none.

    Examples
    --------
    >>> colour_filters(["g", "i", "clear", "r"])
    ('i', 'r', 'g')
    >>> colour_filters(["B", "V"])
    ('V', 'B')
    """
    known = {name: _wavelength(name) for name in filters}
    order = sorted((f for f in known if known[f]), key=lambda f: (-known[f], f))
    if len(order) < 2:
        return ()
    return tuple(order if len(order) == 2 else (order[0], order[len(order) // 2], order[-1]))


def _wavelength(name):
    """Wavelength of a filter, or None."""
    if passband(name) in WAVELENGTHS:
        return WAVELENGTHS[passband(name)][0]
    words = ("".join(c for c in text.lower() if c.isalnum()) for text in (name, passband(name)))
    return next((OTHER_FILTERS[word] for word in words if word in OTHER_FILTERS), None)


def write_pictures(night, made, *, manifest=None):
    """Write the pictures of a night's stacks into ``work/stack``.

    ``<filter>.png`` is a grey picture of each stack; ``colour.png`` has three filters, or two;
    ``colour_axes.png`` is the same with sky axes. In the colour picture a star like the Sun is
    white where the magnitudes of stars are known: those that the night measured
    (``work/magnitudes.ecsv``), else those of the catalogue (``work/stars.ecsv``). Where neither is
    known, the typical star of the field is white; without stars the factors are 1. The title of
    ``colour_axes.png`` says which.

    Where few frames overlap, cosmic rays stay in a stack, because nothing tells them from stars: in
    a colour picture they would be dots of one pure colour. So it is black where any of its stacks
    has fewer than three frames, which clipping needs; of a stack of three fewer than two, because
    clipping may have taken one. The exposure map ``work/stack/<filter>_exposure.fits`` tells (an
    exposure of the mean time counts as a frame). A stack of one or two frames blackens nothing, and
    a picture that would lose half of its pixels is shown whole: a mosaic has few frames everywhere.

    Parameters
    ----------
    night : Night
        The night. ``night.stack.colour`` names the filters of the colour picture from red to blue;
        where it is empty they are chosen by `colour_filters`.
    made : dict of str to pathlib.Path
        For each filter its stack (``work/stack/<filter>.fits``); all on one grid.
    manifest : Manifest, optional
        The record of the work folder; read from it by default.

    Returns
    -------
    list of pathlib.Path
        The pictures that are there now, old and new. A picture that fails is logged: the stacks
        are there without it.
    """
    manifest = Manifest(night.work) if manifest is None else manifest
    tasks = []
    for path in made.values():
        product = path.with_suffix(".png")
        tasks.append(
            Task(product=product, inputs=(path,), parameters={}, function=_gray_file,
                 args=(path, product))
        )  # fmt: skip
    task = _colour_task(night, made)
    outcomes = run_tasks([*tasks, *task], manifest=manifest, label="pictures")
    there = [t for t, o in zip([*tasks, *task], outcomes, strict=True) if o.status != "failed"]
    return [path for task in there for path in (task.product, *task.extra)]


def _colour_task(night, made):
    """Task of the colour picture in a list, which is empty where there can be none."""
    wanted = tuple(night.stack.colour)
    missing = [name for name in wanted if name not in made]
    if missing:
        log.warning(
            "stack.colour names %s, of which there is no stack; there are %s",
            ", ".join(missing), ", ".join(made),
        )  # fmt: skip
    names = tuple(name for name in wanted if name in made) if wanted else colour_filters(made)
    if len(names) < 2:
        log.info("no colour picture: it needs two filters with stacks (or name them: stack.colour)")
        return []
    # With two filters green is the mean of red and blue.
    names = names if len(names) == 3 else (names[0], None, names[1])
    paths = tuple(None if name is None else made[name] for name in names)
    product, axes = (paths[0].with_name(name) for name in ("colour.png", "colour_axes.png"))
    stacks = [path for path in paths if path is not None]
    lists = tuple(
        path
        for path in (night.work / name for name in ("magnitudes.ecsv", "stars.ecsv"))
        if path.is_file()
    )
    maps = [path for path in map(_exposure_path, stacks) if path.is_file()]
    return [
        Task(
            product=product,
            inputs=(*stacks, *maps, *lists),
            parameters={"filters": [str(name) for name in names], "object": night.object},
            function=_colour_file,
            args=(paths, names, lists, product, axes, night.object),
            extra=(axes,),
        )
    ]


def _gray_file(path, product):
    """Task: grey picture of a stack."""
    write_png(gray_image(read_product(path).data), product)


def _colour_file(paths, names, lists, product, axes, title):
    """Task: colour picture of stacks (red, green or None, blue) with and without axes."""
    images, few, saturated, wcs = [None] * 3, [], None, None
    tables, fluxes, fwhm = None, [None] * 3, [np.nan] * 3
    for k, path in enumerate(paths):
        if path is None:
            continue
        frame = read_product(path)
        found = _middle_stars(frame)
        fwhm[k] = field_fwhm(found)
        if tables is None:
            wcs = frame.wcs
            tables = [*(_read_stars(path, frame) for path in lists), found]
        radius = 2 * fwhm[k] if np.isfinite(fwhm[k]) else 8.0
        fluxes[k] = [_fluxes(frame, table, radius) for table in tables]
        few.append(_few_frames(path, frame))
        # Only what the picture needs is kept: three frames with their planes are large.
        images[k] = frame.data
        flagged = (frame.flags & SATURATED) != 0
        # Of other sizes `colour_image` complains.
        same = saturated is not None and saturated.shape == flagged.shape
        saturated = saturated | flagged if same else flagged
        del frame
    _blacken([image for image in images if image is not None], few)
    scale, white = _balance(tables, fluxes, names)
    picture = colour_image(*images, scale=scale, saturated=saturated, fwhm=fwhm)
    text = ", ".join(
        f"{channel} {name}"
        for channel, name in zip(("red", "green", "blue"), names, strict=True)
        if name is not None
    )
    title = f"{title}: {text}; white: {white}" if title else f"{text}; white: {white}"
    write_png(picture, product, title=title)
    write_png(picture, axes, wcs=wcs, title=title)
    log.info("%s: %s", product.name, title)
    return {"scale": list(scale), "white": white}


def _exposure_path(path):
    """Path of the exposure map of a stack."""
    return path.with_name(f"{path.stem}_exposure.fits")


def _few_frames(path, frame):
    """Pixels of a stack in which cosmic rays stay because too few frames overlap."""
    number, beside = int(frame.meta.get("NCOMBINE", 1)), _exposure_path(path)
    if number < LEAST_FRAMES or not beside.is_file():
        return np.zeros(frame.shape, bool)
    # Of three frames clipping leaves two.
    least = min(LEAST_FRAMES, number - 1) - 0.5
    return read_product(beside).data < least * float(frame.meta["EXPTIME"]) / number


def _blacken(images, few):
    """Take pixels that are few in any image from all of them, unless that were half of them.

    All alike: a star that is cut in one of them only would change its colour.
    """
    if len({image.shape for image in images}) > 1:
        return  # `colour_image` complains.
    dark = np.logical_or.reduce(few)
    light = np.logical_and.reduce([np.isfinite(image) for image in images])
    if 2 * np.sum(dark & light) < np.sum(light):
        for image in images:
            image[dark] = np.nan


def _middle_stars(frame):
    """Clean stars in the middle of a stack: they are enough, and large stacks take long."""
    corner = [max(0, (n - MIDDLE) // 2) for n in frame.shape]
    part = frame[tuple(slice(c, c + MIDDLE) for c in corner)]
    found = detect(part, nsigma=10.0, quiet=True, brightest=MOST_STARS)
    found["x"] += corner[1]
    found["y"] += corner[0]
    return found[(found["flags"] | NEIGHBOUR) == NEIGHBOUR]


def _read_stars(path, frame):
    """Read a table of stars with magnitudes; of those on the frame also the positions."""
    table = Table.read(path, format="ascii.ecsv")
    x, y = frame.wcs.all_world2pix(plain_values(table["ra"]), plain_values(table["dec"]), 0)
    table["x"], table["y"] = x, y
    ny, nx = frame.shape
    return table[(x > 0) & (y > 0) & (x < nx - 1) & (y < ny - 1)]


def _fluxes(frame, stars, radius):
    """Fluxes of stars in a stack; NaN for those with bad or saturated pixels."""
    table = aperture_photometry(
        frame, stars["x"], stars["y"], radii=[radius],
        annulus=(1.5 * radius, 2.5 * radius), bad_pixels="nan",
    )  # fmt: skip
    return np.where(table["flags"] & SATURATED_STAR, np.nan, table["flux"])[:, 0]


def _balance(stars, fluxes, names):
    """Factors of the three images, and what is white with them."""
    *known, field = [[None if f is None else f[k] for f in fluxes] for k in range(len(stars))]
    for table, flux in zip(stars, known, strict=False):
        for prefix, whose in (("", "the night"), ("cat_", "the catalogue")):
            found = [None if name is None else _magnitudes(table, name, prefix) for name in names]
            if any(one is None for one, name in zip(found, names, strict=True) if name):
                continue
            magnitudes = [None if one is None else one[0] for one in found]
            white = [None if one is None else one[1] for one in found]
            try:
                scale = catalogue_balance(flux, magnitudes, white=white)
            except FrameError as error:
                log.info("colour picture: magnitudes of %s: %s", whose, error)
                continue
            return scale, f"a star like the Sun (magnitudes of {whose})"
    green = field[1] if field[1] is not None else (field[0] + field[2]) / 2
    try:
        return colour_balance(field[0], green, field[2]), "the typical star"
    except FrameError:
        return (1.0, 1.0, 1.0), "equal counts"


def _magnitudes(table, name, prefix):
    """Magnitudes of stars in a filter and the Sun's in the same system; None where not known."""
    band = passband(name)
    column = prefix + (band if prefix else name)
    if column in table.colnames:
        system = system_of(table[column])
        if band in SUN.get(system, {}):
            values = plain_values(table[column])
            error = plain_values(table[f"{column}_err"]) if f"{column}_err" in table.colnames else 0
            good = np.nan_to_num(error) < LARGEST_ERROR
            return np.where(good, values, np.nan), sun_magnitude(band, system)
    if not prefix:
        return None
    if band in JOHNSON_COUSINS:
        values = johnson_cousins(table, band, prefix=prefix)
        if np.isfinite(values).any():
            return values, sun_magnitude(band, JOHNSON_COUSINS[band])
    if band in SUN["SDSS AB"]:
        try:
            sloan = transform(table, "Gaia DR3 to SDSS (Carrasco 2022)", prefix=prefix)
            return plain_values(sloan[prefix + band]), sun_magnitude(band, "SDSS AB")
        except (DataredError, KeyError):
            return None
    return None
