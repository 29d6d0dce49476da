"""The cards of a calibrated frame: no later step has to know the words of a camera program."""

import math

from astropy.time import Time

__all__ = ["light_cards"]


def light_cards(row, header, camera, gain, read_noise):
    """Give our own cards for a light frame.

    Parameters
    ----------
    row : dict
        The frame in the inventory: ``kind``, ``file``, ``object``, ``filter``, ``exptime`` (s),
        ``jd_utc_mid``, ``ra``, ``dec`` (deg), ``setup``, ``pier_side``, ``airmass``.
    header : Mapping
        Header of the raw frame; its card SATURATE counts where the night file has no saturation.
    camera : Camera
        With ``saturation`` (ADU) or None.
    gain, read_noise : float or None
        Electrons per count of the calibrated image, and electrons.

    Returns
    -------
    dict of str to (value, str)
        Value and comment of each card; a card is there only where its value is known.
    """
    saturation = camera.saturation
    if saturation is None and isinstance(header.get("SATURATE"), int | float):
        saturation = float(header["SATURATE"])
    middle = row["jd_utc_mid"]
    date = Time(middle, format="jd", scale="utc").isot if math.isfinite(middle) else None
    cards = {
        "KIND": (row["kind"], "kind of frame"),
        "RAWFILE": (row["file"][-60:], "raw frame"),
        "OBJECT": (row["object"], "object"),
        "FILTER": (row["filter"], "filter"),
        "EXPTIME": (row["exptime"], "s"),
        "DATE-MID": (date, "UTC of mid-exposure"),
        "JD_UTC_M": (middle, "Julian date (UTC) of mid-exposure"),
        "RA_DEG": (row["ra"], "deg, pointing"),
        "DEC_DEG": (row["dec"], "deg, pointing"),
        "SETUP": (row["setup"], "set-up"),
        "PIERSIDE": (row["pier_side"] or None, "side of the pier"),
        "AIRMASS": (row["airmass"], "of the header"),
        "GAIN_E": (gain, "e- per count of this image"),
        "RON_E": (read_noise, "e-"),
        "SATURATE": (saturation, "ADU in the raw frame"),
    }
    return {key: card for key, card in cards.items() if card[0] is not None and card[0] == card[0]}
