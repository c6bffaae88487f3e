import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from instant_clip_tokenizer import Tokenizer

from modules.recipe.prompt import CHUNK, COMMA, END, START, Part, chunk, count, parse

encode = Tokenizer().encode


def weights(text):
    return [(part.text, round(part.weight, 4)) for part in parse(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [("", 1.0)]),
        ("a cat", [("a cat", 1.0)]),
        ("a (cat) here", [("a ", 1.0), ("cat", 1.1), (" here", 1.0)]),
        ("((cat))", [("cat", 1.21)]),
        ("[cat]", [("cat", 0.9091)]),
        ("(cat:1.3)", [("cat", 1.3)]),
        ("(cat: -.5 )", [("cat", -0.5)]),
        ("(a (b:2) c:1.5)", [("a ", 1.5), ("b", 3.0), (" c", 1.5)]),
        (r"\(cat\) \[x\] \\", [(r"(cat) [x] \ ".strip(), 1.0)]),
        ("(cat", [("cat", 1.1)]),
        ("cat) dog]", [("cat) dog]", 1.0)]),
        ("cat:1.2)", [("cat:1.2)", 1.0)]),
        ("(cat:1.2.3)", [("cat:1.2.3", 1.1)]),
        ("(cat:abc)", [("cat:abc", 1.1)]),
        ("(a:0)", [("a", 0.0)]),
        ("BREAKFAST", [("BREAKFAST", 1.0)]),
        ("(a  BREAK  b:1.2)", [("a", 1.2), ("", 1.2), ("b", 1.2)]),
    ],
)
def test_emphasis(text, expected):
    assert weights(text) == expected


def test_break_is_a_part_of_its_own():
    assert parse("a BREAK b") == [Part("a", 1.0), Part("", 1.0, breaks=True), Part("b", 1.0)]
    assert [len(chunk(parse(text), encode)) for text in ("a BREAK", "BREAK a", "a BREAK BREAK b")] == [1, 2, 3]


def test_a_chunk_is_77_ids_with_weights_where_the_words_are():
    (only,) = chunk(parse("a (red:1.4) fox"), encode)
    assert len(only.ids) == len(only.weights) == 77
    assert only.ids[0] == START and only.ids[4:] == (END,) * 73
    assert only.weights[:5] == (1.0, 1.0, 1.4, 1.0, 1.0)


def test_long_prompts_fill_chunks_and_commas_carry_their_words_over():
    words = ", ".join(["a very big red fox"] * 15)  # 6 tokens each with its comma
    first, second = chunk(parse(words), encode)
    assert first.ids[72] == COMMA and first.ids[73] == END
    assert second.ids[1:4] == tuple(encode("a very big red fox"))[:3]
    unbroken = chunk(parse("fox " * 80), encode)
    assert [sum(i != END for i in c.ids) - 1 for c in unbroken] == [CHUNK, 5]


@pytest.mark.parametrize(("text", "expected"), [("", (0, 75)), ("a red fox", (3, 75)), ("fox " * 75, (75, 75)), ("fox " * 76, (76, 150))])
def test_count(text, expected):
    assert count(text, encode) == expected


@given(st.text(alphabet=st.sampled_from("ab ()[]:.,1-\\BREAK\né🦊"), max_size=200))
def test_any_text_has_parts_and_chunks(text):
    parts = parse(text)
    assert parts
    assert all(len(c.ids) == 77 for c in chunk(parts, encode))


WIDE = [" " * 100_000, ":" + " " * 99_000, "(a:" + "1" * 99_000, "BREAK" + " " * 99_000, " BREAK" * 15_000, "(a:1." + "1" * 99_000]


@pytest.mark.parametrize("bomb", ["(" * 100_000, "(a" * 33_000, "(a" * 20_000 + ")" * 20_000, "a:1.1)" * 16_000, "\\" * 100_000, *WIDE])
def test_hostile_prompts_cost_little(bomb):
    def cost(text):
        start = time.process_time()
        parse(text)
        return time.process_time() - start

    base = min(cost("a fox, " * 14_000) for _ in range(3)) + 0.005
    assert cost(bomb) < 100 * base
