"""Makes classifiers/decomposability.json. Run as: python -m benchmarks.decomposability [--negatives TABLE.parquet ...]

Prompts are generated from templates; a fifth of the templates, and of the tables' prompts, is held out and only measured.
--negatives: outcome tables whose prompts (column `prompt`) are single questions; they are used, never stored.
"""

import argparse
import hashlib
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from classifiers.decomposability import FEATURES, FILE, Decomposability, features
from deployments.pocket.tasks import KINDS

PER_TEMPLATE = 12
POCKET = 600
PRECISION_WEIGHT = 4.0  # a wrong yes costs a plan and quality, a wrong no only a saving

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
    "What is the capital of {place}'s country?", "Who wrote a famous book about {topic}?", "How does {topic} work?",
    "Define {topic}.", "Translate '{word} and {word2}' into French.", "What is {a} plus {b}?", "Calculate {a} times {b}.",
    "Spell {word} backwards.", "Write a haiku about {topic}.", "Give three synonyms of {word}.", "Count the letters in {word}.",
    "Convert {a} kilometres into miles.", "Name two causes of {topic}.", "Is {a} a prime number?", "When did {topic} begin?",
    "Summarise {topic} in a sentence.", "Sort {a}, {b}, {c} from small to large.", "What does the word {word} mean?",
    "Write a slogan for a {thing}.", "Put '{word} {word2} {word3}' in capital letters.", "Which is larger, {a} or {b}?",
    "Explain {topic} to a child.", "Find the plural of {word}.", "List four facts about {topic}.", "Where is {place}?",
    "Rewrite 'the {thing} {verb}' in the past tense.", "Suggest a name for a shop that sells a {thing}.",
    "Round {a}.{b} to one decimal.", "Does the {thing} need batteries?", "Make a limerick about {name}.",
    "Correct the sentence: the {thing} {verb} yesterday it.", "How many days are {a} weeks?", "Reverse the word {word}.",
]  # fmt: skip
SENTENCE = [
    "The {thing} {verb}.", "{name} said that the {thing} {verb} after two days.", "I ordered a {thing} and it {verb}.",
    "We moved to {place} and {name} likes it there.", "My {thing} {verb}, can somebody help me?", "{name} works on {topic} in {place}.",
    "Love the {thing}, five stars!", "The talk about {topic} in {place} was too long.", "Delivery to {place} took {a} days.",
]  # fmt: skip
NOUN = ["{thing}", "{topic}", "{place}", "{name} from {place}", "{word}", "the {thing} in {place}", "{topic} in {place}", "{name}, {a}"]
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
]  # fmt: skip
CODE = [
    "def {word}_{word2}(x, y):\n    total = x + y * {a}\n    if total > {b}:\n        return None\n    return total",
    "class {name}:\n    def __init__(self, {word}):\n        self.{word} = {word}\n\n    def run(self):\n        return self.{word} * {a}",
    "import os\n\nfor {word} in range({a}):\n    print('{word2}', {word})",
    "function {word}(a) {{\n  const b = a + {a};\n  return b;\n}}",
]  # fmt: skip


def fill(rng: random.Random, template: str) -> str:
    pick = rng.choice
    return template.format(
        name=pick(NAMES), name2=pick(NAMES), place=pick(PLACES), thing=pick(THINGS), thing2=pick(THINGS), topic=pick(TOPICS),
        topic2=pick(TOPICS), word=pick(WORDS), word2=pick(WORDS), word3=pick(WORDS), verb=pick(VERBS),
        a=rng.randint(2, 99), b=rng.randint(2, 999), c=rng.randint(2, 99), n=rng.randint(3, 12),
    )  # fmt: skip


def items(rng: random.Random, pool: list[str], least: int = 3, most: int = 12) -> list[str]:
    return [fill(rng, rng.choice(pool)) for _ in range(rng.randint(least, most))]


