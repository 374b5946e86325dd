"""Where OPE, TRE and SRE start, and with which boxes."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fdn_triton.errors import InputError
from fdn_triton.evaluation.protocols import parts


def moving(frames: int) -> NDArray[np.float64]:
    """Ground truth whose x is the number of its frame."""
    return np.array([[float(i), 50.0, 40.0, 20.0] for i in range(frames)]).reshape(-1, 4)


def test_ope_is_one_run_from_the_first_frame() -> None:
    (part,) = parts("ope", moving(30))
    assert (part.name, part.first_frame, part.box_xywh) == ("ope", 0, (0.0, 50.0, 40.0, 20.0))


# TRE


def test_tre_starts_where_the_toolkit_does() -> None:
    # By hand from its formula, floor(1 : 81/19 : 81) and 81, less 1: frames 0 to 80 leave 20 of 100 or more.
    expected = [0, 4, 8, 12, 17, 21, 25, 29, 34, 38, 42, 46, 51, 55, 59, 63, 68, 72, 76, 80]
    found = parts("tre", moving(100))
    assert [part.first_frame for part in found] == expected
    assert [part.box_xywh[0] for part in found] == expected  # the ground truth of that frame
    assert [part.name for part in found] == [f"tre-{k:02d}" for k in range(1, 21)]


def test_tre_starts_on_no_frame_without_a_usable_box() -> None:
    truth = moving(120)
    truth[0:5] = np.nan
    truth[30:60] = np.nan
    truth[70:80, 0] = -1.0  # 0 in the toolkit's pixels: partly outside
    truth[80:85, 1] = -0.5
    starts = [part.first_frame for part in parts("tre", truth)]
    assert len(starts) == 20
    assert starts[0] == 5 and starts[-1] == 100
    assert not set(starts) & {*range(5), *range(30, 60), *range(70, 80)}
    assert set(starts) & set(range(80, 85))


def test_tre_of_a_short_sequence_starts_nowhere_twice() -> None:
    starts = [part.first_frame for part in parts("tre", moving(25))]
    assert starts == [0, 1, 2, 3, 4, 5]  # which leave 25 to 20 frames
    assert [part.first_frame for part in parts("tre", moving(20))] == [0]
    assert [part.first_frame for part in parts("tre", moving(7))] == [0]


def test_tre_without_a_frame_that_leaves_20_starts_at_the_first_usable_one() -> None:
    truth = moving(60)
    truth[:50] = np.nan
    assert [part.first_frame for part in parts("tre", truth)] == [50]


# SRE

BOX = np.array([100.0, 50.0, 40.0, 20.0])


def sre() -> dict[str, NDArray[np.float64]]:
    truth = np.tile(BOX, (3, 1))
    found = parts("sre", truth)
    assert {part.first_frame for part in found} == {0}
    assert len({part.name for part in found}) == 12
    return {part.name.removeprefix("sre-"): np.array(part.box_xywh) for part in found}


@pytest.mark.parametrize(("name", "shift"), [("left", (-4, 0)), ("right", (4, 0)), ("up", (0, -2)), ("down", (0, 2))])
def test_sre_shifts_by_a_tenth_of_the_size(name: str, shift: tuple[int, int]) -> None:
    np.testing.assert_allclose(sre()[name], BOX + (*shift, 0, 0))


@pytest.mark.parametrize("vertical", ["top", "bottom"])
@pytest.mark.parametrize("horizontal", ["left", "right"])
def test_sre_pulls_a_corner_and_leaves_the_opposite_one(vertical: str, horizontal: str) -> None:
    x, y, w, h = sre()[f"{vertical}-{horizontal}"]
    left, top, right, bottom = 100.0, 50.0, 140.0, 70.0
    expected = (
        (left - 4, right) if horizontal == "left" else (left, right + 4),
        (top - 2, bottom) if vertical == "top" else (top, bottom + 2),
    )
    np.testing.assert_allclose([[x, x + w], [y, y + h]], expected)


@pytest.mark.parametrize("scale", [0.8, 0.9, 1.1, 1.2])
def test_sre_scales_about_the_centre(scale: float) -> None:
    x, y, w, h = sre()[f"scale-{scale}"]
    np.testing.assert_allclose([x + w / 2, y + h / 2], [120, 60])
    np.testing.assert_allclose([w, h], [40 * scale, 20 * scale])


# What has no start


@pytest.mark.parametrize("protocol", ["ope", "sre"])
def test_a_first_frame_without_a_box_is_refused(protocol: str) -> None:
    truth = moving(30)
    truth[0] = np.nan
    with pytest.raises(InputError, match="no box on the first frame"):
        parts(protocol, truth)  # type: ignore[arg-type]
    assert parts("tre", truth)[0].first_frame == 1


@pytest.mark.parametrize("protocol", ["ope", "tre", "sre"])
def test_a_sequence_without_any_box_is_refused(protocol: str) -> None:
    for truth in (np.full((30, 4), np.nan), np.empty((0, 4))):
        with pytest.raises(InputError, match="no box"):
            parts(protocol, truth)  # type: ignore[arg-type]
