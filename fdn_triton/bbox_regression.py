"""Bounding box regression: ridge regression from RoI features to a correction of the box (paper 3.4; R-CNN)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import softshrink

from .config import TrackerConfig
from .kernels.boxes import centers, from_centers

_WHITENING_EPSILON = 1e-3  # R-CNN: keeps the whitening finite where the targets do not vary
_MAX_LOG_SCALE = math.log(1000 / 16)  # the R-CNN family's bound: a wild prediction cannot overflow


class BoxRegressor:
    """Predicts (dx / w, dy / h, log dw, log dh) from features, with targets centred and whitened.

    The regression is solved in the space of the samples: with n samples of d features and n < d, an n x n system
    instead of d x d, with the same solution.

    Args:
        features: [n, d] of the boxes drawn around the target.
        boxes_xywh: [n, 4], the boxes.
        target_xywh: [4].
        ridge: weight of the penalty on the coefficients, the bias among them as in R-CNN.
    """

    def __init__(self, features: Tensor, boxes_xywh: Tensor, target_xywh: Tensor, ridge: float) -> None:
        offsets = _offsets(boxes_xywh, target_xywh)
        self._mean = offsets.mean(dim=0)
        centred = offsets - self._mean
        eigenvalues, eigenvectors = torch.linalg.eigh(centred.T @ centred / len(centred))
        root = (eigenvalues.clamp(min=0) + _WHITENING_EPSILON).sqrt()
        whiten = eigenvectors / root @ eigenvectors.T
        self._unwhiten = eigenvectors * root @ eigenvectors.T
        gram = (features @ features.T).double() + 1.0  # + 1: the bias is a feature that is always 1
        gram.diagonal().add_(ridge)
        dual = torch.linalg.solve(gram, (centred @ whiten).double()).to(features.dtype)  # [n, 4]
        self._weight = features.T @ dual
        self._bias = dual.sum(dim=0)

    @classmethod
    def stacked(cls, regressors: Sequence[BoxRegressor]) -> BoxRegressor:
        """Several as one."""
        stacked = cls.__new__(cls)
        stacked._weight = torch.stack([one._weight.mT for one in regressors]).mT
        stacked._unwhiten = torch.stack([one._unwhiten for one in regressors])
        stacked._bias = torch.stack([one._bias for one in regressors])[:, None]
        stacked._mean = torch.stack([one._mean for one in regressors])[:, None]
        return stacked

    def refine(self, features: Tensor, boxes_xywh: Tensor) -> Tensor:
        """Corrected boxes.

        Args:
            features: [K, d]; [S, K, d] of stacked regressors.
            boxes_xywh: [K, 4]; [S, K, 4].

        Returns:
            The shape of the boxes.
        """
        if self._weight.dim() == 2:
            predicted = features @ self._weight
        else:  # batched products with so few rows and columns take a GPU ten times as long
            predicted = (features[:, :, None] * self._weight.mT[:, None]).sum(dim=-1)
        offsets = (predicted + self._bias) @ self._unwhiten + self._mean
        wh = boxes_xywh[..., 2:]
        center = centers(boxes_xywh) + offsets[..., :2] * wh
        return from_centers(center, wh * offsets[..., 2:].clamp(-_MAX_LOG_SCALE, _MAX_LOG_SCALE).exp())


def search_from(
    found_xywh: Tensor,
    refined_xywh: Tensor,
    config: TrackerConfig,
    frame_wh: tuple[int, int],
    scores_of: Callable[[Tensor], Tensor],
) -> Tensor:
    """Where the search for targets that were found goes on from: the refined boxes, or found ones of a followed size.

    These are made larger or smaller by a share of what refining did to their size, where scores agree to it: where the
    box of the refined size, around the found one's centre, scores no less. Where the target looks otherwise than in the
    first frame, the regressor may err to one side for many frames: without that consent and the tolerance, boxes drift
    to a wrong size.

    Args:
        found_xywh: [S, 4]; where sizes are followed, their centres and aspects are kept.
        refined_xywh: [S, 4].
        config: which of the two; share and tolerance, both of the logarithm of the square root of the area; boxes whose
            sides would come below ``min_box_size``, or so near to the frame's, keep their size.
        frame_wh: width and height of the frame, pixels.
        scores_of: from boxes [S, 2, 4] to their scores [S, 2], each pair by its own target's head.

    Returns:
        [S, 4].
    """
    if config.search_from_refined:
        return refined_xywh
    if config.search_size_refined == 0:
        return found_xywh
    change = (refined_xywh[:, 2:] / found_xywh[:, 2:]).log().mean(dim=1, keepdim=True)
    followed_change = config.search_size_refined * softshrink(change, config.search_size_tolerance)
    followed = _grown(found_xywh, followed_change.exp())
    (width, height), least = followed[:, 2:].unbind(dim=1), config.min_box_size
    wide = (width >= least) & (width <= frame_wh[0] - least)
    possible = wide & (height >= least) & (height <= frame_wh[1] - least)  # not of NaN
    as_refined = torch.where(possible[:, None], _grown(found_xywh, change.exp()), found_xywh)
    score, score_as_refined = scores_of(torch.stack((found_xywh, as_refined), dim=1)).unbind(dim=1)
    return torch.where((possible & (score_as_refined >= score))[:, None], followed, found_xywh)


def _grown(boxes_xywh: Tensor, factor: Tensor) -> Tensor:
    """The boxes [S, 4] made larger around their centres by the factors [S, 1] on both sides."""
    return from_centers(centers(boxes_xywh), boxes_xywh[:, 2:] * factor)


def _offsets(boxes_xywh: Tensor, target_xywh: Tensor) -> Tensor:
    """[n, 4] corrections that take the boxes to the target."""
    wh = boxes_xywh[:, 2:]
    shift = (centers(target_xywh) - centers(boxes_xywh)) / wh
    return torch.cat((shift, (target_xywh[2:] / wh).log()), dim=1)
