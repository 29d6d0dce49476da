"""Which frames make which master, and which frame gets which: on listings, without any pixel."""

import dataclasses
import math

import numpy as np
import pytest
from astropy.table import Table

from datared.darks import choose_dark, same_exposure, temperature_groups
from datared.errors import ConfigError
from datared.matching import match_frames, plan_masters, safe_name
from datared.night import make_night
from datared.outlook import outlook
from datared.vocabulary import VOCABULARY

NAN = math.nan
SETUP = "8x6 bin1x1 gain30"


def listing(*groups):
    """Listing of frames: for each group its kind, number and columns that differ from the usual."""
    rows = []
    for kind, count, values in groups:
        usual = {"filter": "r", "exptime": 0.0 if kind == "bias" else 60.0, "temperature": -10.0}
        usual |= {"setup": SETUP, "night": "2026-02-14", **values}
        for _ in range(count):
            name = f"{kind}{len(rows):03d}.fits"
            rows.append(VOCABULARY | {"file": name, "path": name, "kind": kind} | usual)
    return Table(rows)


def frames_of(table, kind="light"):
    """Rows of one kind."""
    return table[table["kind"] == kind]


def match(table, kind="light", **options):
    """Match the frames of one kind with the masters of the same listing."""
    return match_frames(frames_of(table, kind), plan_masters(table), **options)


def names(plans):
    """Names of masters with their number of frames."""
    return {plan.name: len(plan.files) for plan in plans}


# --- darks: exposure time -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["light", "flat"])
def test_dark_match_has_three_values(kind):
    """000-02, 000-14, 000-15, 000-16: exact (factor 1), scaled, none; for lights and for flats."""
    darks = [("bias", 5, {}), ("dark", 5, {"exptime": 192.0})]
    for exptime, wanted in ((192.0, ("exact", 1.0)), (96.0, ("scaled", 0.5)), (NAN, ("none", 0.0))):
        result = match(listing(*darks, (kind, 1, {"exptime": exptime})), kind)
        assert (result["dark_match"][0], result["dark_scale"][0]) == wanted
        assert result["dark"][0] == ("" if wanted[0] == "none" else "dark_192s")
    result = match(listing(("bias", 5, {}), (kind, 1, {})), kind)
    assert (result["dark_match"][0], result["why"][0].split("; ")[0]) == ("none", "no dark")


def test_e05_dark_per_exposure_time():
    """E05, PR-03, 000-13, HD-04: darks of 30 (one says 29.999), 45 and 192 s are three masters."""
    table = listing(
        ("bias", 5, {}),
        ("dark", 5, {"exptime": 30.0}),
        ("dark", 1, {"exptime": 29.999}),
        ("dark", 5, {"exptime": 45.0}),
        ("dark", 5, {"exptime": 192.0}),
    )
    plans = plan_masters(table)
    assert names(plans) == {"bias": 5, "dark_30s": 6, "dark_45s": 5, "dark_192s": 5}
    assert all(plan.bias == "bias" for plan in plans if plan.kind == "dark")


def test_one_dark_for_each_of_15_exposure_times():
    """PR-03: fifteen exposure times with one dark each are allowed, with a remark on each."""
    table = listing(*(("dark", 1, {"exptime": 10.0 * i}) for i in range(1, 16)))
    plans = plan_masters(table)
    assert len(plans) == 15 and all("single frame" in plan.why for plan in plans)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        (30.0, 30.149, True),
        (30.0, 30.16, False),
        (0.010, 0.0149, True),
        (0.010, 0.0151, False),
        (0.0, 0.0049, True),
        (NAN, 30.0, False),
    ],
)
def test_exposure_tolerance(first, second, same):
    """HD-04: exposure times are equal within 0.5 % or 5 ms, whichever is larger."""
    assert same_exposure(first, second) == same_exposure(second, first) == same
    assert (choose_dark(first, [second], bias_free=False)[2] == "exact") == same


