"""Which of a repository's files a name means."""

from __future__ import annotations

import pytest
from foundry.hub.choosing import choose, models_in

PARTS = ("a-Q8_0-00001-of-00002.gguf", "a-Q8_0-00002-of-00002.gguf")


def test_the_file_that_is_chosen_for_a_repository() -> None:
    assert choose("o/r", ["only-IQ2_XS.gguf", "x.json"]) == ("only-IQ2_XS.gguf",)
    assert choose("o/r", ["a.Q8_0.gguf", "a.BF16.gguf"]) == ("a.Q8_0.gguf",)
    assert choose("o/r", ["a-bf16.gguf", "a-Q6_K.gguf"]) == ("a-Q6_K.gguf",)
    mixes = ["Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q6_K", "Q5_K_M", "Q5_K_S", "IQ4_XS", "IQ4_NL", "Q4_K_S", "Q4_K_M"]
    for count, mix in enumerate(mixes[1:], 2):  # each is chosen before those in front of it
        assert choose("o/r", [f"M-8B-{one}.gguf" for one in mixes[:count]]) == (f"M-8B-{mix}.gguf",)
    assert choose("o/r", ["m-F16.gguf", "m.bf16.gguf"]) == ("m.bf16.gguf",)
    assert choose("o/r", ["F16/m-Q8_0.gguf", "m-IQ1_S.gguf"]) == ("F16/m-Q8_0.gguf",)
    for files in ([], ["a-IQ1_S.gguf", "b-TQ2_0.gguf"], ["a-XQ4_0.gguf", "b-Q4_0_4_8.gguf"]):
        with pytest.raises(ValueError, match="o/r"):
            choose("o/r", files)


def test_parts_come_together() -> None:
    assert choose("o/r", [*reversed(PARTS), "x.json"]) == PARTS
    assert choose("o/r", [*PARTS, "a-Q4_K_M.gguf"]) == ("a-Q4_K_M.gguf",)
    for wanted in ("Q8_0", "q8_0", *PARTS):
        assert choose("o/r", [*PARTS, "a-Q4_K_M.gguf"], wanted) == PARTS
    for files, wanted in ((PARTS[:1], ""), (PARTS[1:], PARTS[1])):
        with pytest.raises(ValueError, match="expected all parts of a split model, found only a-Q8_0-0000"):
            choose("o/r", files, wanted)


def test_a_part_of_the_name_is_enough() -> None:
    files = ["m-Q4_K_M.gguf", "m-Q4_K_S.gguf", "m-Q8_0.gguf", "mmproj-m-F16.gguf", "m.imatrix.gguf", "BF16/m.gguf"]
    for wanted, file in (("Q4_K_M", 0), ("q4_k_s", 1), ("Q8_0", 2), ("m-Q8_0.gguf", 2), ("bf16", 5), ("m.gguf", 5)):
        assert choose("o/r", files, wanted) == (files[file],)
    assert choose("o/r", files, "mmproj-m-F16.gguf") == ("mmproj-m-F16.gguf",)  # by its name, whatever it is
    assert choose("o/r", [*files, "config.json"], "config.json") == ("config.json",)
    with pytest.raises(ValueError, match=r"expected one file for 'Q4_K_M', found m-Q4_K_M\.gguf, m-UD-Q4_K_M\.gguf$"):
        choose("o/r", [*files, "m-UD-Q4_K_M.gguf"], "Q4_K_M")


@pytest.mark.parametrize("wanted", ["Q4_K", "m-Q4_K_L.gguf", "Q4_K_X"])
def test_what_is_not_there_names_the_nearest(wanted: str) -> None:
    files = ["m-Q2_K.gguf", "m-Q4_K_M.gguf", "m-Q4_K_S.gguf", "m-Q8_0.gguf"]
    with pytest.raises(ValueError, match=rf"o/r: expected a file for '{wanted}', found none; the nearest are m-Q4_K_"):
        choose("o/r", files, wanted)


def test_models_among_files() -> None:
    files = ["b.gguf", *PARTS, "half-00001-of-00002.gguf", "mmproj-F16.gguf", "imatrix.gguf", "README.md", "a.GGUF"]
    assert models_in(files) == [PARTS, ("a.GGUF",), ("b.gguf",)]