MARKS: list[Callable[[int], str]] = [
    lambda i: f"{i}. ", lambda i: f"{i}) ", lambda i: "- ", lambda i: "* ", lambda i: f"Q{i}: ", lambda i: f"({i}) ",
    lambda i: f"{i}. ", lambda i: f"{i}. ",
]  # fmt: skip


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
    style = rng.choice(["--- {}\n{}", "=== {} ===\n{}", "File: {}\n{}", "{}\n```\n{}\n```", "<file name=\"{}\">\n{}\n</file>"])
    parts = [style.format(f"{rng.choice(WORDS)}_{i}.{'py' if pool is CODE else 'txt'}", fill(rng, rng.choice(pool))) for i in range(rng.randint(3, 8))]
    return "\n\n".join(parts)


# -- yes: parts that can be done apart -------------------------------------------------------------------------------------

TASKS = [
    "Do each of these:", "Answer all of these:", "Here are some tasks:", "Please do all of the following:", "Complete these tasks.",
    "Answer the following questions:", "I have {n} questions for you:", "Please answer each question briefly.", "My questions:",
    "Solve all of the following.", "A few unrelated things I need:", "Work through this list, in any order:", "Quick quiz:",
    "Answer every question below, numbering your answers.", "Here is my homework, all {n} exercises:", "Batch of requests:",
    "These are independent tasks. Give one answer per task.", "Could you help me with these?", "Handle the following requests one by one:",
    "Reply to each item with a short answer.", "To do today:", "Several small questions:", "Please respond to all points:",
    "For every item, give just the answer.", "Worksheet. Fill in all answers.", "Tasks:", "Questions:", "I need answers to these:",
    "Process the queries below. Answers as a numbered list.", "Mixed exercise, {n} parts:", "Trivia night! Answer all of them.",
]  # fmt: skip
PER_ITEM = [
    "Translate each of these sentences into German:", "Translate every line into Spanish.", "Classify the sentiment of each review:",
    "For each product below write a two-line description.", "Label each message as complaint, question or praise.",
    "Rewrite all of these sentences in formal English:", "Give a one-sentence definition of every term:",
    "For each of the following companies, name the industry.", "Correct the grammar in each of these sentences.",
    "Write a short email reply to each of these messages:", "Extract the product and the problem from each ticket:",
    "Write a headline for each of the topics below.", "Tag every comment with a language code.", "Summarise each of these reviews.",
    "Turn all of the following into questions:", "For every city give the country and the population.", "Generate alt text for each item:",
    "Provide an example sentence for each word.", "Rate each of these slogans from 1 to 10, individually.",
    "Write a product title for each entry in this list:", "Paraphrase each sentence separately.", "Find the named entities in each line.",
    "For each name, suggest a username.", "Explain each of the following terms to a beginner:", "Draft an answer to every question:",
    "Detect the topic of each of these {n} posts.", "Shorten each of these texts to ten words:", "Normalise every address below:",
    "Write unit conversions for all these entries:", "Assign a category to each of these items:", "Describe each of the items in a line.",
    "Translate the following phrases into Italian, French and Dutch:", "Write product descriptions of 50 words for:",
    "Give definitions for these terms:", "Classify the following support messages:", "Transcribe these names into Cyrillic:",
    "Provide synonyms for:", "Look up the countries of these cities:", "Label the following comments as spam or not.",
]  # fmt: skip
PER_TEXT = [
    "Summarise each section in two sentences.", "Translate every section into French.", "For each paragraph, list the people it names.",
    "Extract all dates and amounts from each article.", "Write a title for each of these sections.", "Proofread each paragraph.",
    "For each of the documents below, state who wrote it and what it asks for.", "Summarise each file in one line.",
    "Write a docstring for the function in each file.", "Review every file separately and list its bugs.", "Translate each file to Java.",
    "For every chapter write three quiz questions.", "Give keywords for each document.", "Classify each of these emails.",
    "Simplify each of the following texts for children.", "For each record return name, place and amount.", "Add comments to each of these files.",
    "Write a short abstract for every report.", "Convert each of these notes to a to-do list.", "For each file, name its inputs and outputs.",
    "List the obligations in each article, article by article.", "Rewrite every paragraph in plain English.", "Rate the tone of each message.",
]  # fmt: skip
ABOUT = [
    "Answer each of these questions about the text below:", "Using the document, answer all of the questions that follow it.",
    "Read the report and answer the questions.", "Here is a text. Answer every question in a sentence.", "Text and questions:",
]  # fmt: skip
SAY_LIST = ("Keep answers short.", "One line each, please.", "Thanks!", "Number your answers.", "Answer in English.", "No explanations.")

