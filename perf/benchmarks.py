"""What is compared: each operation at the tracker's shapes, its providers, and the least work it must do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from math import prod

import formulations
import torch
from cases import channels_last, rois
from fine_tuning_parts import fine_tuning_parts
from floors import Work
from parts import DTYPES, OURS, TOLERANCE, Inputs, Part, Provider, Sizes, backward, call, compiled, nchw
from torch import Tensor

from fdn_triton import kernels


def align_parts(sizes: Sizes) -> Iterator[Part]:
    """The RoI layer's forward."""
    for dtype in sizes.dtypes:
        for count in sizes.rois:
            # In fp16, torchvision computes positions in fp16, and grid_sample gets them so: 0.03 cells beside.
            loose = None if dtype == "fp32" else 0.1
            yield Part(
                "max_roi_align",
                _roi_shape(sizes, count),
                dtype,
                partial(_map_and_rois, sizes.feature_map, count, DTYPES[dtype]),
                lambda features, boxes: kernels.max_roi_align_ref(features.double(), boxes, *_ALIGN),
                _align_work,
                {
                    OURS: Provider(call(lambda f, b: kernels.max_roi_align(f, b, *_ALIGN))),
                    "torchvision": Provider(nchw(call(formulations.align_by_torchvision)), tolerance=loose),
                    "grid_sample": Provider(nchw(call(formulations.align_by_grid_sample)), tolerance=loose),
                    "grid_sample, compiled": Provider(
                        nchw(compiled(formulations.align_by_grid_sample)), compiled=True, tolerance=loose
                    ),
                    "reference, compiled": Provider(
                        compiled(lambda features, boxes: kernels.max_roi_align_ref(features, boxes, *_ALIGN)),
                        compiled=True,
                    ),
                },
            )


def align_backward_parts(sizes: Sizes) -> Iterator[Part]:
    """The RoI layer's gradient alone: the forward is done before the measurement."""

    def expected(features: Tensor, boxes: Tensor, grad: Tensor) -> Tensor:
        leaf = features.double().requires_grad_()
        return torch.autograd.grad(kernels.max_roi_align_ref(leaf, boxes, *_ALIGN), leaf, grad.double())[0]

    for dtype in sizes.dtypes:
        for count in sizes.rois:
            # Of samples that are equal to within rounding another one may win, and take its gradient elsewhere: 4e-4 of
            # the whole on an H100. Others place samples less exactly: 3e-3; in fp16 as above, and they sum hundreds of
            # gradients in it.
            ties, loose = (1e-3, 5e-3) if dtype == "fp32" else (None, 0.3)
            yield Part(
                "max_roi_align_backward",
                _roi_shape(sizes, count),
                dtype,
                partial(_map_rois_and_gradient, sizes.feature_map, count, DTYPES[dtype]),
                expected,
                _align_backward_work,
                {
                    OURS: Provider(
                        backward(lambda f, b: kernels.max_roi_align(f, b, *_ALIGN, deterministic=False)), tolerance=ties
                    ),
                    f"{OURS}, deterministic": Provider(
                        backward(lambda f, b: kernels.max_roi_align(f, b, *_ALIGN, deterministic=True)), tolerance=ties
                    ),
                    "torchvision": Provider(nchw(backward(formulations.align_by_torchvision)), tolerance=loose),
                    "grid_sample": Provider(nchw(backward(formulations.align_by_grid_sample)), tolerance=loose),
                },
            )


def rt_mdnet_parts(sizes: Sizes) -> Iterator[Part]:
    """RT-MDNet's own RoI layers."""
    for name in ("roi_align_max", "roi_align_ada_max"):
        operation, reference = getattr(kernels, name), getattr(kernels, f"{name}_ref")
        for dtype in sizes.dtypes:
            for count in sizes.rois:
                yield Part(
                    name,
                    _roi_shape(sizes, count),
                    dtype,
                    partial(_map_and_rois, sizes.feature_map, count, DTYPES[dtype]),
                    lambda f, b, op=reference: op(f.double(), b, 3, 1 / 16),
                    _align_work,
                    {
                        OURS: Provider(call(lambda f, b, op=operation: op(f, b, 3, 1 / 16))),
                        "reference": Provider(call(lambda f, b, op=reference: op(f, b, 3, 1 / 16))),
                    },
                )


