"""The protocols: how published figures of each benchmark are made, by name.

    find_protocol("gopro_rgb").score(restored, case)    {"psnr_rgb": …, "ssim_gauss_rgb": …}

A protocol is a class with a name, its metrics and one function, `score`; an instance of a class of your own
is taken wherever a name is.
"""

import difflib
from collections.abc import Mapping

from unsmear.errors import EvaluationError
from unsmear.evaluation.protocols.base import Metric, PictureProtocol, Protocol
from unsmear.evaluation.protocols.comparison import Align, Comparison
from unsmear.evaluation.protocols.koehler import Koehler, KoehlerPreview
from unsmear.evaluation.protocols.no_reference import NoReference, Reblur
from unsmear.evaluation.protocols.published import (
    BasicsrY,
    RealBlurECC,
    Shifted,
    UformerLegacy,
    Volume,
)

PROTOCOLS: Mapping[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Comparison(name="gopro_rgb", title="pixel by pixel on RGB, 8 bit"),
        Koehler(),
        KoehlerPreview(),
        Shifted("lai_raw", max_shift=0),
        Shifted("lai_shift", max_shift=10),
        Shifted("lai_shift_gain", max_shift=10, gain=True),
        Shifted("levin_shift", max_shift=5, channels="luma"),
        RealBlurECC(),
        NoReference(),
        Reblur(),
        UformerLegacy(),
        Volume("ssim_3d", "SSIM as NAFNet has it: RGB as a volume"),
        Volume("matlab_rgb", "MATLAB's psnr and ssim on RGB: the same volume"),
        BasicsrY(),
    )
}

__all__ = [
    "PROTOCOLS",
    "Align",
    "Comparison",
    "Metric",
    "PictureProtocol",
    "Protocol",
    "find_protocol",
]


def find_protocol(name: str | Protocol) -> Protocol:
    """The protocol of that name, or the one that is given. EvaluationError has the nearest names."""
    if isinstance(name, Protocol):
        return name
    if name not in PROTOCOLS:
        near = difflib.get_close_matches(name, PROTOCOLS, n=3, cutoff=0.3) or list(PROTOCOLS)
        raise EvaluationError(f"no protocol is called {name!r}; did you mean {' or '.join(near)}?")
    return PROTOCOLS[name]