# -- no: steps that build on each other, one whole, one answer ---------------------------------------------------------------

STEPS = [
    "Start with {a}.", "Begin with the number {a}.", "Take the word {word}.", "Compute {a} plus {b}.", "Let x be {a}.",
    "Read the first number, {a}.", "Pick the city {place}.", "Write down the letters of {word}.",
]  # fmt: skip
FURTHER = [
    "Multiply the result by {c}.", "Subtract {a} from that number.", "Then double it.", "Divide the answer of step 1 by {c}.",
    "Add {c} to the previous result.", "Reverse it.", "Now translate it into French.", "Use the value from step 2 to compute the next one.",
    "Take the first letter of the result.", "Write a sentence with it.", "Finally, round the result.", "Then compare it with {b}.",
    "Sort the letters of that word.", "Add {c}.", "Subtract {c}.", "Double it.", "Halve it.", "Square the number.", "Use that list to write a story.",
]  # fmt: skip
CHAINS = [
    "Follow these steps:", "Do the following step by step:", "Carry out these instructions in order:", "Calculate step by step:",
    "Each step uses the result of the one before.", "Work out the final number:", "Do these one after another and give the last result:",
    "Pipeline:", "Complete the steps below. Show the final answer.", "Steps:", "Do all of these in order:", "Please do the following:",
    "Perform these operations one after the other:", "Procedure:", "Start at the top and carry the result on:",
]  # fmt: skip
ONE_WORK = [
    "Write an essay about {topic}. Follow these rules:", "Write a function that sorts a list of {word}s. Requirements:",
    "Draft an email to {name} about the {thing}. Mention these points:", "Design a database for a shop. Constraints:",
    "Create a lesson plan on {topic} that meets these criteria:", "Write a story with the following elements:", "Plan a trip to {place}. Preferences:",
    "Build a React component for the {thing}. It must:", "Write a cover letter using these facts:", "Write a blog post about {topic} covering:",
    "Refactor the code so that:", "You are a helpful assistant. Rules:", "Write a poem that contains all of these words:",
    "Write one paragraph that uses every one of these facts:", "Make a single summary of these points:", "Turn these notes into a speech:",
    "Implement a parser with these features:", "Write a press release. Include:", "Explain {topic}. Keep these guidelines in mind:",
    "Compose a short dialogue between {name} and {name2} using these phrases:", "Develop a marketing strategy given:",
]  # fmt: skip
CHOICES = [
    "Which of these is the best gift?", "Rank the following by price:", "Sort these alphabetically:", "Which one does not belong?",
    "Put these events in order:", "Compare the following options and recommend one.", "Which of the following statements is true?",
    "Pick the two that fit {topic} best:", "What do these have in common?", "Which of these reviews is the most helpful?",
    "Decide which product I should buy:", "Choose the correct answer.", "Order these steps correctly:", "What is the main trend in these comments?",
    "Given these facts, who is the tallest?", "From the clues below, work out who lives in which house:", "Which statement follows from the premises?",
    "Find the odd one out:", "Group the following into three clusters:", "Write an overall summary of these reviews:", "Combine these into one sentence:",
    "Here is a recipe. How long does it take in total?", "Here is the log of yesterday. What went wrong?", "Is the following list complete?",
    "What is the total of these amounts?", "Which two of these cities are closest?", "Prioritise these tickets:", "Do these statements contradict each other?",
    "How many of these are positive?", "What is the average rating?", "Who of these people is older than {name}?",
]  # fmt: skip
WHOLE = [
    "What is the main argument of this text?", "Why did the project fail?", "Is the author consistent?", "Summarise the document in one paragraph.",
    "Who is responsible for the delay, and why?", "What is the overall tone?", "Continue the story.", "How do these sections relate to each other?",
    "Find the contradiction between the articles.", "Write a reply to this.", "Debug this: the test fails and I do not know why.",
    "What is the root cause of the error?", "How does data flow through these files?", "Refactor this into one module.", "Which file has the bug?",
    "Explain step by step what this program prints.", "Prove that the function terminates.", "Merge these files into one.", "Rename {word} everywhere.",
    "How much was spent in total?", "What happened first?", "Give me one title for the whole.", "Should we sign this contract?", "TL;DR",
    "Turn this into a single table.", "Compare the two main positions.", "What would {name} say about it?", "Write a test for the bug described.",
]  # fmt: skip
SINGLES = [
    *ASK, "Prove that the square root of {a} is irrational.", "Write a story about {name} in {place}.", "Explain step by step how {topic} works.",
    "Debug this code:\n{word} = [{a}, {b}\nprint({word})", "If {name} has {a} apples and gives {c} to {name2}, then buys {b} more, how many are left?",
    "{name} walks {a} km, then {c} km. After that the way back is twice as long. How far in all?", "Write a Python function that returns the {a}th prime.",
    "Who lives in {place}: {name} or {name2}? {name} does not like the sea.", "Plan a week in {place} for each member of my family.",
    "Tell me everything about {topic}.", "Every student has a {thing}. {name} is a student. Does {name} have a {thing}?", "Hello!",
    "Take {a}. Add {c}. Double it. Give the result of every step.", "For all integers n, show that n*n+n is even.", "Write an essay on {topic} with an introduction, three parts and an end.",
    "Each of {n} friends pays {a} dollars. What is the total?", "What is the difference between {topic} and {topic2}?", "Fix: {thing} {verb}",
    "Sort all of these numbers: {a}, {b}, {c}.", "Act as a guide in {place}. I will ask you questions one by one.", "A train leaves {place} at {n} o'clock. Then a second one follows. When do they meet?",
]  # fmt: skip
FRAME_STEPS = ("Give the final result.", "What is the last number?", "Show every step.", "Write only the last answer.")


