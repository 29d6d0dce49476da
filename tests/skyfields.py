"""Simulated fields of stars, solved and compared with the truth; shared by several tests."""

import dataclasses

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table

from datared.projection import from_plane
from datared.solver import solve_frame

SHAPE, SCALE, MIDDLE = (680, 1000), 1.214, SkyCoord(308.1, 15.55, unit="deg")


@dataclasses.dataclass
class Field:
    """Stars of the sky, where they fall on a frame, and the catalogue."""

    catalogue: Table
    sources: Table
    place: object  # function from ra, dec (deg) to pixels


def field(
    n=300, *, seed=1, rotation=33.0, mirrored=False, scale=SCALE, shape=SHAPE, center=MIDDLE,
    distortion=0.0, spurious=0.0, missing=0.0, error=0.03, margin=1.6,
):  # fmt: skip
    """Simulated frame: ``n`` catalogue stars on ``margin`` squared frames around the middle.

    ``distortion`` is the cubic displacement of the corners in px. ``spurious`` is the share of
    detections that are no stars and of catalogue stars that are not there; ``missing`` the share
    of catalogue stars that are not detected.
    """
    rng = np.random.default_rng(seed)
    half = margin * np.array(shape[::-1]) / 2
    offset = rng.uniform(-1, 1, (n, 2)) * half
    magnitude = 10 + 6 * np.sqrt(rng.random(n))
    middle = (np.array(shape[::-1]) - 1) / 2
    angle = np.radians(rotation)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    ideal = offset @ turn.T
    xi, eta = -ideal[:, 0] * scale / 3600, ideal[:, 1] * scale / 3600
    ra, dec = from_plane(xi, eta, center.ra.deg, center.dec.deg)
    r2 = (offset**2).sum(axis=1) / (middle**2).sum()
    pixel = offset * (1 + distortion * r2 / np.hypot(*middle))[:, None]
    if mirrored:
        pixel[:, 0] *= -1
    pixel += middle
    seen = ((pixel > 1) & (pixel < np.array(shape[::-1]) - 2)).all(axis=1)
    seen &= rng.random(n) >= missing
    x, y = (pixel[seen] + rng.normal(0, error, (seen.sum(), 2))).T
    flux = 10 ** (-0.4 * (magnitude[seen] - 20)) * rng.normal(1, 0.1, seen.sum())
    catalogue = Table({"ra": ra, "dec": dec, "r": magnitude + rng.normal(0, 0.1, n)})
    if spurious:
        k = int(len(x) * spurious / (1 - spurious))
        x = np.append(x, rng.uniform(0, shape[1], k))
        y = np.append(y, rng.uniform(0, shape[0], k))
        flux = np.append(flux, rng.choice(flux, k))
        drop = rng.random(n) < spurious
        catalogue["ra"][drop], catalogue["dec"][drop] = (
            rng.permutation(catalogue[name][drop]) for name in ("ra", "dec")
        )
    sources = Table({"x": x, "y": y, "flux": flux})
    return Field(catalogue, sources, (pixel, ra, dec))


def solve(scene, *, off=0.0, scale=SCALE, shape=SHAPE, center=MIDDLE, **options):
    """Solve with a pointing that is ``off`` arcmin wrong."""
    hint = center.directional_offset_by(70 * u.deg, off * u.arcmin)
    return solve_frame(
        scene.sources, scene.catalogue, shape=shape, center=hint, scale=scale, **options
    )


def sky_errors(solution, scene, shape=SHAPE):
    """Distances (arcsec) between truth and solution for the true stars on the frame."""
    pixel, ra, dec = scene.place
    on = ((pixel >= 0) & (pixel <= np.array(shape[::-1]) - 1)).all(axis=1)
    found = solution.wcs.pixel_to_world(*pixel[on].T)
    return found.separation(SkyCoord(ra[on], dec[on], unit="deg")).arcsec


@dataclasses.dataclass
class RandomField:
    """Frame of a random field, what the observer believes of it, and the truth."""

    sources: Table
    catalogue: Table
    hints: dict  # options of solve_frame
    n_common: int  # catalogue stars on the frame that are bright enough to be detected
    wcs_error: object  # function of a solution: largest error over the frame in px