def resize_parts(sizes: Sizes) -> Iterator[Part]:
    """From a decoded frame to the network's input."""
    for dtype in sizes.dtypes:
        for height, width, out_h, out_w in sizes.images:
            size = out_h, out_w
            yield Part(
                "resize_subtract_mean",
                f"{height}x{width} to {out_h}x{out_w}",
                dtype,
                partial(_image_and_mean, height, width),
                lambda image, mean, size=size: kernels.resize_subtract_mean_ref(image, size, mean),
                partial(_resize_work, size, DTYPES[dtype]),
                {
                    OURS: Provider(call(partial(_resize, kernels.resize_subtract_mean, size, DTYPES[dtype]))),
                    "interpolate": Provider(
                        call(partial(_resize, formulations.resize_by_interpolate, size, DTYPES[dtype]))
                    ),
                    "interpolate, compiled": Provider(
                        compiled(partial(_resize, formulations.resize_by_interpolate, size, DTYPES[dtype])),
                        compiled=True,
                    ),
                },
            )


def lrn_parts(sizes: Sizes) -> Iterator[Part]:
    """ReLU, normalisation and pooling behind the first two convolutions."""
    for dtype in sizes.dtypes:
        for shape in sizes.maps:
            yield Part(
                "lrn_max_pool",
                "x".join(str(n) for n in (*shape[2:], shape[1])),
                dtype,
                partial(_convolved, shape, DTYPES[dtype]),
                lambda x: kernels.lrn_max_pool_ref(x.double()),
                _lrn_work,
                {
                    OURS: Provider(call(kernels.lrn_max_pool)),
                    "three layers": Provider(nchw(call(formulations.lrn_by_layers))),
                    "band convolution": Provider(call(formulations.lrn_by_band_convolution)),
                    "three layers, compiled": Provider(nchw(compiled(formulations.lrn_by_layers)), compiled=True),
                },
            )


