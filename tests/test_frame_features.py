"""Features of windows equal those of the whole frame, are computed once, and lie where the geometry puts them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fdn_triton import frame_features as module
from fdn_triton.backbone import ROI_FEATURES, Backbone
from fdn_triton.config import NetworkConfig
from fdn_triton.frame_features import FrameFeatures
from fdn_triton.rectangle import NOTHING, Rectangle
from fdn_triton.weights import load_weights

MEAN = torch.tensor([120.0, 110.0, 100.0])
SIZES = [(129, 175), (37, 50), (3, 1000), (97, 16), (1, 1)]
# Convolutions may sum in another order for windows of another size: rounding, relative to the largest value.
TOLERANCE = 1e-4


def _backbone(network: NetworkConfig) -> Backbone:
    """Random weights that keep activations near VGG-M's size, where the normalisation is not linear."""
    generator = torch.Generator().manual_seed(0)
    backbone = Backbone(network).requires_grad_(False)
    for convolution in backbone.convolutions():
        fan_in = convolution.weight[0].numel()
        convolution.weight.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
        convolution.bias.normal_(0, 5.0, generator=generator)
    backbone.conv3.weight.mul_(5)
    backbone.feature_scale.fill_(0.37)
    return backbone


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return _backbone(NetworkConfig())


