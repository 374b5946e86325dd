"""Operations of the FDN tracker that other trackers can copy: only torch, triton and numba, no configuration, no
state."""

from .lrn_pool import lrn_max_pool, lrn_max_pool_ref
from .max_roi_align import max_roi_align, max_roi_align_ref
from .resize_subtract_mean import resize_subtract_mean, resize_subtract_mean_ref
from .roi_linear import roi_linear, roi_linear_ref
from .rt_mdnet_align import roi_align_ada_max, roi_align_ada_max_ref, roi_align_max, roi_align_max_ref
from .score_heads import score_heads, score_heads_ref

__all__ = [
    "lrn_max_pool",
    "lrn_max_pool_ref",
    "max_roi_align",
    "max_roi_align_ref",
    "resize_subtract_mean",
    "resize_subtract_mean_ref",
    "roi_align_ada_max",
    "roi_align_ada_max_ref",
    "roi_align_max",
    "roi_align_max_ref",
    "roi_linear",
    "roi_linear_ref",
    "score_heads",
    "score_heads_ref",
]
