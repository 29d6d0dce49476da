"""Random fields of stars for the solver: lists of detections, catalogues, hints, and the truth.

They are drawn independently of the tests of the package: positions go through astropy's TAN
projection, not through the package's own.
"""

import math
import time
from typing import NamedTuple

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table
from astropy.wcs import WCS

SEARCH_RADIUS = 1.0  # deg; the pointing is off by up to this
SCALE_TOLERANCE = 0.1  # the scale is off by up to this
FALSE_SHARE = 0.3  # of the detections
#: A field counts for the share of solved ones with so many catalogue stars on the frame.
ENOUGH = 20
#: Most stars of one simulated sky.
MOST = 60_000
#: Slope of the star counts: log10 N rises by this per magnitude.
SLOPE = 0.3


class Field(NamedTuple):
    """One frame as a solver gets it, and the truth.

    Attributes
    ----------
    sources, catalogue : astropy.table.Table
        The two lists.
    shape : tuple of int
        Rows and columns of the frame.
    center : astropy.coordinates.SkyCoord
        Where the frame is said to point.
    scale : float
        Arcsec per pixel, as said.
    optics : Optics
        The truth.
    n_catalogue : int
        Number of stars of the catalogue that lie on the frame.
    words : str
        What is special, for a report.
    """

    sources: Table
    catalogue: Table
    shape: tuple
    center: SkyCoord
    scale: float
    optics: "Optics"
    n_catalogue: int
    words: str


class Optics(NamedTuple):
    """From the sky to the pixels of a frame: TAN, then a radial cubic distortion.

    A point at distance r from ``axis`` is moved outwards by ``cubic`` r^3 (px).
    """

    wcs: WCS
    axis: np.ndarray
    cubic: float

    def pixels(self, ra, dec):
        """Pixels of positions (deg), shape (n, 2)."""
        offset = np.column_stack(self.wcs.wcs_world2pix(ra, dec, 0)) - self.axis
        return self.axis + offset * (1 + self.cubic * (offset**2).sum(axis=1))[:, None]

    def sky(self, pixel):
        """Positions (deg) of pixels, shape (n, 2): the inverse of `pixels`, by iteration."""
        moved = np.asarray(pixel, float) - self.axis
        offset = moved.copy()
        for _ in range(30):
            offset = moved / (1 + self.cubic * (offset**2).sum(axis=1))[:, None]
        return self.wcs.wcs_pix2world(self.axis + offset, 0)


def make_optics(shape, center, *, scale, rotation, mirrored, corner, shift=(0.0, 0.0)):
    """Optics of a frame, with a distortion of ``corner`` px at half the diagonal.

    ``center`` (deg) is where the middle points, ``scale`` is in arcsec per pixel, ``rotation`` in
    degrees, and ``shift`` (px) takes the axis of the distortion away from the middle.
    """
    middle = (np.array(shape[::-1]) - 1) / 2
    cos, sin = math.cos(math.radians(rotation)), math.sin(math.radians(rotation))
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = center
    wcs.wcs.crpix = middle + 1
    flip = 1.0 if mirrored else -1.0
    wcs.wcs.cd = np.array([[flip * cos, sin], [-flip * sin, cos]]) * scale / 3600
    return Optics(wcs, middle + shift, corner / np.hypot(*middle) ** 3)


def grid(shape, n=9):
    """Pixels of a grid over a frame, corners included, shape (n * n, 2)."""
    axes = [np.linspace(0, size - 1, n) for size in shape[::-1]]
    return np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)


def separation(first, second):
    """Distances on the sky (arcsec) between two lists of positions (deg), shape (n, 2)."""
    here, there = (SkyCoord(*positions.T, unit="deg") for positions in (first, second))
    return here.separation(there).arcsec


