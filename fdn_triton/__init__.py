"""FDN visual tracking: MDNet with whole-frame convolution, max-RoIAlign and a loss-threshold stop.

::

    from fdn_triton import Tracker, TrackerConfig
"""

from .config import PRESETS, NetworkConfig, TrackerConfig
from .errors import InputError
from .tracker import Tracker, TrackResult

__version__ = "0.1.0"

__all__ = ["PRESETS", "InputError", "NetworkConfig", "TrackResult", "Tracker", "TrackerConfig", "__version__"]