def test_steps_within_the_tolerance_make_no_chain():
    """HD-04: 30.0, 30.1, 30.2, 30.3 s are not all one time because each step is small."""
    table = listing(*(("dark", 3, {"exptime": 30 + i / 10}) for i in range(4)))
    groups = [set(plan.exptimes) for plan in plan_masters(table)]
    assert groups == [{30.0, 30.1}, {30.2, 30.3}]


def test_e07_lights_of_mixed_exposure_times():
    """E07, 000-16: each light has the dark of its own exposure time, or a scaled one."""
    table = listing(
        ("bias", 5, {}),
        *(("dark", 5, {"exptime": t}) for t in (30.0, 60.0)),
        *(("light", 2, {"exptime": t}) for t in (30.0, 60.0, 20.0)),
    )
    result = match(table)
    assert list(result["dark"]) == ["dark_30s"] * 2 + ["dark_60s"] * 4
    np.testing.assert_allclose(result["dark_scale"], [1, 1, 1, 1, 1 / 3, 1 / 3])


def test_e06_flats_of_mixed_exposure_times():
    """E06, 002-04, PR-06: every flat of one filter is used, each with its own dark and factor."""
    table = listing(
        ("bias", 5, {}),
        ("dark", 5, {"exptime": 60.0}),
        ("flat", 3, {"exptime": 2.0}),
        ("flat", 3, {"exptime": 60.0}),
    )
    (plan,) = [plan for plan in plan_masters(table) if plan.kind == "flat"]
    assert len(plan.files) == 6 and set(plan.darks) == {"dark_60s"} and plan.bias == "bias"
    np.testing.assert_allclose(plan.scales, [2 / 60] * 3 + [1] * 3)


@pytest.mark.parametrize(
    ("exptime", "remark"),
    [(30.0, ""), (3.0, ""), (2.0, "outside 0.05 to 2"), (120.0, ""), (180.0, "outside 0.05 to 2")],
)
def test_e13_no_dark_of_this_exposure(exptime, remark):
    """E13, PR-04: scaled with the ratio noted, with a remark where it is not within 0.05 to 2."""
    table = listing(("bias", 5, {}), ("dark", 5, {}), ("light", 1, {"exptime": exptime}))
    result = match(table)
    assert result["dark_match"][0] == "scaled"
    assert result["dark_scale"][0] == pytest.approx(exptime / 60)
    assert f"dark of 60 s scaled by {exptime / 60:.4g}" in result["why"][0]
    assert ("outside" in result["why"][0]) == bool(remark) and remark in result["why"][0]


def test_dark_scaling_without_bias():
    """PR-04, F2: a dark with its bias is scaled only by permission, and what stays is named."""
    table = listing(("dark", 5, {"exptime": 192.0}), ("light", 1, {"exptime": 96.0}))
    result = match(table)
    assert result["dark_match"][0] == "none"
    assert "there are 192 s, but without bias" in result["why"][0]
    plans = plan_masters(table, allow_bias=True)
    result = match_frames(frames_of(table), plans, allow_bias=True)
    assert result["dark_match"][0] == "scaled" and "0.5 of the bias stays" in result["why"][0]


# --- darks: temperature -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("temperature", "darks", "expected"),
    [
        # Exact and near wins over everything.
        (-10, [(60, -10), (30, -10)], (1, "exact")),
        # Two exact ones: the nearer in temperature.
        (-10, [(30, -8.5), (30, -9.5)], (1, "exact")),
        (-10, [(30, -9.9), (30, 0)], (0, "exact")),
        # Scaled within 2 deg C wins over exact outside.
        (-10, [(30, 5), (60, -10)], (1, "scaled")),
        (-10, [(30, -7.9), (60, -10)], (1, "scaled")),
        (-10, [(30, -8.1), (60, -10)], (0, "exact")),
        # A near one with an odd ratio does not: it would be noise.
        (-10, [(30, 5), (1, -10)], (0, "exact")),
        # Nothing near: exact outside, then scaled outside.
        (-10, [(30, 5), (60, 5)], (0, "exact")),
        (-10, [(20, 5), (60, 5)], (1, "scaled")),
        # Nothing else: a near one with an odd ratio wins over a warm one.
        (-10, [(60, 5), (1, -10)], (1, "scaled")),
        # What is not known rules out nothing.
        (NAN, [(30, 5), (60, -10)], (0, "exact")),
        (-10, [(30, NAN), (60, -10)], (0, "exact")),
        (-10, [(30, NAN), (30, -9)], (1, "exact")),
    ],
)
def test_dark_by_temperature(temperature, darks, expected):
    """E10, PR-04, HD-04: the order of exposure time and temperature for a light of 30 s."""
    times, degrees = zip(*darks, strict=True)
    which, _, how = choose_dark(30, times, temperature=temperature, temperatures=degrees)
    assert (which, how) == expected