def yes() -> Iterator[tuple[str, Callable[[random.Random], str]]]:
    """(template, maker) of prompts that fall apart."""
    for head in TASKS:
        yield head, lambda rng, head=head: framed(rng, fill(rng, head), listing(rng, items(rng, ASK)), SAY_LIST)
    for head in PER_ITEM:
        yield head, lambda rng, head=head: framed(rng, fill(rng, head), listing(rng, items(rng, rng.choice([SENTENCE, NOUN, SENTENCE]))), SAY_LIST)
        yield head + "*", lambda rng, head=head: framed(rng, fill(rng, head), listing(rng, items(rng, PARAGRAPH)), SAY_LIST)
    for head in PER_TEXT:
        yield head, lambda rng, head=head: framed(rng, head, in_sections(rng))
        yield head + "/", lambda rng, head=head: framed(rng, head, in_files(rng, rng.choice([CODE, PARAGRAPH])))
        yield head + "|", lambda rng, head=head: framed(rng, head, "\n\n".join(document(rng)))
        yield head + "-", lambda rng, head=head: "\n\n".join([*document(rng), head])
    for head in ABOUT:
        yield head, lambda rng, head=head: "\n\n".join([head, *document(rng, 2, 5), listing(rng, items(rng, ASK))])


def no() -> Iterator[tuple[str, Callable[[random.Random], str]]]:
    """(template, maker) of prompts that do not."""
    for head in CHAINS:
        yield head, lambda rng, head=head: framed(rng, head, listing(rng, [fill(rng, rng.choice(STEPS)), *items(rng, FURTHER, 2, 8)]), FRAME_STEPS)
        yield head + "*", lambda rng, head=head: " ".join([head, fill(rng, rng.choice(STEPS)), *items(rng, FURTHER, 2, 6), rng.choice(FRAME_STEPS)])
    for head in ONE_WORK:
        yield head, lambda rng, head=head: framed(rng, fill(rng, head), listing(rng, items(rng, rng.choice([NOUN, SENTENCE, PARAGRAPH]), 3, 9)))
    for head in CHOICES:
        yield head, lambda rng, head=head: framed(rng, fill(rng, head), listing(rng, items(rng, rng.choice([NOUN, SENTENCE]), 3, 9)))
        yield head + "-", lambda rng, head=head: listing(rng, items(rng, SENTENCE, 3, 9)) + "\n\n" + fill(rng, head)
    for head in WHOLE:
        yield head, lambda rng, head=head: framed(rng, fill(rng, head), in_sections(rng))
        yield head + "/", lambda rng, head=head: framed(rng, fill(rng, head), in_files(rng, rng.choice([CODE, PARAGRAPH])))
        yield head + "|", lambda rng, head=head: "\n\n".join([*document(rng), fill(rng, head)])
        yield head + "^", lambda rng, head=head: "\n\n".join([fill(rng, head), *document(rng)])
    for head in SINGLES:
        yield head, lambda rng, head=head: fill(rng, head)


