"""Domains of annotated photographs: which objects are taken, and that their boxes follow them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_training import photograph

from fdn_triton.errors import InputError
from fdn_triton.training.stills import still_domains


def test_boxes_follow_the_object(tmp_path: Path) -> None:
    photograph(tmp_path, "one", (91, 61, 150, 100))
    (domain,), left_out = still_domains(tmp_path, 5, seed=0)
    assert left_out == [] and domain.box_xywh.tolist() == [90, 60, 60, 40]
    shapes = set()
    for number in range(len(domain)):
        frame, box = domain.frame(number) or pytest.fail("it can be read")
        red = frame[:, :, 0].astype(int) - frame[:, :, 2] > 60
        rows, columns = (np.flatnonzero(red.any(axis=axis)) for axis in (1, 0))
        seen = columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]
        np.testing.assert_allclose(seen, box, atol=6)  # blur widens what is seen
        shapes.add(round(float(box[2] / box[3]), 2))
    assert len(shapes) > 10 and min(shapes) < 1.4 < 1.6 < max(shapes), "turned and squeezed"
    again = domain.frame(3)
    assert again is not None and np.array_equal(again[0], domain.frame(3)[0]), "a frame depends on its number only"


def test_which_objects_are_taken(tmp_path: Path) -> None:
    photograph(tmp_path, "difficult", (91, 61, 150, 100), difficult=True)
    photograph(tmp_path, "large", (5, 5, 230, 170))
    photograph(tmp_path, "mixed", (1, 1, 240, 180), (101, 51, 140, 100), (5, 5, 15, 15))
    photograph(tmp_path, "outside", (201, 61, 260, 100))
    (tmp_path / "Annotations/nothing.xml").write_text("<annotation/>")
    (tmp_path / "Annotations/torn.xml").write_text("<annotation><obj")
    (tmp_path / "JPEGImages/torn.jpg").write_bytes((tmp_path / "JPEGImages/mixed.jpg").read_bytes())
    domains, left_out = still_domains(tmp_path, 10, seed=0)
    assert [(domain.name, domain.box_xywh.tolist()) for domain in domains] == [
        ("mixed at [100, 50, 40, 50]", [100, 50, 40, 50])
    ]
    assert sorted(Path(line).name for line in left_out) == [
        "nothing.jpg cannot be read",
        "torn.xml cannot be read",
    ]


def test_as_many_as_wanted_in_an_order_of_the_seed(tmp_path: Path) -> None:
    for i in range(8):
        photograph(tmp_path, f"p{i}", (91 + i, 61, 150, 100))
    names = [[d.name for d in still_domains(tmp_path, 4, seed)[0]] for seed in (0, 0, 1)]
    assert len(set(names[0])) == 4 and names[0] == names[1] != names[2]


def test_a_folder_without_any_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no photograph with a usable box: give a folder with VOC's JPEGImages"):
        still_domains(tmp_path, 4, seed=0)
