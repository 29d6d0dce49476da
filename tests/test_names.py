"""Tests of the room names: the list without network, positions as text, Simbad."""

import csv
import os
import re
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord, get_constellation
from astropy.table import MaskedColumn, Table
from astropy.time import Time

from datared.catalogs import identify_target
from datared.errors import DataredError
from datared.names import known_names, known_object, position_at, resolve_target

PLANETS = Path(os.environ.get("DATARED_DATA", "none")) / "exoplanet-tables"


class Simbad:
    """Stands in for astroquery's Simbad: one star, in the columns that the real answer has."""

    error = None
    asked = ()

    def add_votable_fields(self, *names):
        """Take the further columns."""
        assert names == ("pmra", "pmdec")

    def query_object(self, name):
        """Answer."""
        type(self).asked += (name,)
        if self.error is not None:
            raise self.error
        known = name == "V1 Test"
        return Table(
            {
                "main_id": ["V* V1 Test"][:known],
                "ra": MaskedColumn([10.0][:known], unit="deg"),
                "dec": MaskedColumn([20.0][:known], unit="deg"),
                "pmra": MaskedColumn([0.0][:known], mask=[True][:known], unit="mas / yr"),
                "pmdec": MaskedColumn([100.0][:known], mask=[False][:known], unit="mas / yr"),
            }
        )


@pytest.fixture
def simbad():
    """Give a fresh class of service."""
    return type("FreshSimbad", (Simbad,), {})


def test_known_object_by_any_of_its_names():
    """MV-04: case, blanks, hyphens and other names do not matter; a planet stands for its star."""
    for name in ("M 67", "m67", "Messier 67", "NGC 2682", "ngc2682"):
        assert known_object(name).name == "M 67" and known_object(name).kind == "cluster"
    for name in ("HAT-P-32", "HAT-P-32 b", "HAT-P-32b", "hat p 32 b", "HATP32b", "hat-p-32-b"):
        assert known_object(name).name == "HAT-P-32"
    for name in ("RR Lyr", "rr lyr", "RR_Lyr", "RRLYR"):
        assert known_object(name).name == "RR Lyr"
    for name in ("XO-2 N b", "XO-2Nb", "XO-2 b"):
        assert known_object(name).name == "XO-2"
    assert known_object("Boyajian’s star") == known_object("KIC 8462852")
    for name in ("HAT-P-32 B", "M 67 b", "HAT-P-3", "HAT-P-322", "", "b", "RR Lyr b", "Vega"):
        assert known_object(name) is None
    names = known_names()
    assert len(names) == len(set(names)) > 80 and {"M 13", "WASP-12", "NGC 6819"} <= set(names)


def test_known_positions_against_other_sources():
    """000-32: places known from elsewhere: stars within an arcsec, open clusters within 90."""
    for name, place, limit in (
        ("RR Lyr", "19h25m27.91s +42d47m03.7s", 1),
        ("HAT-P-32", "02h04m10.278s +46d41m16.21s", 1),
        ("SS Cyg", "21h42m42.80s +43d35m09.9s", 1),
        ("delta Cep", "22h29m10.265s +58d24m54.71s", 1),
        ("M 13", "16h41m41.24s +36d27m35.5s", 2),
        ("M 15", "21h29m58.33s +12d10m01.2s", 2),
        ("M 11", "18h51m05s -06d16m12s", 90),
        ("M 37", "05h52m18s +32d33m02s", 90),
        ("NGC 6819", "19h41m18s +40d11m12s", 90),
        ("NGC 6811", "19h37m17s +46d23m18s", 90),
        ("NGC 7789", "23h57m20s +56d43m34s", 90),
        ("M 35", "06h08m54s +24d20m00s", 90),
    ):
        assert known_object(name).position.separation(SkyCoord(place)).arcsec < limit, name


def test_known_positions_lie_in_their_constellations():
    """000-32: what is called after a constellation lies in it: a typing error would be seen."""
    text = (resources.files("datared") / "data" / "objects.csv").read_text(encoding="utf-8")
    names = re.findall(r"[\w ]+ (?:And|Cep|Cet|CrB|Cyg|Lyr|Per|Vul)(?=[,;])", text)
    assert len(names) == 11
    for name in names:
        position = known_object(name).position
        assert get_constellation(position, short_name=True) == name[-3:], name


@pytest.mark.skipif(not PLANETS.is_dir(), reason="the shared exoplanet tables are not here")
def test_known_hosts_against_the_exoplanet_tables():
    """000-32: each host agrees with two catalogues of planets; of one the rounding is coarse."""
    tables = []
    for file, name, ra, dec, unit, limit in (
        ("nasa_exoplanet_archive_2018-11-29.csv", "pl_hostname", "ra", "dec", "deg", 3),
        ("open_exoplanet_catalogue.txt", "name", "system_rightascension", "system_declination",
         "hourangle", 11),
    ):  # fmt: skip
        lines = (PLANETS / file).read_text().splitlines()
        rows = csv.DictReader(line for line in lines if not line.startswith("#"))
        known = [(known_object(row[name]), row[ra], row[dec]) for row in rows]
        tables.append(
            {k.name: (SkyCoord(*p, unit=(unit, "deg")), limit) for k, *p in known if k is not None}
        )
    hosts = [name for name in known_names() if known_object(name).kind == "host"]
    found = {name: [t[name] for t in tables if name in t] for name in hosts}
    # Of the pair XO-2 the second table has the place of the southern star, 31 arcsec away.
    found["XO-2"] = found["XO-2"][:1]
    assert len(hosts) > 40 and all(found.values())
    for name, places in found.items():
        for place, limit in places:
            assert known_object(name).position.separation(place).arcsec < limit, name