def draw(seed):
    """Draw a field.

    Parameters
    ----------
    seed : int
        Number of the field.

    Returns
    -------
    Field
        The lists, the hints and the truth.
    """
    rng = np.random.default_rng([7, seed])
    # The frame: a quarter of a degree to two degrees across, anywhere on the sky.
    width = int(np.exp(rng.uniform(np.log(500), np.log(6000))))
    height = int(width / rng.choice([1.0, 4 / 3, 1.5]))
    shape = (height, width) if rng.random() < 0.8 else (width, height)
    diagonal = np.exp(rng.uniform(np.log(0.25), np.log(2.0)))
    scale = diagonal * 3600 / np.hypot(*shape)
    ra, dec = rng.uniform(0, 360), np.degrees(np.arcsin(rng.uniform(-1, 1)))
    if seed % 20 == 0:
        dec = np.copysign(90 - rng.uniform(0, 1), dec)
    elif seed % 20 == 1:
        ra = rng.uniform(-1, 1) % 360
    middle = SkyCoord(ra, dec, unit="deg")
    rotation, mirrored = rng.uniform(-180, 180), bool(rng.random() < 0.5)
    # The hint: anywhere in the circle, and any scale, that the solver is told to expect.
    off = SEARCH_RADIUS * math.sqrt(rng.random())
    hint = middle.directional_offset_by(rng.uniform(0, 360) * u.deg, off * u.deg)
    wrong = 1 / (1 + rng.uniform(-SCALE_TOLERANCE, SCALE_TOLERANCE))  # of the scale as said
    # The sky: a disc around the frame that holds the cone around the hint.
    cone = SEARCH_RADIUS + diagonal / 2
    radius = cone + off
    share = math.pi * radius**2 / (shape[0] * shape[1] * (scale / 3600) ** 2)
    depth = 10 ** (0.5 * SLOPE)  # Stars half a magnitude below the limit of the catalogue too.
    count = np.exp(rng.uniform(np.log(20), np.log(2000)))
    total = int(min(count * share * depth, MOST))
    count = total / share / depth
    corner = rng.uniform(0, 1) * np.clip(count / 100, 0.5, 3)
    optics = make_optics(
        shape, (ra, dec), scale=scale, rotation=rotation, mirrored=mirrored, corner=corner,
        shift=rng.uniform(-0.03, 0.03, 2) * shape[::-1],
    )  # fmt: skip
    stars = _positions(rng, optics, shape, radius * 3600 / scale, total, count)
    magnitude = 16.5 + np.log10(rng.random(len(stars))) / SLOPE
    sky = optics.wcs.wcs_pix2world(stars, 0)
    pixel = optics.pixels(*sky.T)
    on = ((pixel > -0.5) & (pixel < np.array(shape[::-1]) - 0.5)).all(axis=1)
    listed = (magnitude < 16) & (rng.random(len(stars)) > 0.03)
    listed &= SkyCoord(*sky.T, unit="deg").separation(hint).deg < cone
    missing = rng.uniform(0, 0.2)
    sources = _detections(rng, pixel[on], magnitude[on], shape, missing)
    noisy = rng.normal(0, 0.02 / 3600, (np.count_nonzero(listed), 2))
    noisy[:, 0] /= np.cos(np.radians(sky[listed, 1]))
    catalogue = Table(
        {
            "ra": (sky[listed, 0] + noisy[:, 0]) % 360,
            "dec": np.clip(sky[listed, 1] + noisy[:, 1], -90, 90),
            "r": magnitude[listed] + rng.normal(0, 0.02, len(noisy)),
        }
    )
    words = (
        f"{shape[1]}x{shape[0]} px, {scale:.3f} arcsec/px, RA {ra:.2f} Dec {dec:.2f}, "
        f"off {off * 60:.0f} arcmin, scale given {wrong:.3f}, mirrored {mirrored}, "
        f"{len(sources)} detections, {np.count_nonzero(on & listed)} of {len(catalogue)} "
        f"catalogue stars on the frame, {corner:.2f} px distortion, {missing:.0%} missing"
    )
    n_catalogue = int(np.count_nonzero(on & listed))
    return Field(sources, catalogue, shape, hint, scale * wrong, optics, n_catalogue, words)


def _positions(rng, optics, shape, radius, total, count):
    """Draw pixels of stars, before distortion: a disc and, in a fifth of the fields, a cluster."""
    r, angle = radius * np.sqrt(rng.random(total)), rng.uniform(0, 2 * np.pi, total)
    middle = (np.array(shape[::-1]) - 1) / 2
    stars = middle + np.column_stack([r * np.cos(angle), r * np.sin(angle)])
    if rng.random() < 0.2:
        place = rng.uniform(0.2, 0.8, 2) * shape[::-1]
        size = 0.05 * np.hypot(*shape)
        stars = np.vstack([stars, rng.normal(place, size, (int(0.5 * count), 2))])
    return stars


