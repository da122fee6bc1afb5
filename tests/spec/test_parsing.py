import time

import pytest

from qprune.spec.parsing import LARGEST, PARTS, parse_toml


def told(text):
    with pytest.raises(ValueError, match=r"^(is|has) ") as error:
        parse_toml(text)
    return str(error.value)


def test_toml_becomes_a_table():
    assert parse_toml('a.b."c d" = [1, 2]\n[x]\ny = 0.5') == {"a": {"b": {"c d": [1, 2]}}, "x": {"y": 0.5}}


def test_a_key_has_at_most_twenty_parts():
    assert parse_toml(f"{'.'.join('a' * PARTS)} = 1")["a"]
    for key in (".".join("a" * (PARTS + 1)), " . ".join(['"a.b"'] * (PARTS + 1)), "\t.\t".join(["'é'"] * (PARTS + 1))):
        for text in (f"{key} = 1", f"[{key}]", f"[[ {key} ]]", f"x = 1\ny = [{{ {key} = 1 }}]"):
            assert told(text).startswith("has a key of more than 20 parts, ")


@pytest.mark.parametrize(
    "text", ["about = '1. 2. 3. 4. 5. 6. 7. 8. 9. 10. 11. 12. 13. 14. 15. 16. 17. 18. 19. 20. 21. 22.'",
             f"x = [{'0.5, ' * 100}]", "x = '''\n" + "a.b\n" * 50 + "'''", "x = '...................................'",
             "x = \"\"\"\n" + "a." * 30 + "\"\"\"", "x = 1 # " + "a." * 30, "x = \"\\\"a" + ".b" * 30 + "\""],
)  # fmt: skip
def test_numbers_and_sentences_are_no_keys(text):
    assert parse_toml(text)


@pytest.mark.parametrize(
    "text", ["a" * LARGEST, "a." * (LARGEST // 2), '"' * LARGEST, "'a'." * (LARGEST // 4), ". " * 99]
)
def test_looking_for_long_keys_takes_no_time_of_its_own(text):
    begun = time.perf_counter()
    told(text)
    assert time.perf_counter() - begun < 10


def test_text_without_an_end_is_refused():
    assert told("a" * (LARGEST + 1)) == "is 2,097,153 characters long; a spec has at most 2,097,152"
    assert told("x = " + "[" * 5000) == "is nested too deep; a spec needs few levels"
    assert "thousands of digits" in told("x = " + "9" * 5000)
    assert told("x =") == "is not TOML: Invalid value (at line 1, the end of the file)"
