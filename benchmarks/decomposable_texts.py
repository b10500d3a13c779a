"""Building blocks of the prompts of `benchmarks/decomposability.py`: names, questions, items, sections, files."""

import random
from collections.abc import Callable

# -- what the items are made of --------------------------------------------------------------------------------------------

NAMES = "Ada Bruno Chen Dalia Emeka Farah Goran Hana Ivan Jia Karim Lena Mateo Nadia Omar Priya Quinn Rosa Sven Tara".split()
PLACES = "Lisbon Nairobi Osaka Quito Tallinn Denver Perth Hanoi Lagos Turin Bergen Austin Cusco Rabat Gdansk Kyoto".split()
THINGS = (
    "laptop stand|garden hose|ceramic mug|running shoe|desk lamp|water filter|bike lock|hiking tent|coffee grinder|phone case|"
    "yoga mat|office chair|travel adapter|kitchen scale|rain jacket|board game|electric kettle|picture frame"
).split("|")
TOPICS = (
    "photosynthesis|the French Revolution|supply and demand|black holes|vaccines|the water cycle|inflation|plate tectonics|"
    "machine learning|the Silk Road|antibiotics|solar panels|the immune system|blockchain|jazz|the Roman senate|coral reefs|"
    "supply chains|public transport|remote work|nutrition|renewable energy|cyber security|urban gardening"
).split("|")
WORDS = "apple river window market candle silver planet doctor bridge garden thunder velvet harbor lantern meadow copper".split()
VERBS = "arrived|broke|was late|leaked|stopped working|looks great|was cheaper than expected|came without a manual".split("|")

ASK = [
    "What is the capital of {place}'s country?",
    "Who wrote a famous book about {topic}?",
    "How does {topic} work?",
    "Define {topic}.",
    "Translate '{word} and {word2}' into French.",
    "What is {a} plus {b}?",
    "Calculate {a} times {b}.",
    "Spell {word} backwards.",
    "Write a haiku about {topic}.",
    "Give three synonyms of {word}.",
    "Count the letters in {word}.",
    "Convert {a} kilometres into miles.",
    "Name two causes of {topic}.",
    "Is {a} a prime number?",
    "When did {topic} begin?",
    "Summarise {topic} in a sentence.",
    "Sort {a}, {b}, {c} from small to large.",
    "What does the word {word} mean?",
    "Write a slogan for a {thing}.",
    "Put '{word} {word2} {word3}' in capital letters.",
    "Which is larger, {a} or {b}?",
    "Explain {topic} to a child.",
    "Find the plural of {word}.",
    "List four facts about {topic}.",
    "Where is {place}?",
    "Rewrite 'the {thing} {verb}' in the past tense.",
    "Suggest a name for a shop that sells a {thing}.",
    "Round {a}.{b} to one decimal.",
    "Does the {thing} need batteries?",
    "Make a limerick about {name}.",
    "Correct the sentence: the {thing} {verb} yesterday it.",
    "How many days are {a} weeks?",
    "Reverse the word {word}.",
]
SENTENCE = [
    "The {thing} {verb}.",
    "{name} said that the {thing} {verb} after two days.",
    "I ordered a {thing} and it {verb}.",
    "We moved to {place} and {name} likes it there.",
    "My {thing} {verb}, can somebody help me?",
    "{name} works on {topic} in {place}.",
    "Love the {thing}, five stars!",
    "The talk about {topic} in {place} was too long.",
    "Delivery to {place} took {a} days.",
]
NOUN = [
    "{thing}",
    "{topic}",
    "{place}",
    "{name} from {place}",
    "{word}",
    "the {thing} in {place}",
    "{topic} in {place}",
    "{name}, {a}",
]
PARAGRAPH = [
    "{name} joined the company in {place} in the spring. The first project was about {topic}. It took {a} weeks and cost {b} "
    "thousand dollars, more than anyone had planned.",
    "The report on {topic} was published in {place}. According to {name}, sales of the {thing} grew by {a} percent, while the "
    "{thing2} fell by {c} percent in the same quarter.",
    "Article {a}. The supplier delivers the {thing} to {place} within {b} days. Payment is due after {c} days. {name} is the "
    "contact for complaints.",
    "In {place} the meeting began at nine. {name} opened with {topic}. After a break {name2} spoke about {topic2}, and it was "
    "agreed to buy a new {thing}.",
    "Dear team, the {thing} {verb}. Please send a replacement to {place} by Friday. The order number is {a}{b}. Kind regards, {name}",
]
CODE = [
    "def {word}_{word2}(x, y):\n    total = x + y * {a}\n    if total > {b}:\n        return None\n    return total",
    "class {name}:\n    def __init__(self, {word}):\n        self.{word} = {word}\n\n    def run(self):\n        return self.{word} * {a}",
    "import os\n\nfor {word} in range({a}):\n    print('{word2}', {word})",
    "function {word}(a) {{\n  const b = a + {a};\n  return b;\n}}",
]


def fill(rng: random.Random, template: str) -> str:
    pick = rng.choice
    return template.format(
        name=pick(NAMES),
        name2=pick(NAMES),
        place=pick(PLACES),
        thing=pick(THINGS),
        thing2=pick(THINGS),
        topic=pick(TOPICS),
        topic2=pick(TOPICS),
        word=pick(WORDS),
        word2=pick(WORDS),
        word3=pick(WORDS),
        verb=pick(VERBS),
        a=rng.randint(2, 99),
        b=rng.randint(2, 999),
        c=rng.randint(2, 99),
        n=rng.randint(3, 12),
    )


def items(rng: random.Random, pool: list[str], least: int = 3, most: int = 12) -> list[str]:
    return [fill(rng, rng.choice(pool)) for _ in range(rng.randint(least, most))]


MARKS: list[Callable[[int], str]] = [
    lambda i: f"{i}. ",
    lambda i: f"{i}) ",
    lambda i: "- ",
    lambda i: "* ",
    lambda i: f"Q{i}: ",
    lambda i: f"({i}) ",
    lambda i: f"{i}. ",
    lambda i: f"{i}. ",
]


def listing(rng: random.Random, lines: list[str]) -> str:
    mark, gap = rng.choice(MARKS), rng.choice(["\n", "\n", "\n\n"])
    return gap.join(mark(i) + line for i, line in enumerate(lines, 1))


def framed(rng: random.Random, head: str, body: str, tails: tuple[str, ...] = ()) -> str:
    tail = rng.choice(tails) if tails and rng.random() < 0.4 else ""
    return head + rng.choice(["\n", "\n\n"]) + body + (f"\n\n{tail}" if tail else "")


def document(rng: random.Random, least: int = 3, most: int = 9) -> list[str]:
    return [" ".join(items(rng, PARAGRAPH, 1, 3)) for _ in range(rng.randint(least, most))]


def in_sections(rng: random.Random) -> str:
    level = rng.choice(["# ", "## ", "### "])
    return "\n\n".join(f"{level}{fill(rng, rng.choice(NOUN)).capitalize()}\n{text}" for text in document(rng))


def in_files(rng: random.Random, pool: list[str]) -> str:
    style = rng.choice(["--- {}\n{}", "=== {} ===\n{}", "File: {}\n{}", "{}\n```\n{}\n```", '<file name="{}">\n{}\n</file>'])
    parts = [
        style.format(f"{rng.choice(WORDS)}_{i}.{'py' if pool is CODE else 'txt'}", fill(rng, rng.choice(pool)))
        for i in range(rng.randint(3, 8))
    ]
    return "\n\n".join(parts)