def _image(size_hw: tuple[int, int], seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (*size_hw, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def _input(image: Tensor) -> Tensor:
    """The network's, at the image's own size."""
    return (image - MEAN).permute(2, 0, 1)[None]


def _boxes(size_hw: tuple[int, int], count: int, seed: int = 1) -> Tensor:
    """Boxes [count, 4] inside, over the border, outside, flat and larger than the frame."""
    generator = torch.Generator().manual_seed(seed)
    frame_wh = torch.tensor(size_hw[::-1], dtype=torch.float32)
    corner = (torch.rand(count, 2, generator=generator) * 1.4 - 0.3) * frame_wh
    boxes = torch.cat((corner, torch.rand(count, 2, generator=generator) ** 2 * frame_wh), dim=1)
    boxes[3::9, 2] = 0
    boxes[5::9] = torch.tensor([-500.0, 30.0, 60.0, 40.0])
    boxes[7::9] = torch.cat((frame_wh + 100, torch.tensor([50.0, 50.0])))
    return boxes


def _growing_boxes(size_hw: tuple[int, int]) -> list[Tensor]:
    """A small box, then one beside it, then further ones, then the whole frame."""
    height, width = size_hw
    rows = [
        (0.5, 0.4, 0.1, 0.1),
        (0.55, 0.5, 0.2, 0.1),
        (0.3, 0.1, 0.2, 0.8),
        (-0.2, 0.6, 0.9, 0.1),
        (-1.0, -1.0, 3.0, 3.0),
    ]
    return [torch.tensor([[x * width, y * height, w * width, h * height]]) for x, y, w, h in rows]


def _assert_close(actual: Tensor, expected: Tensor, largest: Tensor) -> None:
    assert largest > 1  # the comparison is not one of zeros
    torch.testing.assert_close(actual, expected, rtol=0, atol=TOLERANCE * float(largest))


def _valid(features: FrameFeatures) -> Rectangle:
    return features._stages[-1].valid


@pytest.mark.parametrize("size_hw", SIZES)
def test_windows_equal_the_whole_frame(backbone: Backbone, size_hw: tuple[int, int]) -> None:
    image = _image(size_hw)
    whole = backbone(_input(image))
    features = FrameFeatures(backbone, size_hw, MEAN)
    features.begin(image)
    assert whole.shape[2:] == (-(-size_hw[0] // 16), -(-size_hw[1] // 16)) == features._features.shape[2:]
    for boxes in _growing_boxes(size_hw):
        features.require(boxes)
        cells = _valid(features)
        window = (..., slice(cells.top, cells.bottom), slice(cells.left, cells.right))
        _assert_close(features._features[window], whole[window], whole.max())
    assert _valid(features) == Rectangle(0, whole.shape[2], 0, whole.shape[3])


@pytest.mark.parametrize("seed", range(4))
def test_windows_of_random_boxes(backbone: Backbone, seed: int) -> None:
    size_hw = (143, 190)
    image = _image(size_hw, seed)
    whole, features = backbone(_input(image)), FrameFeatures(backbone, size_hw, MEAN)
    features.begin(image)
    for box in _boxes(size_hw, 5, seed):
        features.require(box)
        cells = _valid(features)
        window = (..., slice(cells.top, cells.bottom), slice(cells.left, cells.right))
        _assert_close(features._features[window], whole[window], whole.max())


@pytest.mark.parametrize("band_bytes", [1, 200_000])
def test_bands_do_not_matter(backbone: Backbone, monkeypatch: pytest.MonkeyPatch, band_bytes: int) -> None:
    monkeypatch.setattr(module, "_BAND_BYTES", band_bytes)
    image = _image((97, 133))
    features = FrameFeatures(backbone, (97, 133), MEAN)
    features.begin(image)
    for boxes in _growing_boxes((97, 133)):
        features.require(boxes)
    whole = backbone(_input(image))
    _assert_close(features._features, whole, whole.max())


@pytest.mark.parametrize("size_hw", SIZES)
def test_no_cell_is_computed_twice(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch, size_hw: tuple[int, int]
) -> None:
    features = FrameFeatures(backbone, size_hw, MEAN)
    counts = {stage: torch.zeros(stage.map.size_hw) for stage in features._stages}
    compute = module._Stage._compute

    def count(stage: module._Stage, cells: Rectangle) -> Tensor:
        counts[stage][cells.top : cells.bottom, cells.left : cells.right] += 1
        return compute(stage, cells)

    monkeypatch.setattr(module._Stage, "_compute", count)
    features.begin(_image(size_hw))
    for boxes in _growing_boxes(size_hw):
        for _ in range(2):
            features.of_boxes(boxes)
            for stage, counted in counts.items():
                expected = torch.zeros_like(counted)
                expected[stage.valid.top : stage.valid.bottom, stage.valid.left : stage.valid.right] = 1
                assert torch.equal(counted, expected)
    assert all(bool((counted == 1).all()) for counted in counts.values())


def test_a_small_box_does_not_need_the_whole_frame(backbone: Backbone) -> None:
    features = FrameFeatures(backbone, (480, 640), MEAN)
    features.begin(_image((480, 640)))
    features.require(torch.tensor([300.0, 200.0, 32.0, 32.0]))
    assert _valid(features) == Rectangle(top=12, bottom=16, left=18, right=22)  # 12.5..14.5 and 18.75..20.75
    assert [stage.valid == NOTHING for stage in features._stages] == [False] * 3
    # conv3 reads a cell more on each side.
    assert features._stages[1].valid == Rectangle(top=11, bottom=17, left=17, right=23)


@pytest.mark.parametrize(
    "network",
    [
        NetworkConfig(),
        NetworkConfig(roi_grid="interior", roi_extend=1.0),
        NetworkConfig(roi_extend=1.0, sampling_ratio=3),
        NetworkConfig(roi_layer="pool"),
        NetworkConfig(conv_layers=5, roi_grid="interior", roi_extend=1.0),
        NetworkConfig(conv_layers=5, roi_layer="pool"),
    ],
    ids=["plain", "release", "nine samples", "pool", "five convolutions", "five convolutions, pool"],
)
def test_roi_features_equal_those_of_the_whole_map(network: NetworkConfig) -> None:
    size_hw = (91, 118)
    backbone = _backbone(network)
    image = _image(size_hw)
    whole = backbone(_input(image))
    features = FrameFeatures(backbone, size_hw, MEAN)
    boxes = _boxes(size_hw, 9)
    for group in (boxes[:1], boxes[1:4], boxes):  # a small region that grows
        features.begin(image)
        expected = backbone.roi_features(whole, group)
        _assert_close(features.of_boxes(group), expected, whole.max())
    for box in boxes:  # each as the first of a frame
        features.begin(image)
        features._features.fill_(1e6)  # what earlier frames left must not be read
        _assert_close(features.of_boxes(box[None]), backbone.roi_features(whole, box[None]), whole.max())


def test_shapes_of_boxes(backbone: Backbone) -> None:
    features = FrameFeatures(backbone, (97, 133), MEAN)
    features.begin(_image((97, 133)))
    boxes = _boxes((97, 133), 12)
    rows = features.of_boxes(boxes)
    assert torch.equal(features.of_boxes(boxes.view(3, 4, 4)), rows.view(3, 4, ROI_FEATURES))
    assert torch.equal(features.of_boxes(boxes[5]), rows[5])


def test_no_boxes_need_nothing(backbone: Backbone) -> None:
    features = FrameFeatures(backbone, (97, 133), MEAN)
    features.begin(_image((97, 133)))
    assert features.of_boxes(torch.zeros(0, 4)).shape == (0, ROI_FEATURES)
    assert all(stage.valid == NOTHING for stage in features._stages)


def test_a_new_frame_forgets_the_last_one(backbone: Backbone) -> None:
    size_hw = (97, 133)
    boxes = _boxes(size_hw, 10)
    features = FrameFeatures(backbone, size_hw, MEAN)
    results = []
    for seed in (0, 1, 0):
        features.begin(_image(size_hw, seed))
        results.append(features.of_boxes(boxes))
        fresh = FrameFeatures(backbone, size_hw, MEAN)
        fresh.begin(_image(size_hw, seed))
        assert torch.equal(results[-1], fresh.of_boxes(boxes))
    assert torch.equal(results[0], results[2])
    assert not torch.equal(results[0], results[1])


def test_roi_features_are_ordered_y_x_channel(backbone: Backbone) -> None:
    """On a map that counts its cells, a box of 3 x 3 cells at whole cells, one sample a bin at the cells' centres."""
    plain = Backbone(NetworkConfig(sampling_ratio=1))
    ramp = 100 * torch.arange(8.0)[:, None] + 10 * torch.arange(9.0)
    feature_map = ramp + torch.arange(512.0)[:, None, None] * 1e4
    # Bins of one cell from 1.5 and 2.5 on: samples at 2, 3, 4 and 3, 4, 5.
    out = plain.roi_features(feature_map[None], torch.tensor([24.0, 40.0, 48.0, 48.0])).view(3, 3, 512)
    expected = ramp[3:6, 2:5][..., None] + torch.arange(512.0) * 1e4
    torch.testing.assert_close(out, expected)


def _smooth_backbone() -> Backbone:
    """Every kernel positive, symmetric and highest in its middle; activations too small for the normalisation."""
    backbone = Backbone(NetworkConfig()).requires_grad_(False)
    for convolution in backbone.convolutions():
        side = convolution.kernel_size[0]
        ramp = 1.0 + side // 2 - (torch.arange(side) - side // 2).abs()
        kernel = ramp[:, None] * ramp
        convolution.weight.copy_((kernel / kernel.sum() / convolution.in_channels).expand_as(convolution.weight))
        convolution.bias.zero_()
    return backbone


def test_cell_i_lies_on_pixel_16_i() -> None:
    backbone = _smooth_backbone()
    for x, y in ((64, 48), (32, 32), (0, 0), (96, 80)):
        frame = torch.zeros(1, 3, 81, 97)
        frame[:, :, y, x] = 1.0
        response = backbone(frame)[0, 0].double()
        i, j = y // 16, x // 16
        assert response.argmax().item() == i * response.shape[1] + j
        assert (response == response.max()).sum() == 1
        if 0 < j < 6 and 0 < i < 5:  # the same on both sides: no shift of a part of a cell either
            torch.testing.assert_close(response[i, j - 1], response[i, j + 1], rtol=1e-4, atol=0)
            torch.testing.assert_close(response[i - 1, j], response[i + 1, j], rtol=1e-4, atol=0)


def test_a_pixel_between_two_cells_moves_both_alike() -> None:
    frame = torch.zeros(1, 3, 81, 113)
    frame[:, :, 48, 56] = 1.0
    response = _smooth_backbone()(frame)[0, 0]
    torch.testing.assert_close(response[3, 3], response[3, 4], rtol=1e-4, atol=0)
    assert response[3, 3:5].min() > response[3, :3].max()


def test_forward_is_vgg_m(backbone: Backbone) -> None:
    """The layers of the table, one by one from PyTorch's own."""
    x = _input(_image((75, 91)))
    for i, convolution in enumerate((backbone.conv1, backbone.conv2, backbone.conv3)):
        stride, padding = ((2, 3), (2, 2), (1, 1))[i]
        x = F.conv2d(x, convolution.weight, convolution.bias, stride, padding).relu()
        if i < 2:
            x = F.max_pool2d(F.local_response_norm(x, 5, alpha=5e-4, beta=0.75, k=2.0), 3, 2, 1)
    expected = x * 0.37
    _assert_close(backbone(_input(_image((75, 91)))), expected, expected.max())


_SETTINGS = settings(max_examples=150, deadline=None, derandomize=True, database=None)
_EDGE = st.integers(-3, 9)
_RECTANGLES = st.builds(Rectangle, _EDGE, _EDGE, _EDGE, _EDGE)


def _cells(rectangle: Rectangle) -> set[tuple[int, int]]:
    return {(y, x) for y in range(rectangle.top, rectangle.bottom) for x in range(rectangle.left, rectangle.right)}


@_SETTINGS
@given(_RECTANGLES, _RECTANGLES)
def test_union_holds_both_and_no_smaller_one_does(a: Rectangle, b: Rectangle) -> None:
    union, cells = a.union(b), _cells(a) | _cells(b)
    assert _cells(union) >= cells
    if cells:
        ys, xs = zip(*cells, strict=True)
        assert union == Rectangle(min(ys), max(ys) + 1, min(xs), max(xs) + 1)
    else:
        assert union.empty


@_SETTINGS
@given(_RECTANGLES, st.integers(1, 8), st.integers(1, 8))
def test_clipped(a: Rectangle, height: int, width: int) -> None:
    assert a.empty == (not _cells(a))
    assert _cells(a.clipped(height, width)) == {(y, x) for y, x in _cells(a) if 0 <= y < height and 0 <= x < width}


@_SETTINGS
@given(st.lists(st.integers(0, 9), min_size=4, max_size=4), st.lists(st.integers(0, 9), min_size=4, max_size=4))
def test_parts_around_an_inner_rectangle_cover_exactly(ys: list[int], xs: list[int]) -> None:
    (y0, y1, y2, y3), (x0, x1, x2, x3) = sorted(ys), sorted(xs)
    outer, inner = Rectangle(y0, y3, x0, x3), Rectangle(y1, y2, x1, x2)
    if outer.empty:
        return
    parts = list(outer.around(inner))
    assert len(parts) <= 4
    assert not any(part.empty for part in parts)
    covered = [cell for part in parts for cell in _cells(part)]
    assert len(covered) == len(set(covered))
    assert set(covered) == _cells(outer) - _cells(inner)


@_SETTINGS
@given(_RECTANGLES, st.integers(1, 7))
def test_bands(a: Rectangle, rows: int) -> None:
    bands = list(a.bands(rows))
    heights = [band.bottom - band.top for band in bands]
    assert all(0 < height <= rows for height in heights)
    assert len(set(heights[:-1])) <= 1 and len(bands) == -(-sum(heights) // rows), "as few and as equal as they can be"
    covered = [cell for band in bands for cell in _cells(band)]
    assert len(covered) == len(set(covered))
    assert set(covered) == _cells(a)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(7, 2, 3), (5, 2, 2), (3, 2, 1), (3, 1, 1), (1, 1, 0)])
def test_input_of_a_convolution(kernel: int, stride: int, padding: int) -> None:
    """The cells that get a gradient from these outputs."""
    x = torch.zeros(1, 1, 21, 25, requires_grad=True)
    out = F.conv2d(x, torch.ones(1, 1, kernel, kernel), stride=stride, padding=padding)
    for cells in (Rectangle(0, 1, 0, 1), Rectangle(2, 4, 3, 8), Rectangle(0, out.shape[2], 1, out.shape[3])):
        (gradient,) = torch.autograd.grad(
            out[0, 0, cells.top : cells.bottom, cells.left : cells.right].sum(), x, retain_graph=True
        )
        read = {(int(y), int(x)) for y, x in gradient[0, 0].nonzero()}
        assert _cells(cells.input_of(kernel, stride, padding).clipped(21, 25)) == read


@pytest.mark.parametrize(("image_hw", "frame_hw"), [((120, 160), (150, 200)), ((540, 960), (141, 250))])
def test_features_are_those_of_the_whole_resized_frame(image_hw: tuple[int, int], frame_hw: tuple[int, int]) -> None:
    """With the shipped weights, of a window that grows twice."""
    weights = load_weights("fdn", NetworkConfig())
    backbone = Backbone.with_weights(NetworkConfig(), weights.tensors, weights.feature_scale)
    image = _image(image_hw)
    planes = image.permute(2, 0, 1)[None].double()
    shrinks = frame_hw[0] < image_hw[0]
    resized = F.interpolate(planes, size=frame_hw, mode="bilinear", align_corners=False, antialias=shrinks)
    whole = backbone((resized - MEAN[:, None, None]).float())
    features = FrameFeatures(backbone, frame_hw, MEAN)
    features.begin(image)
    for side in (20.0, 60.0, 300.0):
        boxes = torch.tensor([[60.0, 50.0, side, side]])
        expected = backbone.roi_features(whole, boxes)
        torch.testing.assert_close(features.of_boxes(boxes), expected, rtol=0, atol=1e-4 * float(expected.max()))
