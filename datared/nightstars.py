"""The star list of a night: what is a star, from the detections on all of its frames.

The deepest frame of each filter says what there is. The other frames add what it could not see:
stars that drifted in later, or that a cosmic ray or a trail hid on it.
"""

import logging
from collections import Counter

import numpy as np
from astropy.table import Table, vstack
from scipy.spatial import cKDTree

from .catalogs import positions, read_catalogue
from .detections import chord, read_detections
from .errors import FrameError
from .headerwcs import read_wcs
from .names import position_at
from .products import atomic_path
from .reference import add_catalogue, merge_stars, refine_positions, set_target, unit_vectors
from .rows import FileRows
from .sources import EDGE

__all__ = ["night_stars", "pixel_scale", "sky_to_pixel", "write_stars"]

log = logging.getLogger("datared.nightstars")

#: Of frames with as many stars as this share of the fullest, the first is the best.
NEARLY_ALL = 0.97
#: Of the frames that show its place a star of the best frame is seen on this share (and on two),
#: another one on that share of its filter's: cosmic rays of many frames meet by chance.
RARELY, OFTEN = 0.05, 0.25
#: With fewer frames than these in a filter, what is seen once may be a star.
FEW_FRAMES = 3


def night_stars(lists, *, filters, radius, widths=None):
    """Merge the detections of all frames of a night into one list of stars.

    The best frame of each filter (the first with at least 97 % of the stars of the fullest) gives
    the first list; of its detections those are stars that are found again, on two frames and on a
    twentieth of those that cover the place: a cosmic ray or a satellite is not. A filter with one
    or two frames cannot ask for that.

    The other frames then add what is on none of these: detections that are farther than a width
    from every star of the list (nearer ones are its blurred images), and that are found in one
    place on at least two frames of a filter, and on a quarter of those that cover the place. A
    planet that moves on is not.

    Parameters
    ----------
    lists : sequence of astropy.table.Table
        Detections of each frame: ``ra``, ``dec`` (deg), ``x``, ``y`` (px), ``flux``, ``snr``,
        ``flags`` (bits of `datared.sources`).
    filters : sequence of str
        Filter of each frame.
    radius : float
        Largest separation (arcsec) of two detections of the same star.
    widths : array_like of float, optional
        FWHM (arcsec) of each frame; NaN where it is not known.

    Returns
    -------
    astropy.table.Table
        ``star`` (0, 1, ... from the brightest), ``ra``, ``dec`` (deg, median of all frames),
        ``brightness`` (flux on the scale of the longest list), ``snr``, ``found_in``,
        ``n_detected``. ``meta["best"]`` has the number of the best frame for each filter,
        ``meta["added"]`` how many stars came from other frames.
    """
    # What the edge of a frame cuts off has its centre in the wrong place, and too little light:
    # such a star comes from the frames on which it is whole.
    whole = [table[(np.asarray(table["flags"]).astype(int) & EDGE) == 0] for table in lists]
    best = _best_frames(whole, filters)
    stars = merge_stars({name: whole[k] for name, k in best.items()}, radius=radius)
    stars = refine_positions(stars, whole, radius=radius)
    n_frames = Counter(filters)
    few = np.array([n_frames[name] < FEW_FRAMES for name in stars["found_in"]], bool)
    cover = sum(_covers(table, unit_vectors(stars)) for table in whole)
    least = np.where(few, 1, np.maximum(2, RARELY * cover))
    stars = stars[np.asarray(stars["n_detected"]) >= least]
    added = _further_stars(stars, whole, filters, radius, widths)
    if len(added):
        stars = vstack([stars, refine_positions(added, whole, radius=radius)])
        stars = stars[np.lexsort((stars["ra"], stars["dec"], -stars["brightness"]))]
    # Two detections beside each other meet at one star where one was of a trail, or where a blend
    # has its middle elsewhere in another filter: the one that is found more often is the star.
    pairs = cKDTree(unit_vectors(stars)).query_pairs(chord(radius), output_type="ndarray")
    seen = np.asarray(stars["n_detected"])[pairs]
    stars.remove_rows(np.unique(np.where(seen[:, 0] < seen[:, 1], pairs[:, 0], pairs[:, 1])))
    stars["star"] = np.arange(len(stars))
    stars.meta = {"best": best, "added": len(added)}
    return stars


def _best_frames(lists, filters):
    """Give the number of the best frame for each filter.

    The frame with the most stars is the deepest. A few stars more or less are chance: of frames as
    good it is the first.
    """
    most, best = {}, {}
    for name, table in zip(filters, lists, strict=True):
        most[name] = max(len(table), most.get(name, 0))
    for k, (name, table) in enumerate(zip(filters, lists, strict=True)):
        if len(table) >= NEARLY_ALL * most[name]:
            best.setdefault(name, k)
    return best