def test_exact_dark_outside_where_nothing_may_be_scaled():
    """PR-04: with the bias still in the darks a warm exact one is better than none."""
    found = choose_dark(30, [30, 60], bias_free=False, temperature=-10, temperatures=[5, -10])
    assert found == (0, 1.0, "exact")


def test_darks_of_two_temperatures():
    """HD-04, E10: two masters with the temperature in the name; each light gets the nearer one."""
    table = listing(
        ("bias", 5, {}),
        ("dark", 5, {"temperature": -10.1}),
        ("dark", 4, {"temperature": 0.2}),
        ("light", 1, {"temperature": -9.0}),
        ("light", 1, {"temperature": 1.0}),
        ("light", 1, {"temperature": -4.0}),
    )
    plans = plan_masters(table)
    assert names(plans) == {"bias": 5, "dark_60s_-10C": 5, "dark_60s_0C": 4}
    assert [plan.temperature for plan in plans[1:]] == pytest.approx([-10.1, 0.2])
    result = match(table)
    assert list(result["dark"]) == ["dark_60s_-10C", "dark_60s_0C", "dark_60s_0C"]
    assert list(result["why"] == "") == [False] * 3  # No flat in any of them.
    assert ["deg C" in why for why in result["why"]] == [False, False, True]
    assert "4.2 deg C colder than dark_60s_0C" in result["why"][2]


def test_wrong_temperature_dark_is_rejected():
    """E10: two darks that were taken before the sensor was cold stay out, with the reason."""
    table = listing(
        ("bias", 5, {}),
        ("dark", 2, {"temperature": -5.0}),
        ("dark", 5, {"temperature": -10.0}),
        ("light", 3, {}),
        ("flat", 3, {"temperature": -12.0}),
    )
    (plan,) = [plan for plan in plan_masters(table) if plan.kind == "dark"]
    assert plan.name == "dark_60s" and len(plan.files) == 5
    reason = "wrong temperature (-5.0 deg C; the other darks were taken at -10.0)"
    assert plan.rejected == (("dark005.fits", reason), ("dark006.fits", reason))


@pytest.mark.parametrize(
    ("others", "stray"),
    [
        ([("dark", 5, {}), ("light", 1, {"temperature": -6.5})], 2),  # A light needs them.
        ([("dark", 5, {}), ("flat", 1, {"temperature": -3.0})], 2),  # A flat needs them.
        ([("dark", 2, {})], 2),  # The other group is no larger.
        ([("dark", 2, {})], 1),  # Two are not enough to tell which is the stray.
        ([("dark", 5, {})], 3),  # Three are no strays.
        ([("dark", 5, {"exptime": 30.0})], 2),  # Another exposure time.
        ([("dark", 5, {"setup": "other"})], 2),  # Another set-up.
    ],
)
def test_dark_of_another_temperature_is_kept(others, stray):
    """E10: darks of another temperature that may be meant are a master of their own."""
    table = listing(("bias", 5, {}), ("dark", stray, {"temperature": -5.0}), *others)
    plans = plan_masters(table)
    assert not any(plan.rejected for plan in plans)
    assert any(len(plan.files) == stray and plan.temperature == -5.0 for plan in plans)


