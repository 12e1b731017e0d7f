"""The paper's figures, checked by what docs/PAPER.md and its own text say of them."""

import pytest

from unsmear.evaluation.paper_figures import TABLES

ONE, TWO, THREE = TABLES


def test_every_row_is_complete_and_plausible():
    assert [table.number for table in TABLES] == [1, 2, 3]
    for table in TABLES:
        count = len(table.benchmarks)
        for figures in table.rows.values():
            assert len(figures) == 2 * count
            assert all(15 < psnr < 40 for psnr in figures[:count])
            assert all(0.7 < ssim < 1 for ssim in figures[count:])


def test_the_module_gains_what_the_text_says():
    gains = [round(ONE.figure(b, "GoPro", "psnr") - ONE.figure(a, "GoPro", "psnr"), 2) for a, b in ONE.pairs]
    assert gains == [0.12, 0.32, 0.17]  # “~0.20 dB”


def test_the_proposed_set_loses_on_gopro_and_gains_elsewhere():
    for before, after in TWO.pairs:
        for metric in ("psnr", "ssim"):
            assert TWO.figure(after, "GoPro", metric) < TWO.figure(before, "GoPro", metric)
            for benchmark in ("Köhler", "Lai"):
                assert TWO.figure(after, benchmark, metric) > TWO.figure(before, benchmark, metric)


def test_the_contradictions_of_the_footnotes_are_there():
    assert ONE.figure("Uformer", "GoPro", "ssim") == 0.9671
    assert TWO.figure("Uformer^G", "GoPro", "ssim") == 0.9731
    assert ONE.figure("Uformer", "GoPro", "psnr") == TWO.figure("Uformer^G", "GoPro", "psnr") == 32.97
    for metric in ("psnr", "ssim"):
        proposed = THREE.figure("Proposed", "Köhler", metric)
        assert proposed == TWO.figure("Uformer^P", "Köhler", metric)
    assert THREE.figure("Proposed", "Lai", "ssim") == TWO.figure("Uformer^P", "Lai", "ssim")
    assert THREE.figure("Proposed", "Lai", "psnr") == TWO.figure("Uformer^P", "Lai", "psnr") - 1
    ranks = sorted(THREE.rows, key=lambda row: -THREE.figure(row, "RealBlur-J", "ssim"))
    assert ranks[:3] == ["RADN", "NAFNet", "Proposed"]
    assert max(THREE.rows, key=lambda row: THREE.figure(row, "RealBlur-J", "psnr")) == "Proposed"
    assert len(THREE.rows) == 8  # “six methods” and its own


def test_notes_are_about_rows_that_there_are():
    for table in TABLES:
        assert all(row in table.rows for rows, _ in table.notes for row in rows)
        assert all(row in table.rows for pair in table.pairs for row in pair)


def test_what_is_not_printed_is_not_made_up():
    with pytest.raises(KeyError, match="no psnr on Köhler"):
        ONE.figure("Uformer", "Köhler", "psnr")
    with pytest.raises(KeyError, match="no lpips"):
        ONE.figure("Uformer", "GoPro", "lpips")