@pytest.mark.parametrize(
    "text",
    [
        "19:25:27.9 +42:47:03.7",
        "19 25 27.9 +42 47 03.7",
        "19h25m27.9s +42d47m03.7s",
        "19h25m27.9s, +42°47'03.7\"",
        "19 25.465 +42 47.0617",
        "19.42441667h +42.7843611d",
        "291.36625 42.7843611",
        "291.36625, +42.7843611",
        "291.36625d 42.7843611d",
        "  19:25:27.9   42:47:03.7 ",
    ],
)
def test_e39_one_position_in_every_notation(text):
    """E39: hours, degrees, colons, blanks, letters: all through one parser, all the same place."""
    place = resolve_target(text, online=False)
    assert place.separation(SkyCoord("19h25m27.9s +42d47m03.7s")).arcsec < 0.01


@pytest.mark.parametrize("text", ["350.2 95", "25:61:00 +10:00:00", "291.4", "19h25m27s"])
def test_e39_what_is_no_position_is_refused(text):
    """E39: numbers that cannot be a position are no names either."""
    with pytest.raises(DataredError, match=r"is no position and not among.*degrees"):
        resolve_target(text, online=False)


def test_identify_target_rr_lyr_by_name():
    """000-32: RR Lyr, by name and moved by its proper motion, finds its row in a field of 2026."""
    rng = np.random.default_rng(8)
    jd = Time("2026-07-01").jd
    # Gaia's place of 2016 is told nowhere here: 16.5 years of motion from J2000 and 10 more.
    start = SkyCoord("19h25m27.91s +42d47m03.7s")
    now = start.spherical_offsets_by(26.5 * -0.1097 * u.arcsec, 26.5 * -0.1958 * u.arcsec)
    table = Table({"ra": 291.37 + rng.uniform(-0.2, 0.2, 200)})
    table["dec"] = 42.78 + rng.uniform(-0.15, 0.15, 200)
    table["ra"][71], table["dec"][71] = now.ra.deg, now.dec.deg
    row, separation = identify_target(table, resolve_target("RR Lyr", jd=jd), limit=1)
    assert row == 71 and separation < 0.1 * u.arcsec
    with pytest.raises(DataredError, match=r"the nearest, row 71, is 5\.9 arcsec away"):
        identify_target(table, resolve_target("RR Lyr"), limit=3)


def test_position_at_follows_astropy():
    """Proper motion moves a position as astropy moves it, near the pole too."""
    jd = Time("2025-06-01").jd
    for dec in (5.0, 89.999):
        moving = SkyCoord(
            10 * u.deg, dec * u.deg, distance=10 * u.pc, obstime=Time("J2000"),
            pm_ra_cosdec=2000 * u.mas / u.yr, pm_dec=-900 * u.mas / u.yr,
        )  # fmt: skip
        expected = moving.apply_space_motion(Time(jd, format="jd"))
        expected = SkyCoord(expected.ra, expected.dec)
        found = position_at(moving, jd)
        assert found.separation(expected).arcsec < 0.01 and not found.data.differentials
    fixed = SkyCoord(10, 20, unit="deg")
    assert position_at(fixed, jd).separation(fixed) == 0
    assert position_at(moving, np.nan).dec.deg == pytest.approx(89.999)


def test_resolve_target_asks_simbad_last(simbad):
    """MV-04: the list and the text go first; Simbad's answer carries its proper motion."""
    resolve_target("WASP-12 b", service=simbad)
    resolve_target("10 20", service=simbad)
    given = SkyCoord(1, 2, unit="deg")
    assert resolve_target(given, service=simbad) is given and not simbad.asked
    place = resolve_target(" V1 Test ", service=simbad)
    assert simbad.asked == ("V1 Test",) and place.ra.deg == 10.0
    moved = resolve_target("V1 Test", jd=2451545.0 + 36525.0, service=simbad)
    assert (moved.dec.deg - 20) * 3600 == pytest.approx(10.0, abs=1e-3)


def test_resolve_target_unknown_or_offline_says_what_to_do(simbad):
    """MV-04: not known, no network, no name: one sentence, with names that are near."""
    with pytest.raises(DataredError, match="Simbad does not know it") as error:
        resolve_target("HAT-P-33", service=simbad)
    assert "Did you mean HAT-P-3" in str(error.value) and "02:04:10.28" in str(error.value)
    simbad.error = ConnectionError("no route")
    with pytest.raises(DataredError, match=r"Simbad cannot be asked \(ConnectionError\)"):
        resolve_target("V1 Test", service=simbad)
    with pytest.raises(DataredError, match="Simbad is not asked"):
        resolve_target("V1 Test", online=False)
    with pytest.raises(DataredError, match="name of the target is empty"):
        resolve_target(" ", service=simbad)