@pytest.mark.parametrize("degrees", [[NAN] * 4, [NAN, -10.0, NAN, -10.0], [NAN, -10.0, 0.0, -10.0]])
def test_missing_temperature_breaks_nothing(degrees):
    """HD-04, HD-03: frames without a temperature are used, with those of the largest group."""
    rows = [("dark", 1, {"temperature": value}) for value in degrees]
    table = listing(("bias", 5, {}), *rows, ("light", 1, {"temperature": NAN}))
    plans = [plan for plan in plan_masters(table) if plan.kind == "dark"]
    assert sum(len(plan.files) for plan in plans) == 4
    assert "dark000.fits" not in plans[-1].files or len(plans) == 1
    result = match(table)
    assert result["dark_match"][0] == "exact" and "deg C" not in result["why"][0]


def test_e10_temperature_drift():
    """E10: a slow drift keeps one master, with a remark; so do lights far from the dark."""
    rows = [("dark", 1, {"temperature": -10.0 + i}) for i in range(5)]
    table = listing(("bias", 5, {}), *rows, ("light", 1, {"temperature": -13.0}))
    (plan,) = [plan for plan in plan_masters(table) if plan.kind == "dark"]
    assert "sensor temperature from -10.0 to -6.0 deg C" in plan.why
    assert "5.0 deg C colder than dark_60s" in match(table)["why"][0]
    steady = listing(("bias", 5, {}), ("dark", 5, {"temperature": -9.0}), ("light", 1, {}))
    assert "deg C" not in plan_masters(steady)[1].why and "deg C" not in match(steady)["why"][0]


def test_temperature_groups():
    """HD-04: a gap of more than 2 deg C parts groups; the indices come back in order."""
    assert temperature_groups([]) == ([], {})
    assert temperature_groups([NAN, NAN]) == ([[0, 1]], {})
    assert temperature_groups([0, -10, -2.0, -12]) == ([[1, 3], [0, 2]], {})
    assert temperature_groups([0, -2.01]) == ([[1], [0]], {})
    groups, rejected = temperature_groups([0, 0, 0, 5, 9], wanted=[8.0])
    assert groups == [[0, 1, 2], [4]] and list(rejected) == [3]


# --- the other masters --------------------------------------------------------------------------


def test_filter_of_a_dark_is_ignored():
    """002-03: a bias and a dark with FILTER = g are used for lights in r; a flat in g is not."""
    green = {"filter": "g"}
    table = listing(("bias", 5, green), ("dark", 5, green), ("flat", 5, green), ("light", 1, {}))
    result = match(table)
    assert (result["bias"][0], result["dark"][0], result["flat"][0]) == ("bias", "dark_60s", "")


def test_every_passband_without_an_edit():
    """000-20: filters are those of the frames: g, r, i, and a fourth that nobody has heard of."""
    filters = ("g", "r", "i", "O III 5007")
    table = listing(
        *(("flat", 5, {"filter": name}) for name in filters),
        *(("light", 2, {"filter": name}) for name in filters),
    )
    result = match(table)
    assert list(result["flat"]) == [f"flat_{safe_name(n)}" for n in filters for _ in range(2)]


@pytest.mark.parametrize(
    ("count", "remark"), [(1, "a single frame"), (2, "2 frames"), (4, "4 frames"), (5, "")]
)
@pytest.mark.parametrize("kind", ["bias", "dark", "flat"])
def test_e15_few_frames(kind, count, remark):
    """E15, 002-05, PR-01: fewer than five frames are allowed, with a remark; one is not clipped."""
    plan = next(p for p in plan_masters(listing((kind, count, {}))) if p.kind == kind)
    assert len(plan.files) == count
    assert remark in plan.why if remark else "frame" not in plan.why


def test_e14_missing_flat():
    """E14, PR-09: without a flat of its filter a light goes on; strict names the frames at once."""
    table = listing(
        ("bias", 5, {}), ("dark", 5, {}), ("flat", 5, {}), ("light", 1, {}),
        ("light", 2, {"filter": "g"}),
    )  # fmt: skip
    result = match(table)
    assert list(result["flat"]) == ["flat_r", "", ""]
    assert list(result["why"]) == ["", "no flat in filter 'g'", "no flat in filter 'g'"]
    with pytest.raises(ConfigError) as caught:
        match(table, strict=True)
    assert [p.split(":")[0] for p in caught.value.problems[:-1]] == [
        "light016.fits", "light017.fits",
    ]  # fmt: skip
    assert len(match_frames(frames_of(table), plan_masters(table, use_flat=False), use_flat=False))