def _detections(rng, pixel, magnitude, shape, missing):
    """Draw detections: stars with errors down to a limit, false ones of the same brightnesses."""
    limit = 16 + rng.uniform(-0.5, 0.5)
    seen = magnitude + rng.normal(0, rng.uniform(0.02, 0.3), len(magnitude))
    kept = (seen < limit) & (rng.random(len(seen)) >= missing)
    pixel, seen = pixel[kept], seen[kept]
    snr = 5 * 10 ** (0.4 * (limit - seen))
    error = np.hypot(0.03, 0.6 * 3.0 / snr)
    pixel = pixel + rng.normal(0, 1, pixel.shape) * error[:, None]
    n_false = round(FALSE_SHARE / (1 - FALSE_SHARE) * len(pixel))
    anywhere = rng.uniform(-0.5, np.array(shape[::-1]) - 0.5, (n_false, 2))
    both = np.vstack([pixel, anywhere])
    snr = np.append(snr, rng.choice(snr, n_false)) if len(snr) else np.empty(0)
    sources = Table({"x": both[:, 0], "y": both[:, 1], "flux": 200.0 * snr})
    if rng.random() < 0.5:
        sources["snr"], sources["fwhm"] = snr, np.full(len(snr), 3.0)
    return sources[np.argsort(-sources["flux"], kind="stable")]


def solve(field, sources=None):
    """Solve a field; give the time, and how far (px) the solution is off, or the refusal.

    Parameters
    ----------
    field : Field
        The field.
    sources : astropy.table.Table, optional
        Detections to take instead, in the pixels of the same frame.

    Returns
    -------
    dict
        ``seconds``; ``worst`` and ``median`` error over the frame in px where it was solved, else
        ``refused``, the message.
    """
    from datared.errors import SolveError
    from datared.solver import solve_frame

    start = time.perf_counter()
    try:
        solution = solve_frame(
            field.sources if sources is None else sources,
            field.catalogue,
            shape=field.shape,
            center=field.center,
            scale=field.scale,
            search_radius=SEARCH_RADIUS * u.deg,
            scale_tolerance=SCALE_TOLERANCE,
        )
    except SolveError as error:
        return {"seconds": time.perf_counter() - start, "refused": str(error)}
    seconds = time.perf_counter() - start
    points = grid(field.shape)
    there = solution.wcs.all_pix2world(points, 0)
    true = np.hypot(*field.optics.wcs.wcs.cd[:, 0]) * 3600
    error = separation(there, field.optics.sky(points)) / true
    return {"seconds": seconds, "worst": float(error.max()), "median": float(np.median(error))}


def unrelated(seed):
    """Field ``seed`` with the detections of another sky.

    Every other list is uniform, 20 to 2000 stars; the others are those of another field, with its
    clusters, stretched to this frame.
    """
    field, rng = draw(seed), np.random.default_rng([8, seed])
    if seed % 2:
        other = draw(seed + 1_000_000)
        sources = other.sources.copy()
        for name, here, there in zip(("y", "x"), field.shape, other.shape, strict=True):
            sources[name] = (sources[name] + 0.5) * here / there - 0.5
        return field, sources
    count = int(np.exp(rng.uniform(np.log(20), np.log(2000))))
    x, y = (rng.uniform(-0.5, size - 0.5, count) for size in field.shape[::-1])
    flux = np.sort(1000 * rng.random(count) ** -1.33)[::-1]
    return field, Table({"x": x, "y": y, "flux": flux})


def keep(path, field, sources, result):
    """Save a field that failed, with all that is needed to try again."""
    arrays = {f"sources_{name}": np.asarray(sources[name]) for name in sources.colnames}
    arrays |= {
        f"catalogue_{name}": np.asarray(field.catalogue[name]) for name in ("ra", "dec", "r")
    }
    points = grid(field.shape)
    np.savez(
        path,
        shape=field.shape,
        center=[field.center.ra.deg, field.center.dec.deg],
        scale=field.scale,
        grid=points,
        grid_sky=field.optics.sky(points),
        words=field.words,
        result=str(result),
        **arrays,
    )
