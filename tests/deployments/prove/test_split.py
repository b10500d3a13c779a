"""Prompts by part: what resembles each other stays together, and the same prompts always fall alike."""

from deployments.prove.split import SHARES, drawn, duplicates, split


def rows(n):
    return [{"id": f"p{i}", "prompt": f"what is {i} plus {i * i}", "answer": "x"} for i in range(n)]


def ids(parts):
    return {part: [row["id"] for row in members] for part, members in parts.items()}


def test_every_prompt_is_in_one_part_and_the_shares_are_kept():
    parts = split(rows(400), seed=1)
    assert {part: len(members) / 400 for part, members in parts.items()} == SHARES
    assert sorted(name for members in ids(parts).values() for name in members) == sorted(row["id"] for row in rows(400))


def test_order_does_not_count_and_another_seed_gives_other_parts():
    given = rows(100)
    assert ids(split(given, 1)) == ids(split(given[::-1], 1)) != ids(split(given, 2))


def test_near_duplicates_stay_in_one_part_unless_their_numbers_differ():
    text = "please write a short and friendly letter to our customers about the {} in march"
    texts = [text.format("delay"), text.format("delay").upper() + "!", text.format("2 days"), text.format("3 days")]
    assert duplicates(texts) == [0, 0, 2, 3]
    parts = split([*rows(60), *({"id": f"d{i}", "prompt": texts[0] + " " * i} for i in range(3))], 0)
    assert [{name[0] for name in members if name[0] == "d"} for members in ids(parts).values()].count({"d"}) == 1


def test_what_the_operator_says_belongs_together_does():
    given = [{**row, "conversation": f"c{i // 10}"} for i, row in enumerate(rows(200))]
    found = [{row["conversation"] for row in members} for members in split(given, 3).values()]
    assert not (found[0] & found[1] or found[1] & found[2] or found[0] & found[2])


def test_a_template_that_most_prompts_share_does_not_fall_into_one_part():
    text = "classify the following review as good or bad, and answer with one word only, nothing else: it was really {}"
    words = ["nice", "fine", "poor", "odd", "great", "bad", "dull", "long", "short", "loud"]
    texts = [text.format(a + " " + b) for a in words for b in words]
    assert len(set(duplicates(texts))) == 100


def test_a_sample_depends_on_the_seed_alone():
    assert [r["id"] for r in drawn(rows(50), 10, 1)] == [r["id"] for r in drawn(rows(50)[::-1], 10, 1)]
    assert len(drawn(rows(5), 10, 1)) == 5