@pytest.mark.parametrize("kind", ["bias", "dark", "flat"])
def test_setup_mismatch(kind):
    """PR-14, PR-01, PR-09, E08: masters of another set-up are not used; both set-ups are named."""
    table = listing((kind, 5, {"setup": "4x3 bin2x2"}), ("light", 1, {}))
    result = match(table, use_bias=kind == "bias", use_dark=kind == "dark", use_flat=kind == "flat")
    assert result[kind][0] == ""
    for part in (SETUP, "4x3 bin2x2", plan_masters(table)[0].name):
        assert part in result["why"][0]


@pytest.mark.parametrize("kind", ["light", "flat"])
def test_skip_bias_and_no_darks(kind):
    """PR-01, PR-10, 000-04, 002-02, E11, E12: any subset of calibrations gives a row with reasons.

    Nothing raises, whatever is missing.
    """
    for there in ([], ["bias"], ["dark"], ["flat"], ["bias", "flat"], ["dark", "flat"]):
        table = listing(*((name, 5, {}) for name in there), (kind, 1, {}))
        result = match(table, kind)[-1]
        for name in ("bias", "dark", "flat"):
            wanted = name in there or (kind == "flat" and name == "flat")
            if name != "flat" or kind == "light":
                assert bool(result[name]) == wanted
                assert (f"no {name}" in result["why"]) == (not wanted)


def test_only_darkflats():
    """PR-05: dark-flats serve flats of their exposure; lights use them where there is no dark."""
    groups = [("bias", 5, {}), ("darkflat", 5, {"exptime": 4.0}), ("flat", 5, {"exptime": 4.0})]
    table = listing(*groups, ("light", 1, {}))
    (flat,) = [plan for plan in plan_masters(table) if plan.kind == "flat"]
    assert set(flat.darks) == {"darkflat_4s"} and set(flat.scales) == {1.0}
    assert match(table)["dark"][0] == "darkflat_4s"
    table = listing(*groups, ("dark", 5, {"exptime": 30.0}), ("light", 1, {}))
    assert match(table)["dark"][0] == "dark_30s"
    assert set(match(table, "flat")["dark"]) == {"darkflat_4s"}
    assert set(match(table, "flat")["dark_match"]) == {"exact"}


def test_e04_names_of_masters_differ():
    """E04, E42: r, R and r' are three flats with names that any file system tells apart."""
    table = listing(*(("flat", 5, {"filter": name}) for name in ("r", "R", "r'", "r-p")))
    plans = plan_masters(table)
    assert {plan.filter for plan in plans} == {"r", "R", "r'", "r-p"}
    assert len({plan.name.lower() for plan in plans}) == 4


def test_e42_header_text_never_decides_a_path():
    """E42: filters and read-out modes with slashes stay within the folder of masters."""
    nasty = {"filter": "../../r", "setup": "8x6 bin1x1 ../../5 MHz"}
    for plan in plan_masters(listing(("bias", 5, {}), ("bias", 5, nasty), ("flat", 5, nasty))):
        assert not set(plan.name) & set("./\\ ")


def test_failed_master_is_not_chosen_and_the_others_keep_their_names():
    """000-02: where the cold dark cannot be made, the warm one is used under its old name."""
    table = listing(
        ("bias", 5, {}),
        ("dark", 5, {"temperature": -10.0}),
        ("dark", 5, {"temperature": 0.0}),
        ("flat", 5, {}),
        ("light", 1, {}),
    )
    plans = plan_masters(table, failed=("dark_60s_-10C",))
    assert list(names(plans)) == ["bias", "dark_60s_0C", "flat_r"]
    assert set(plans[-1].darks) == {"dark_60s_0C"}
    assert match_frames(frames_of(table), plans)["dark"][0] == "dark_60s_0C"


def test_sky_and_dome_flats_together_are_remarked():
    """000-07: the kinds of flats are known where the header tells them; a mixture is remarked."""
    table = listing(("flat", 3, {"flat_kind": "sky"}), ("flat", 3, {"flat_kind": "dome"}))
    assert "dome and sky flats together" in plan_masters(table)[0].why
    table = listing(("flat", 3, {"flat_kind": "sky"}), ("flat", 3, {"flat_kind": ""}))
    assert "together" not in plan_masters(table)[0].why


