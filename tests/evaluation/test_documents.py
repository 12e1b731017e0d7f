"""The examples of docs/DATASETS.md and docs/METRICS.md run as they stand there."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from unsmear.evaluation import BENCHMARKS, PROTOCOLS

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", ["DATASETS", "METRICS"])
def test_the_example_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sharp = data.astronaut()[:90, :120]
    soft = np.mean([np.roll(sharp, k, 1) for k in range(5)], axis=0).astype(np.uint8)
    for path, pixels in (
        ("mine/a_in.png", soft),
        ("mine/a_true.png", sharp),
        ("GoPro/blur/a.png", soft),
        ("GoPro/sharp/a.png", sharp),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / path)
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / f"{name}.md").read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(code, f"{name}.md", "exec"), {"__name__": "__main__"})
    assert "1 picture" in capsys.readouterr().out


def test_every_benchmark_and_protocol_has_its_place_in_the_documents() -> None:
    for name, known in (("DATASETS", BENCHMARKS), ("METRICS", PROTOCOLS)):
        text = (DOCS / f"{name}.md").read_text(encoding="utf-8")
        assert [key for key in known if f"`{key}`" not in text] == []
