"""The service nova.astrometry.net: asked with a list of stars, never with an image."""

import os
import time

import numpy as np
from astropy import units as u

from .errors import SolveError
from .headerwcs import read_wcs
from .solvefield import brightest_stars

__all__ = ["KEY_VARIABLE", "ask_nova"]

#: Environment variable with the key. A key belongs to a person: it is in no file of a project.
KEY_VARIABLE = "ASTROMETRY_NET_API_KEY"
#: Seconds to wait for one answer of the server; what is left of the time limit if that is less.
PATIENCE = 30.0
#: Stars that are sent.
STARS_SENT = 300
OFFLINE = 'set [astrometry] solver = "catalogue", which needs no key and no network'


def ask_nova(
    sources,
    *,
    shape,
    center,
    scale,
    search_radius=30 * u.arcmin,
    scale_tolerance=0.1,
    time_limit=120.0,
    server=None,
):
    """Ask nova.astrometry.net where a frame points.

    First with the position, then, if that is refused, without. What is sent is marked as not
    public.

    Parameters
    ----------
    sources, shape, center, scale, search_radius, scale_tolerance
        As for `datared.solver.solve_frame`.
    time_limit : float
        Seconds for all of it.
    server : str, optional
        Address of another server of this kind.

    Returns
    -------
    wcs : astropy.wcs.WCS
        Its solution.
    tried : tuple of str
        One sentence for each question.

    Raises
    ------
    SolveError
        If there is no key, the server cannot be reached or refuses the key, finds nothing, takes
        too long, or answers what cannot be read. The message says which, and what to do next.
    """
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key:
        raise SolveError(
            f"there is no key for nova.astrometry.net: make an account there, copy the key of "
            f"your profile into the environment variable {KEY_VARIABLE} (never into a notebook "
            f"or a file of the project), or {OFFLINE}"
        )
    stars = brightest_stars(sources, STARS_SENT)
    scale = u.Quantity(scale, u.arcsec).value
    attempts = [("nova, anywhere", {})]
    if center is not None and np.isfinite(center.ra.deg) and np.isfinite(center.dec.deg):
        radius = u.Quantity(search_radius, u.arcmin).to_value(u.deg)
        center = center.icrs
        hints = {"center_ra": float(center.ra.deg), "center_dec": float(center.dec.deg)}
        place = f"RA {center.ra.deg:.3f} Dec {center.dec.deg:.3f} deg"
        words = f"nova, within {60 * radius:.0f}' of {place}"
        attempts.insert(0, (words, hints | {"radius": radius}))
    tried = []
    deadline = time.monotonic() + time_limit
    service = _service(server, deadline)
    for words, hints in attempts:
        settings = {
            "scale_units": "arcsecperpix",
            "scale_type": "ul",
            "scale_lower": scale * (1 - scale_tolerance),
            "scale_upper": scale * (1 + scale_tolerance),
            "tweak_order": 2,
            "crpix_center": True,
            "publicly_visible": "n",
            "allow_modifications": "n",
            "allow_commercial_use": "n",
            **hints,
        }
        header = _answer(service, key, stars, shape, settings, words, tried, deadline)
        if not header:
            tried.append(f"{words}: no solution")
            continue
        header["RADESYS"] = "ICRS"  # As its index files; EQUINOX alone would mean FK5.
        wcs = read_wcs(header, shape)
        if wcs is None:
            tried.append(f"{words}: an answer without celestial coordinates")
            continue
        tried.append(f"{words}: solved")
        return wcs, tuple(tried)
    raise SolveError(
        f"{len(stars)} stars sent; {'; '.join(tried)}. Check that the frame has stars and that "
        f"pixel_scale is right, or {OFFLINE}"
    )


def _service(server, deadline):
    """Client of astroquery that neither waits for ever nor believes an old answer."""
    # Loaded here: most nights never ask, and it takes a second.
    from astroquery.astrometry_net import AstrometryNetClass, conf

    class Service(AstrometryNetClass):
        def _request(self, *args, **options):
            seconds = min(PATIENCE, max(deadline - time.monotonic(), 0.1))
            response = super()._request(*args, **(options | {"cache": False, "timeout": seconds}))
            response.raise_for_status()
            return response

    service = Service()
    service.URL = (server or conf.server).rstrip("/")
    service.API_URL = f"{service.URL}/api"
    return service


def _answer(service, key, stars, shape, settings, words, tried, deadline):
    """Header of the answer, empty if there is no solution; other ends are errors."""
    from astroquery.astrometry_net import conf
    from astroquery.exceptions import TimeoutError as NoAnswer

    before = "".join(f"{sentence}; " for sentence in tried)
    left = max(deadline - time.monotonic(), 0.0)
    try:
        with conf.set_temp("api_key", key):
            return service.solve_from_source_list(
                list(stars["X"]), list(stars["Y"]), int(shape[1]), int(shape[0]),
                solve_timeout=left, verbose=False, **settings,
            )  # fmt: skip
    except (NoAnswer, RuntimeError, ValueError, LookupError, TypeError, OSError) as error:
        # OSError holds the errors of the network library, ValueError an answer without sense.
        if isinstance(error, NoAnswer) or time.monotonic() > deadline - 0.1:
            reason = "no answer within the time limit. Give a longer [astrometry] time_limit"
        elif isinstance(error, RuntimeError) and "log in" in str(error):
            reason = (
                "the server does not know the key. Copy that of your profile at "
                f"nova.astrometry.net into {KEY_VARIABLE} again"
            )
        elif isinstance(error, OSError) and not isinstance(error, ValueError):
            reason = f"{service.URL} cannot be reached ({type(error).__name__}). Try again later"
        else:
            reason = f"the answer of {service.URL} makes no sense ({error}). Try again later"
        raise SolveError(f"{before}{words}: {reason}, or {OFFLINE}") from error