def held_out(key: str) -> bool:
    """One in five, by its text alone."""
    return hashlib.sha256(key.encode()).digest()[0] % 5 == 0


Row = tuple[str, int, bool, str]  # text, label, held out, group


def generated(rng: random.Random) -> Iterator[Row]:
    for label, source in ((1, yes()), (0, no())):
        for template, make in source:
            for _ in range(PER_TEMPLATE):
                yield make(rng), label, held_out(template.rstrip("*/|-^")), "templates"


def pocket(rng: random.Random) -> Iterator[Row]:
    for kind, make in KINDS.items():
        for _ in range(POCKET):
            text = make(rng).prompt
            yield text, int(kind == "composite"), held_out(text), f"pocket {kind}"


def tables(paths: list[Path], rng: random.Random, most: int = 800) -> Iterator[Row]:
    for path in paths:
        import pyarrow.parquet

        texts = sorted(set(pyarrow.parquet.read_table(path, columns=["prompt"]).column("prompt").to_pylist()))
        for text in rng.sample(texts, min(most, len(texts))):
            yield text, 0, held_out(text), path.stem


def fit(rows: list[Row]) -> Decomposability:
    x = np.array([features(text) for text, *_ in rows])
    y = np.array([label for _, label, *_ in rows])
    scale = StandardScaler().fit(x)
    model = LogisticRegression(C=0.3, max_iter=3000, class_weight={0: PRECISION_WEIGHT, 1: 1.0}).fit(scale.transform(x), y)
    raw = model.coef_[0] / scale.scale_
    return Decomposability(tuple(round(float(c), 5) for c in raw), round(float(model.intercept_[0] - raw @ scale.mean_), 5))


def measure(model: Decomposability, rows: list[Row]) -> dict[str, str]:
    """For each group and label the share that is right."""
    found: dict[str, list[bool]] = {}
    for text, label, _, group in rows:
        found.setdefault(f"{group}, {'yes' if label else 'no'}", []).append((model.chance(text) >= 0.5) == bool(label))
    found["all"] = [right for group in list(found.values()) for right in group]
    return {name: f"{sum(right)}/{len(right)}" for name, right in sorted(found.items())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--negatives", nargs="*", type=Path, default=[], help="outcome tables of single questions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--errors", action="store_true", help="show what is decided wrong")
    asked = parser.parse_args()
    rng = random.Random(asked.seed)
    rows = [*generated(rng), *pocket(rng), *tables(asked.negatives, rng)]
    train, test = ([row for row in rows if row[2] == part] for part in (False, True))
    model = fit(train)
    scores = measure(model, test)
    print(json.dumps({"train": measure(model, train), "held out": scores}, indent=1))
    if asked.errors:
        for text, label, _, group in test:
            if (model.chance(text) >= 0.5) != bool(label):
                print(f"--- {group} {label} {model.chance(text):.3f}\n{text[:300]}")
    manifest = {
        "recipe": "python -m benchmarks.decomposability --negatives " + " ".join(path.name for path in asked.negatives),
        "seed": asked.seed, "rows": len(train), "templates": len({t for s in (yes(), no()) for t, _ in s}), "held_out": scores,
    }  # fmt: skip
    made = {"manifest": manifest, "intercept": model.intercept, "coefficients": dict(zip(FEATURES, model.coefficients, strict=True))}
    FILE.write_text(json.dumps(made, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