def random_field(seed):
    """Random sky: 20 to 2000 catalogue stars on the frame, 30 % false and 10 % missing detections.

    Any rotation and either parity, a pointing up to 30' wrong (in one of ten fields up to 60'), a
    scale up to 10 % wrong, centroid errors of 0.05 px or (one of four) 0.3 to 1 px, distortion up
    to 3 px in the corners, clusters (one of five), a frame up to 3 times deeper or shallower than
    the catalogue, and catalogues that lack the brightest stars of the frame (one of ten).
    """
    rng = np.random.default_rng([seed, 38])
    shape = [(680, 1000), (1024, 1024), (2048, 2048), (3194, 4788)][rng.integers(4)]
    size = np.array(shape[::-1])
    diagonal = np.hypot(*size)
    # The field is 12' to 110' wide.
    scale = float(np.exp(rng.uniform(np.log(max(0.3, 720 / size[0])), np.log(6600 / size[0]))))
    radius = 60.0 if rng.random() < 0.1 else 30.0
    off = radius * 60 / scale * np.sqrt(rng.random())
    turn = rng.uniform(0, 2 * np.pi)
    hint = off * np.array([np.cos(turn), np.sin(turn)])
    # Stars of the sky in undistorted pixels around the middle of the frame.
    reach = 0.55 * diagonal + radius * 60 / scale
    n_frame = np.exp(rng.uniform(np.log(20), np.log(2000)))
    n_frame = min(n_frame, 60000 * size.prod() / (np.pi * reach**2))
    deeper = float(np.exp(rng.uniform(-1, 1) * np.log(3)))
    n = int(max(deeper, 1) * n_frame * np.pi * reach**2 / size.prod())
    offset = hint + (reach * np.sqrt(rng.random(n)))[:, None] * _directions(rng, n)
    if rng.random() < 0.2:
        k = int(rng.uniform(0.3, 0.7) * n_frame * max(deeper, 1))
        spread = rng.uniform(0.05, 0.15) * diagonal
        offset[:k] = rng.uniform(-0.2, 0.2, 2) * size + rng.normal(0, spread, (k, 2))
    # Numbers of stars grow by 10^(0.35 m).
    magnitude = 16 + np.log10(rng.random(n)) / 0.35
    faintest_known = np.quantile(magnitude, min(1, 1 / deeper))
    faintest_seen = np.quantile(magnitude, min(1, deeper))
    known = magnitude <= faintest_known
    if rng.random() < 0.1:
        known &= magnitude > np.quantile(magnitude, rng.uniform(0.05, 0.15))
    center = SkyCoord(rng.uniform(0, 360), np.degrees(np.arcsin(rng.uniform(-1, 1))), unit="deg")
    rotation, mirror = rng.uniform(0, 2 * np.pi), rng.choice([-1, 1])
    matrix = np.array([[np.cos(rotation), -np.sin(rotation)], [np.sin(rotation), np.cos(rotation)]])
    matrix *= np.array([mirror, 1]) * scale / 3600
    ra, dec = from_plane(*(offset @ matrix.T).T, center.ra.deg, center.dec.deg)
    bend = rng.choice([0, 1]) * rng.uniform(0, 3)

    def place(straight):
        r2 = (straight**2).sum(axis=1) / (diagonal / 2) ** 2
        return straight * (1 + bend * r2 / (diagonal / 2))[:, None]

    pixel = place(offset)
    on = (np.abs(pixel) < size / 2 - 1).all(axis=1) & (magnitude <= faintest_seen)
    error = rng.uniform(0.3, 1.0) if rng.random() < 0.25 else 0.05
    seen = np.flatnonzero(on & (rng.random(n) >= 0.1))
    real = pixel[seen] + rng.normal(0, error, (len(seen), 2))
    n_false = int(len(seen) * 0.3 / 0.7)
    false = rng.uniform(-0.5, 0.5, (n_false, 2)) * size
    mags = magnitude[seen] + rng.normal(0, 0.2, len(seen))
    mags = np.append(mags, rng.choice(mags, n_false))
    xy = np.vstack([real, false]) + (size - 1) / 2
    sources = Table({"x": xy[:, 0], "y": xy[:, 1], "flux": 10 ** (-0.4 * (mags - 20))})
    catalogue = Table({"ra": ra, "dec": dec, "r": magnitude + rng.normal(0, 0.1, n)})[known]
    hint_sky = from_plane(*(matrix @ hint), center.ra.deg, center.dec.deg)

    def wcs_error(solution):
        grid = np.stack(np.meshgrid([-0.45, 0, 0.45], [-0.45, 0, 0.45]), -1).reshape(-1, 2) * size
        sky = from_plane(*(grid @ matrix.T).T, center.ra.deg, center.dec.deg)
        found = solution.wcs.pixel_to_world(*(place(grid) + (size - 1) / 2).T)
        return found.separation(SkyCoord(*sky, unit="deg")).arcsec.max() / scale

    hints = {
        "shape": shape,
        "center": SkyCoord(*hint_sky, unit="deg"),
        "scale": scale * (1 + rng.uniform(-0.1, 0.1)),
        "search_radius": radius * u.arcmin,
    }
    return RandomField(sources, catalogue, hints, int(np.count_nonzero(on & known)), wcs_error)


def _directions(rng, n):
    """Unit vectors in random directions."""
    angle = rng.uniform(0, 2 * np.pi, n)
    return np.column_stack([np.cos(angle), np.sin(angle)])