def heads_parts(sizes: Sizes) -> Iterator[Part]:
    """Scores of the candidates of T targets."""

    def flat(operation: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda features, *layers: operation(features, layers[:3], layers[3:])

    def expected(features: Tensor, *layers: Tensor) -> Tensor:
        # Head by head: all in float64 at once are many gigabytes.
        scores = []
        for t in range(len(features)):
            x, *layer = (tensor[t : t + 1].double() for tensor in (features, *layers))
            scores.append(kernels.score_heads_ref(x, layer[:3], layer[3:]))
        return torch.cat(scores)

    for dtype in sizes.dtypes:
        for targets in sizes.targets:
            # Half the terms of a layer's sums cancel, and with them half a digit.
            tolerance = 2 * TOLERANCE[dtype]
            tf32 = partial(kernels.score_heads, allow_tf32=True)
            ours_too = {f"{OURS}, TF32": Provider(call(flat(tf32)), tolerance=5e-3)} if dtype == "fp32" else {}
            yield Part(
                "score_heads",
                f"T = {targets}, K = {sizes.candidates}",
                dtype,
                partial(_features_and_heads, sizes, targets, DTYPES[dtype]),
                expected,
                _heads_work,
                {
                    OURS: Provider(call(flat(kernels.score_heads)), tolerance=tolerance),
                    **ours_too,
                    "loop of addmm": Provider(call(flat(formulations.heads_by_loop)), tolerance=tolerance),
                    "baddbmm": Provider(call(flat(formulations.heads_by_baddbmm)), tolerance=tolerance),
                    "baddbmm, compiled": Provider(
                        compiled(flat(formulations.heads_by_baddbmm)), compiled=True, tolerance=tolerance
                    ),
                },
            )


PARTS: dict[str, Callable[[Sizes], Iterator[Part]]] = {
    "max_roi_align": align_parts,
    "max_roi_align_backward": align_backward_parts,
    "resize_subtract_mean": resize_parts,
    "lrn_max_pool": lrn_parts,
    "score_heads": heads_parts,
    "fine_tuning": fine_tuning_parts,
    "rt_mdnet": rt_mdnet_parts,
}
_ALIGN = (formulations.BINS, formulations.SCALE, formulations.SAMPLES)


def _roi_shape(sizes: Sizes, count: int) -> str:
    _, channels, height, width = sizes.feature_map
    return f"{height}x{width}x{channels}, {count} RoIs"


def _map_and_rois(
    shape: tuple[int, ...], count: int, dtype: torch.dtype, generator: torch.Generator, device: torch.device
) -> Inputs:
    """Boxes are numbers of the dtype, so that a provider that wants them in it reads the same ones."""
    boxes = rois(count, generator).to(dtype).float()
    return channels_last(shape, generator, 10.0).to(device, dtype), boxes.to(device)


def _map_rois_and_gradient(
    shape: tuple[int, ...], count: int, dtype: torch.dtype, generator: torch.Generator, device: torch.device
) -> Inputs:
    gradient = channels_last((count, shape[1], formulations.BINS, formulations.BINS), generator, 1.0)
    return *_map_and_rois(shape, count, dtype, generator, device), gradient.to(device, dtype)


def _image_and_mean(height: int, width: int, generator: torch.Generator, device: torch.device) -> Inputs:
    image = torch.randint(256, (height, width, 3), dtype=torch.uint8, generator=generator)
    return image.to(device), torch.tensor([120.0, 110.0, 100.0], device=device)


def _resize(
    operation: Callable[..., Tensor], size: tuple[int, int], dtype: torch.dtype, image: Tensor, mean: Tensor
) -> Tensor:
    return operation(image, size, mean, dtype)


def _convolved(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator, device: torch.device) -> Inputs:
    return (channels_last(shape, generator, 40.0).to(device, dtype),)


def _features_and_heads(
    sizes: Sizes, targets: int, dtype: torch.dtype, generator: torch.Generator, device: torch.device
) -> Inputs:
    # Drawn on the device: 64 heads are 150 million numbers.
    seed = int(torch.randint(1 << 31, (), generator=generator))
    on_device = torch.Generator(device).manual_seed(seed)
    outs = (*sizes.widths[1:], 2)

    def normal(*shape: int, scale: float) -> Tensor:
        return (torch.randn(shape, generator=on_device, device=device) * scale).to(dtype)

    weights = [normal(targets, out, width, scale=width**-0.5) for out, width in zip(outs, sizes.widths, strict=True)]
    biases = [normal(targets, out, scale=0.1) for out in outs]
    return normal(targets, sizes.candidates, sizes.widths[0], scale=1.0).relu(), *weights, *biases


def _align_work(features: Tensor, boxes: Tensor) -> Work:
    out = len(boxes) * features.shape[1] * formulations.BINS**2 * features.element_size()
    cells = _cells_read(boxes, features.shape[2], features.shape[3])
    gathered = cells * features.shape[1] * features.element_size()
    return Work(bytes=features.nbytes + boxes.nbytes + out, gathered=gathered)


def _align_backward_work(features: Tensor, boxes: Tensor, gradient: Tensor) -> Work:
    """The output's gradient and the winners (a byte each) in, the map's gradient out."""
    return Work(bytes=gradient.nbytes + gradient.numel() + boxes.nbytes + features.nbytes)


def _resize_work(size: tuple[int, int], dtype: torch.dtype, image: Tensor, mean: Tensor) -> Work:
    return Work(bytes=image.nbytes + 3 * prod(size) * dtype.itemsize)


def _lrn_work(x: Tensor) -> Work:
    pooled = x.shape[0] * x.shape[1] * prod((side - 1) // 2 + 1 for side in x.shape[2:])
    return Work(bytes=x.nbytes + pooled * x.element_size())


def _heads_work(features: Tensor, *layers: Tensor) -> Work:
    rows = features.shape[1]
    flops = sum(2 * rows * weight.numel() for weight in layers[:3])
    scores = features.shape[0] * rows * features.element_size()
    return Work(bytes=sum(tensor.nbytes for tensor in (features, *layers)) + scores, flops=flops)


def _cells_read(boxes: Tensor, height: int, width: int) -> int:
    """Cells that the RoIs' midpoint samples are read from, each once for every RoI."""
    points = formulations.BINS * formulations.SAMPLES
    steps = (torch.arange(points, device=boxes.device) + 0.5) / points
    corners = boxes[:, 1:] * formulations.SCALE
    total = torch.ones(len(boxes), device=boxes.device)
    for axis, size in ((0, width), (1, height)):
        position = corners[:, axis : axis + 1] + steps * (corners[:, axis + 2] - corners[:, axis]).clamp(min=1)[:, None]
        low = position.clamp(0, size - 1).floor()
        cells = torch.cat((low, (low + 1).clamp(max=size - 1)), dim=1).sort(dim=1).values
        total *= 1 + (cells.diff(dim=1) > 0).sum(dim=1)
    return int(total.sum())
