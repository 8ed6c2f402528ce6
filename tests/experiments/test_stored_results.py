"""Every table and figure is rebuilt from stored runs, with unchanged texts and numbers."""

from store_results import STORED, SUFFIX, make, restore


def test_tables_and_plotted_numbers_are_those_stored(tmp_path):
    restore(tmp_path / "results")
    make(tmp_path / "results")
    wanted = {
        p.relative_to(STORED / "made"): p.read_text("utf-8") for p in STORED.rglob("made/*/*")
    }
    assert len(wanted) == 84  # 17 tables, 13 beside the paper, 6 figures, 7 captions twice
    for name, text in wanted.items():
        stem, *ends = name.name.split(".")
        made = tmp_path / "made" / name.parent / ".".join([stem + SUFFIX, *ends])
        assert made.read_text("utf-8") == text, name
    pictures = [p for p in (tmp_path / "made").rglob("*.png")]
    assert len(pictures) == 7
