import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from instant_clip_tokenizer import Tokenizer

from modules.recipe.prompt import CHUNK, COMMA, END, START, Network, Part, chunk, count, networks, parse, words

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


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("<lora:a>", [Network("a", 1.0, 1.0)]),
        ("<lora:a b/c.d:0.8>", [Network("a b/c.d", 0.8, 0.8)]),
        ("<lora:a:0.8:-1.2>", [Network("a", 0.8, -1.2)]),
        ("<lora:a:unet=0.5>", [Network("a", 1.0, 0.5)]),
        ("<lora:a:0.3:unet=0.5>", [Network("a", 0.3, 0.5)]),
        ("<lora:a:2: te = .5>", [Network("a", 0.5, 0.5)]),
        ("<lora:a=b:1>", [Network("a=b", 1.0, 1.0)]),
        ("<lyco:a:1><lora:b:0>", [Network("a", 1.0, 1.0), Network("b", 0.0, 0.0)]),
        ("<hypernet:a:1><other:x>", []),
    ],
)
def test_loras_are_taken_out_of_the_words(tag, expected):
    assert networks(f"a {tag}fox") == expected
    assert words(f"a {tag}fox") == "a fox"
    assert count(f"a {tag}fox", encode) == (2, 75)


@pytest.mark.parametrize("text", ["a <fox>", "<lora:>", "<lora>", "1 < 2 : 3 > 2", "<:a>", "<lora:a", "< lora:a>"])
def test_what_is_no_tag_stays_text(text):
    assert words(text) == text
    assert networks(text) == []


@pytest.mark.parametrize("tag", [f"<lora:{rest}>" for rest in ("a:x", "a:nan", "a:1e999", "a:", "a:1:1:32", "a:dyn=4", ":1")])
def test_a_tag_that_makes_no_sense_is_an_error_of_one_line(tag):
    with pytest.raises(ValueError, match="lora") as error:
        networks(f"a fox {tag}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("text", "expected"), [("", (0, 75)), ("a red fox", (3, 75)), ("fox " * 75, (75, 75)), ("fox " * 76, (76, 150))])
def test_count(text, expected):
    assert count(text, encode) == expected


@given(st.text(alphabet=st.sampled_from("ab ()[]:.,1-\\BREAK\né🦊"), max_size=200))
def test_any_text_has_parts_and_chunks(text):
    parts = parse(text)
    assert parts
    assert all(len(c.ids) == 77 for c in chunk(parts, encode))


TAGS = ["<lora:" * 16_000, "<" * 99_000, "<lora:a:1>" * 10_000]
WIDE = [*TAGS, " " * 100_000, ":" + " " * 99_000, "(a:" + "1" * 99_000, "BREAK" + " " * 99_000, " BREAK" * 15_000, "(a:1." + "1" * 99_000]


@pytest.mark.parametrize("bomb", ["(" * 100_000, "(a" * 33_000, "(a" * 20_000 + ")" * 20_000, "a:1.1)" * 16_000, "\\" * 100_000, *WIDE])
def test_hostile_prompts_cost_little(bomb):
    def cost(text):
        start = time.process_time()
        parse(words(text))
        networks(text)
        return time.process_time() - start

    base = min(cost("a fox, " * 14_000) for _ in range(3)) + 0.005
    assert cost(bomb) < 100 * base