def _further_stars(stars, lists, filters, radius, widths):
    """Find stars that are not in the list in places where its frames show none."""
    widths = np.zeros(len(lists)) if widths is None else np.nan_to_num(np.asarray(widths, float))
    sky = [unit_vectors(table) for table in lists]
    fluxes = [np.asarray(table["flux"], float) for table in lists]
    tree, brightness = cKDTree(unit_vectors(stars)), np.asarray(stars["brightness"])
    left, scales = [], np.full(len(lists), np.nan)
    for k, place in enumerate(sky):
        distance, nearest = tree.query(place)
        same = (distance <= chord(radius)) & (fluxes[k] > 0)
        if same.any():
            scales[k] = np.median(brightness[nearest[same]] / fluxes[k][same])
        left.append(np.flatnonzero(distance > chord(max(2 * radius, widths[k]))))
    left = _seen_again(sky, left, radius)
    # A frame that shares no star with the list has the scale of the others.
    scales[np.isnan(scales)] = np.nanmedian(scales) if np.isfinite(scales).any() else 1.0
    chosen = _candidates(sky, left, widths, radius)
    places = np.array([sky[k][row] for k, row in chosen]).reshape(-1, 3)
    names = sorted(set(filters))
    seen, cover = np.zeros((2, len(names), len(places)), int)
    light, snr = np.full((2, len(lists), len(places)), np.nan)
    for k, rows in enumerate(left):
        name = names.index(filters[k])
        cover[name] += _covers(lists[k], places)
        if len(rows) and len(places):
            distance, nearest = cKDTree(sky[k][rows]).query(places)
            here = distance <= chord(radius)
            seen[name] += here
            light[k, here] = fluxes[k][rows[nearest[here]]] * scales[k]
            snr[k, here] = np.asarray(lists[k]["snr"], float)[rows[nearest[here]]]
    good = np.flatnonzero(np.any((seen >= 2) & (seen >= OFTEN * cover), axis=0))
    return Table(
        {
            "star": good,
            "ra": [lists[chosen[c][0]]["ra"][chosen[c][1]] for c in good],
            "dec": [lists[chosen[c][0]]["dec"][chosen[c][1]] for c in good],
            "brightness": np.nanmedian(light[:, good], axis=0),
            "snr": np.nanmedian(snr[:, good], axis=0),
            "found_in": [filters[chosen[c][0]] for c in good],
        }
    )


def _seen_again(sky, left, radius):
    """Leave out what has no second detection in its place: most are cosmic rays, of many frames."""
    pool = np.concatenate([place[rows] for place, rows in zip(sky, left, strict=True)])
    distance, _ = cKDTree(pool).query(pool, k=2)  # The first one is itself.
    ends = np.cumsum([len(rows) for rows in left])
    again = np.split(distance[:, 1] <= chord(radius), ends[:-1])
    return [rows[good] for rows, good in zip(left, again, strict=True)]


def _candidates(sky, left, widths, radius):
    """Give frame and row of the detections that may be further stars, each star once.

    Frames with the most of them come first. One that is within a width of another one is the same.
    """
    chosen, places = [], np.empty((0, 3))
    for k in sorted(range(len(sky)), key=lambda k: (-len(left[k]), k)):
        rows = left[k]
        if len(rows) and len(places):
            distance, _ = cKDTree(places).query(sky[k][rows])
            rows = rows[distance > chord(max(2 * radius, widths[k]))]
        chosen += [(k, row) for row in rows]
        places = np.concatenate([places, sky[k][rows]])
    return chosen


def _covers(table, places):
    """Give 1 for places on the sky that a frame shows, the area between its detections; else 0.

    Where the sky lies on a frame its detections tell themselves, so that no frame is opened.
    """
    if len(table) < 3:
        return np.zeros(len(places), int)
    x, y = (np.asarray(table[name], float) for name in ("x", "y"))
    sky = unit_vectors(table)
    middle = sky.mean(axis=0)
    middle /= np.linalg.norm(middle)
    east = np.cross([0.0, 0.0, 1.0], middle)
    east /= max(np.linalg.norm(east), 1e-12)
    axes = np.column_stack([east, np.cross(middle, east)])

    def terms(vectors):
        return np.column_stack([np.ones(len(vectors)), vectors @ axes])

    fit = np.linalg.lstsq(terms(sky), np.column_stack([x, y]), rcond=None)[0]
    place = terms(places) @ fit
    inside = (place @ [1, 0] >= x.min()) & (place @ [1, 0] <= x.max())
    inside &= (place @ [0, 1] >= y.min()) & (place @ [0, 1] <= y.max())
    return (inside & (places @ middle > 0)).astype(int)


