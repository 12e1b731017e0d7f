"""The figures that the paper prints in its Tables 1, 2 and 3, as data, never mixed with measured ones.

Source: Chen Lei et al., Optoelectronics Letters 21 (2025), 43–50, Tab. 1–3. PSNR in dB, SSIM without a unit;
the paper names neither window nor colour space of its SSIM, nor an alignment for Köhler and Lai. Where its
tables contradict one another or its text, the footnotes say so (docs/PAPER.md has the whole list).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class PaperTable:
    """One table of the paper.

    number, title: as printed.
    benchmarks: names of the columns, in the order of the paper.
    rows: for each method PSNR of all benchmarks, then SSIM of all.
    notes: footnotes, each with the rows that it is about.
    pairs: rows that the paper compares with each other: (before, after).
    """

    number: int
    title: str
    benchmarks: tuple[str, ...]
    rows: dict[str, tuple[float, ...]]
    notes: tuple[tuple[tuple[str, ...], str], ...]
    pairs: tuple[tuple[str, str], ...] = ()

    def figure(self, row: str, benchmark: str, metric: str) -> float:
        """PSNR (dB) or SSIM that the paper prints; `metric` is "psnr" or "ssim". KeyError if it has none."""
        if benchmark not in self.benchmarks or metric not in ("psnr", "ssim"):
            raise KeyError(f"Table {self.number} has no {metric} on {benchmark}")
        place = self.benchmarks.index(benchmark) + len(self.benchmarks) * (metric == "ssim")
        return self.rows[row][place]


_SAME_MODEL = "SSIM of Uformer on GoPro: .9671 in Tab. 1 and .9731 in Tab. 2, the same model and test."
_COPIED = "32.97 dB is what Uformer-B has in its own paper, not by the training that this one describes."
_RADN = "RADN's own paper has 31.76/.953 on GoPro."
_LAI = (
    "“100 pairs” of Lai: it has 100 uniform and 100 non-uniform synthetic pictures; which, and with what "
    "alignment, is not said."
)
_SLIP = (
    "Tab. 3 “Proposed” (with the module) has exactly the Köhler figures and the Lai SSIM of Uformer^P "
    "without it in Tab. 2, and a lower Lai PSNR (21.04 against 22.04)."
)

TABLES = (
    PaperTable(
        number=1,
        title="Comparison of different deblurring methods with/without LRM on the GoPro dataset",
        benchmarks=("GoPro",),
        rows={
            "MSCNN": (29.23, 0.9162),
            "MSCNN+LRM": (29.35, 0.9201),
            "RADN": (30.11, 0.9287),
            "RADN+LRM": (30.43, 0.9310),
            "Uformer": (32.97, 0.9671),
            "Uformer+LRM": (33.14, 0.9697),
        },
        notes=((("Uformer",), _SAME_MODEL), (("Uformer",), _COPIED), (("RADN",), _RADN)),
        pairs=(("MSCNN", "MSCNN+LRM"), ("RADN", "RADN+LRM"), ("Uformer", "Uformer+LRM")),
    ),
    PaperTable(
        number=2,
        title="Cross-datasets quantitative comparison for image deblurring",
        benchmarks=("GoPro", "Köhler", "Lai"),
        rows={
            "MSCNN^G": (29.23, 25.13, 16.51, 0.9162, 0.7107, 0.8102),
            "MSCNN^P": (28.95, 25.47, 16.91, 0.9137, 0.7323, 0.8215),
            "RADN^G": (30.11, 27.25, 19.34, 0.9287, 0.7637, 0.8427),
            "RADN^P": (30.03, 27.94, 19.61, 0.9219, 0.7927, 0.8519),
            "Uformer^G": (32.97, 28.07, 21.57, 0.9731, 0.8015, 0.8614),
            "Uformer^P": (32.68, 28.39, 22.04, 0.9615, 0.8234, 0.8713),
        },
        notes=(
            (("Uformer^G",), _SAME_MODEL),
            (("RADN^G",), _RADN),
            (("Uformer^P",), _SLIP),
            ((), _LAI),
        ),
        pairs=(("MSCNN^G", "MSCNN^P"), ("RADN^G", "RADN^P"), ("Uformer^G", "Uformer^P")),
    ),
    PaperTable(
        number=3,
        title="Quantitative comparisons of Uformer integrated by LRM module on different datasets",
        benchmarks=("RealBlur-J", "Köhler", "Lai"),
        rows={
            "MSCNN": (27.87, 25.13, 16.51, 0.8271, 0.7107, 0.8102),
            "DeblurGAN": (28.03, 26.15, 17.23, 0.8343, 0.7531, 0.8315),
            "SVRNN": (28.15, 27.03, 17.84, 0.8426, 0.8123, 0.8451),
            "SRN": (27.96, 26.37, 17.51, 0.8375, 0.8014, 0.8324),
            "PSS-SRN": (28.47, 27.06, 18.76, 0.8497, 0.8145, 0.8403),
            "RADN": (28.61, 27.25, 19.34, 0.8618, 0.7637, 0.8427),
            "NAFNet": (28.84, 28.19, 20.95, 0.8601, 0.8152, 0.8653),
            "Proposed": (28.95, 28.39, 21.04, 0.8573, 0.8234, 0.8713),
        },
        notes=(
            (("Proposed",), _SLIP),
            (
                ("Proposed",),
                "By the text first but for RealBlur-J, where it is second by SSIM; by the table it is first "
                "there by PSNR and third by SSIM (.8573, after .8618 and .8601).",
            ),
            ((), _LAI),
        ),
    ),
)
