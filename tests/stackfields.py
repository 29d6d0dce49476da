"""Frames of stars seen through shifted, turned, scaled and distorted coordinates."""

import math

import numpy as np
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.wcs import WCS, Sip

from datared.render import star_image

SHAPE = (150, 200)


def make_wcs(
    *, angle=0.0, scale=1.0, shift=(0.0, 0.0), center=(150.0, 20.0), sip=False, mirrored=False
):
    """WCS of a frame, turned, scaled, shifted and mirrored against the standard one."""
    wcs = WCS(naxis=2)
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = center
    wcs.wcs.crpix = [SHAPE[1] / 2 + 0.5 + shift[0], SHAPE[0] / 2 + 0.5 + shift[1]]
    wcs.wcs.cd = np.array([[-c, s], [s, c]]) * scale / 3600
    if mirrored:
        wcs.wcs.cd = wcs.wcs.cd * [-1, 1]
    if sip:
        wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
        a, b = np.zeros((4, 4)), np.zeros((4, 4))
        a[3, 0] = a[1, 2] = b[0, 3] = b[2, 1] = 2e-6  # 3 px in the corner
        wcs.sip = Sip(a, b, None, None, wcs.wcs.crpix)
    return wcs


def sky_stars(n, rng, *, low=2e3, high=2e4):
    """Sky positions and fluxes of isolated stars well inside the standard frame."""
    x, y = (g.ravel() for g in np.meshgrid(np.linspace(35, 165, n), np.linspace(30, 120, n)))
    ra, dec = make_wcs().all_pix2world(x + rng.uniform(-2, 2, x.size), y, 0)
    return ra, dec, rng.uniform(low, high, x.size)


def make_frame(wcs, stars, *, fwhm=3.5, sky=0.0, sigma=0.0, light=1.0, rng=None, extra=0.0):
    """Frame of stars seen through a WCS."""
    ra, dec, flux = stars
    x, y = wcs.all_world2pix(ra, dec, 0)
    data = star_image(SHAPE, x, y, light * flux, fwhm=fwhm) + sky + extra
    if sigma:
        data += rng.normal(0, sigma, SHAPE)
    flags = np.zeros(SHAPE, np.uint16)
    return CCDData(data.astype(np.float32), unit="adu", flags=flags, wcs=wcs, meta=fits.Header())


def measure(image, wcs, stars, *, radius):
    """Sum in circles around the stars, by pixels whose centres are inside."""
    j, i = np.indices(image.shape)
    x, y = wcs.all_world2pix(*stars[:2], 0)
    circles = np.hypot(i - x[:, None, None], j - y[:, None, None]) < radius
    return np.where(circles, np.nan_to_num(image), 0).sum(axis=(1, 2))