def test_nothing_to_match():
    """PR-10: an empty listing gives empty results with all columns."""
    table = listing(("light", 1, {}))[:0]
    assert plan_masters(table) == [] and len(match_frames(table, [])) == 0
    assert "dark_match" in match_frames(table, []).colnames


# --- before anything is computed ----------------------------------------------------------------


@pytest.fixture
def night(tmp_path):
    """Make a night over an empty folder; its listing is made here."""
    (tmp_path / "raw").mkdir()
    return make_night(tmp_path / "raw", work=tmp_path / "work")


def test_outlook_groups_200_lights(night):
    """000-02, 002-05: lights of one treatment share a line; what is odd is listed by name."""
    table = listing(
        ("bias", 3, {}),
        ("dark", 5, {}),
        ("flat", 7, {"exptime": 2.0}),
        ("light", 198, {"exptime": 30.0}),
        ("light", 2, {"exptime": 30.0, "temperature": -5.0}),
        ("light", 4, {"filter": "g"}),
    )
    lines = outlook(night, table)
    text = "\n".join(lines)
    assert len(lines) < 25
    assert "200 lights r 30 s -> bias, dark_60s x 0.5 (scaled), flat_r" in text
    assert "4 lights g 60 s -> bias, dark_60s (exact), no flat" in text
    assert "7 flats r 2 s -> bias, dark_60s x 0.0333 (scaled)" in text
    assert text.count("5.0 deg C warmer") == 2 and "light213.fits: 5.0 deg C" in text
    assert text.count("no flat in filter 'g'") == 1
    assert "3 frames: take 5 or more" in text and "no bias" not in text
    assert "7 flat frames in r of 2 s, minus bias and dark_60s x 0.0333" in text
    assert list(night.raw.parent.iterdir()) == [night.raw]


def test_outlook_lists_ten_remarks_and_counts_the_others(night):
    """000-02: a hundred lights that grow warm do not fill the screen."""
    warm = [("light", 1, {"temperature": i / 10}) for i in range(100)]
    lines = outlook(night, listing(("bias", 5, {}), ("dark", 5, {}), *warm))
    assert sum("warmer" in line for line in lines) == 10
    assert any("and 90 more with such remarks" in line for line in lines)


def test_outlook_names_rejected_frames_and_what_strict_would_do(night):
    """E10, PR-09, 003-01: strays with their reason; nights that were left out; the verdict."""
    table = listing(
        ("dark", 5, {}),
        ("dark", 1, {"temperature": 5.0}),
        ("light", 2, {}),
        ("light", 3, {"night": "2026-02-15", "warning": "odd"}),
    )
    text = "\n".join(outlook(night, table))
    assert "not used: dark005.fits: wrong temperature (5.0 deg C" in text and "strict" not in text
    assert "light frames by night: 2026-02-14: 2, 2026-02-15: 3" in text and "3 files: odd" in text
    options = dataclasses.replace(night.reduction, strict=True, use_flat=False)
    strict = dataclasses.replace(night, reduction=options, date="2026-02-14")
    text = "\n".join(outlook(strict, table))
    assert "3 of 5 light frames are left out" in text and "flat" not in text
    assert "strict = true: a run stops here, for want of these (2 frames)" in text


@pytest.mark.parametrize("groups", [[], [("bias", 3, {})], [("light", 1, {})]])
def test_outlook_of_little(night, groups):
    """PR-10, 002-02: nothing, only calibration frames, only lights: said, not raised."""
    text = "\n".join(outlook(night, listing(*groups, ("light", 1, {"problem": "broken"}))))
    kinds = [kind for kind, _, _ in groups]
    assert ("none: there is no calibration frame" in text) == ("bias" not in kinds)
    assert ("there is no light frame that can be used" in text) == ("light" not in kinds)
    assert text.count("no bias") == kinds.count("light")  # Said once, not again as a remark.