def write_stars(frames, catalogue, target, product, outdated=()):
    """Write the star list of a night from the detections of its frames (a task).

    Parameters
    ----------
    frames : sequence of dict
        ``file``, ``filter``, ``fwhm_arcsec``, and the paths ``solved`` and ``sources`` of each.
    catalogue : pathlib.Path or None
        Reference stars whose magnitudes are added.
    target : astropy.coordinates.SkyCoord or None
        The night's target; it joins the list if it was not detected.
    product : pathlib.Path
        The file to write.
    outdated : sequence of pathlib.Path
        Files that go with the list that is replaced; they are removed before.

    Returns
    -------
    dict
        Number of ``stars``.

    Raises
    ------
    FrameError
        If no frame can be read, or no star was detected.
    """
    lists = [read_detections(frame["sources"]) for frame in frames]
    reference, header, wcs, shape = _first_readable(frames, lists)
    scale = pixel_scale(wcs)
    width = header.get("FWHM")
    # Two detections of one star lie within a fraction of a width; plate solutions within less.
    radius = max(1.0, 0.5 * width * scale if isinstance(width, int | float) else 1.5 * scale)
    stars = night_stars(
        lists,
        filters=[frame["filter"] for frame in frames],
        radius=radius,
        widths=[frame["fwhm_arcsec"] for frame in frames],
    )
    if not len(stars):
        raise FrameError("no star was detected on any frame")
    found = stars.meta
    jd = float(header.get("JD_UTC_M") or np.nan)
    target = None if target is None else position_at(target, jd)
    stars = set_target(stars, target, radius=2 * radius)
    if catalogue is not None:
        stars = add_catalogue(stars, read_catalogue(catalogue), jd=jd, radius=2 * radius)
    stars["x"], stars["y"] = sky_to_pixel(wcs, positions(stars), shape=shape)
    stars.meta = {
        "reference": frames[reference]["file"],
        "best": {name: frames[k]["file"] for name, k in found["best"].items()},
        "added": found["added"],
        "radius_arcsec": radius,
    }
    for path in outdated:
        path.unlink(missing_ok=True)
    with atomic_path(product) as temporary:
        stars.write(temporary, format="ascii.ecsv")
    return {"stars": len(stars)}


def _first_readable(frames, lists):
    """Give number, header, world coordinates and shape of the readable frame with most stars."""
    reason = "there is no solved frame"
    for k in sorted(range(len(frames)), key=lambda k: -len(lists[k])):
        try:
            rows = FileRows(frames[k]["solved"])
        except FrameError as error:
            reason = error
            continue
        wcs = read_wcs(rows.header, rows.shape)
        if wcs is not None:
            return k, rows.header, wcs, rows.shape
        reason = f"{frames[k]['file']}: the solved frame has no world coordinates"
    raise FrameError(str(reason))


def pixel_scale(wcs):
    """Scale of world coordinates in arcsec per pixel."""
    return float(np.sqrt(abs(np.linalg.det(wcs.pixel_scale_matrix))) * 3600)


def sky_to_pixel(wcs, coords, *, shape):
    """Pixel positions of sky positions, safe for stars far outside the frame.

    A distortion polynomial means nothing far from the frame and may even bring an outside star into
    it; such stars get their position without distortion.

    Parameters
    ----------
    wcs : astropy.wcs.WCS or None
        World coordinates of the frame; None gives NaN.
    coords : astropy.coordinates.SkyCoord, shape (n,)
        Positions on the sky.
    shape : tuple of int
        ``(ny, nx)`` of the frame.

    Returns
    -------
    tuple of numpy.ndarray of float
        ``x`` and ``y``, each of shape (n,).
    """
    sky = np.column_stack([coords.icrs.ra.deg, coords.icrs.dec.deg])
    place = np.full(sky.shape, np.nan)
    known = np.isfinite(sky).all(axis=1)
    if wcs is not None and known.any():
        place[known] = wcs.wcs_world2pix(sky[known], 0)
        size = np.array(shape[::-1])
        with np.errstate(invalid="ignore"):
            near = ((place > -0.2 * size) & (place < 1.2 * size)).all(axis=1)
        if near.any():
            place[near] = wcs.all_world2pix(sky[near], 0, quiet=True)
    return place[:, 0], place[:, 1]
