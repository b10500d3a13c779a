"""Templates of prompts that fall into independent parts, and of prompts that do not; see `benchmarks/decomposability.py`."""

import random
from collections.abc import Callable, Iterator

from benchmarks.decomposable_texts import (
    ASK,
    CODE,
    NOUN,
    PARAGRAPH,
    SENTENCE,
    document,
    fill,
    framed,
    in_files,
    in_sections,
    items,
    listing,
)

# -- yes: parts that can be done apart -------------------------------------------------------------------------------------

TASKS = [
    "Do each of these:",
    "Answer all of these:",
    "Here are some tasks:",
    "Please do all of the following:",
    "Complete these tasks.",
    "Answer the following questions:",
    "I have {n} questions for you:",
    "Please answer each question briefly.",
    "My questions:",
    "Solve all of the following.",
    "A few unrelated things I need:",
    "Work through this list, in any order:",
    "Quick quiz:",
    "Answer every question below, numbering your answers.",
    "Here is my homework, all {n} exercises:",
    "Batch of requests:",
    "These are independent tasks. Give one answer per task.",
    "Could you help me with these?",
    "Handle the following requests one by one:",
    "Reply to each item with a short answer.",
    "To do today:",
    "Several small questions:",
    "Please respond to all points:",
    "For every item, give just the answer.",
    "Worksheet. Fill in all answers.",
    "Tasks:",
    "Questions:",
    "I need answers to these:",
    "Process the queries below. Answers as a numbered list.",
    "Mixed exercise, {n} parts:",
    "Trivia night! Answer all of them.",
]
PER_ITEM = [
    "Translate each of these sentences into German:",
    "Translate every line into Spanish.",
    "Classify the sentiment of each review:",
    "For each product below write a two-line description.",
    "Label each message as complaint, question or praise.",
    "Rewrite all of these sentences in formal English:",
    "Give a one-sentence definition of every term:",
    "For each of the following companies, name the industry.",
    "Correct the grammar in each of these sentences.",
    "Write a short email reply to each of these messages:",
    "Extract the product and the problem from each ticket:",
    "Write a headline for each of the topics below.",
    "Tag every comment with a language code.",
    "Summarise each of these reviews.",
    "Turn all of the following into questions:",
    "For every city give the country and the population.",
    "Generate alt text for each item:",
    "Provide an example sentence for each word.",
    "Rate each of these slogans from 1 to 10, individually.",
    "Write a product title for each entry in this list:",
    "Paraphrase each sentence separately.",
    "Find the named entities in each line.",
    "For each name, suggest a username.",
    "Explain each of the following terms to a beginner:",
    "Draft an answer to every question:",
    "Detect the topic of each of these {n} posts.",
    "Shorten each of these texts to ten words:",
    "Normalise every address below:",
    "Write unit conversions for all these entries:",
    "Assign a category to each of these items:",
    "Describe each of the items in a line.",
    "Translate the following phrases into Italian, French and Dutch:",
    "Write product descriptions of 50 words for:",
    "Give definitions for these terms:",
    "Classify the following support messages:",
    "Transcribe these names into Cyrillic:",
    "Provide synonyms for:",
    "Look up the countries of these cities:",
    "Label the following comments as spam or not.",
]
PER_TEXT = [
    "Summarise each section in two sentences.",
    "Translate every section into French.",
    "For each paragraph, list the people it names.",
    "Extract all dates and amounts from each article.",
    "Write a title for each of these sections.",
    "Proofread each paragraph.",
    "For each of the documents below, state who wrote it and what it asks for.",
    "Summarise each file in one line.",
    "Write a docstring for the function in each file.",
    "Review every file separately and list its bugs.",
    "Translate each file to Java.",
    "For every chapter write three quiz questions.",
    "Give keywords for each document.",
    "Classify each of these emails.",
    "Simplify each of the following texts for children.",
    "For each record return name, place and amount.",
    "Add comments to each of these files.",
    "Write a short abstract for every report.",
    "Convert each of these notes to a to-do list.",
    "For each file, name its inputs and outputs.",
    "List the obligations in each article, article by article.",
    "Rewrite every paragraph in plain English.",
    "Rate the tone of each message.",
]
ABOUT = [
    "Answer each of these questions about the text below:",
    "Using the document, answer all of the questions that follow it.",
    "Read the report and answer the questions.",
    "Here is a text. Answer every question in a sentence.",
    "Text and questions:",
]
SAY_LIST = (
    "Keep answers short.",
    "One line each, please.",
    "Thanks!",
    "Number your answers.",
    "Answer in English.",
    "No explanations.",
)

# -- no: steps that build on each other, one whole, one answer ---------------------------------------------------------------

STEPS = [
    "Start with {a}.",
    "Begin with the number {a}.",
    "Take the word {word}.",
    "Compute {a} plus {b}.",
    "Let x be {a}.",
    "Read the first number, {a}.",
    "Pick the city {place}.",
    "Write down the letters of {word}.",
]
FURTHER = [
    "Multiply the result by {c}.",
    "Subtract {a} from that number.",
    "Then double it.",
    "Divide the answer of step 1 by {c}.",
    "Add {c} to the previous result.",
    "Reverse it.",
    "Now translate it into French.",
    "Use the value from step 2 to compute the next one.",
    "Take the first letter of the result.",
    "Write a sentence with it.",
    "Finally, round the result.",
    "Then compare it with {b}.",
    "Sort the letters of that word.",
    "Add {c}.",
    "Subtract {c}.",
    "Double it.",
    "Halve it.",
    "Square the number.",
    "Use that list to write a story.",
]
CHAINS = [
    "Follow these steps:",
    "Do the following step by step:",
    "Carry out these instructions in order:",
    "Calculate step by step:",
    "Each step uses the result of the one before.",
    "Work out the final number:",
    "Do these one after another and give the last result:",
    "Pipeline:",
    "Complete the steps below. Show the final answer.",
    "Steps:",
    "Do all of these in order:",
    "Please do the following:",
    "Perform these operations one after the other:",
    "Procedure:",
    "Start at the top and carry the result on:",
]
ONE_WORK = [
    "Write an essay about {topic}. Follow these rules:",
    "Write a function that sorts a list of {word}s. Requirements:",
    "Draft an email to {name} about the {thing}. Mention these points:",
    "Design a database for a shop. Constraints:",
    "Create a lesson plan on {topic} that meets these criteria:",
    "Write a story with the following elements:",
    "Plan a trip to {place}. Preferences:",
    "Build a React component for the {thing}. It must:",
    "Write a cover letter using these facts:",
    "Write a blog post about {topic} covering:",
    "Refactor the code so that:",
    "You are a helpful assistant. Rules:",
    "Write a poem that contains all of these words:",
    "Write one paragraph that uses every one of these facts:",
    "Make a single summary of these points:",
    "Turn these notes into a speech:",
    "Implement a parser with these features:",
    "Write a press release. Include:",
    "Explain {topic}. Keep these guidelines in mind:",
    "Compose a short dialogue between {name} and {name2} using these phrases:",
    "Develop a marketing strategy given:",
]
CHOICES = [
    "Which of these is the best gift?",
    "Rank the following by price:",
    "Sort these alphabetically:",
    "Which one does not belong?",
    "Put these events in order:",
    "Compare the following options and recommend one.",
    "Which of the following statements is true?",
    "Pick the two that fit {topic} best:",
    "What do these have in common?",
    "Which of these reviews is the most helpful?",
    "Decide which product I should buy:",
    "Choose the correct answer.",
    "Order these steps correctly:",
    "What is the main trend in these comments?",
    "Given these facts, who is the tallest?",
    "From the clues below, work out who lives in which house:",
    "Which statement follows from the premises?",
    "Find the odd one out:",
    "Group the following into three clusters:",
    "Write an overall summary of these reviews:",
    "Combine these into one sentence:",
    "Here is a recipe. How long does it take in total?",
    "Here is the log of yesterday. What went wrong?",
    "Is the following list complete?",
    "What is the total of these amounts?",
    "Which two of these cities are closest?",
    "Prioritise these tickets:",
    "Do these statements contradict each other?",
    "How many of these are positive?",
    "What is the average rating?",
    "Who of these people is older than {name}?",
]
WHOLE = [
    "What is the main argument of this text?",
    "Why did the project fail?",
    "Is the author consistent?",
    "Summarise the document in one paragraph.",
    "Who is responsible for the delay, and why?",
    "What is the overall tone?",
    "Continue the story.",
    "How do these sections relate to each other?",
    "Find the contradiction between the articles.",
    "Write a reply to this.",
    "Debug this: the test fails and I do not know why.",
    "What is the root cause of the error?",
    "How does data flow through these files?",
    "Refactor this into one module.",
    "Which file has the bug?",
    "Explain step by step what this program prints.",
    "Prove that the function terminates.",
    "Merge these files into one.",
    "Rename {word} everywhere.",
    "How much was spent in total?",
    "What happened first?",
    "Give me one title for the whole.",
    "Should we sign this contract?",
    "TL;DR",
    "Turn this into a single table.",
    "Compare the two main positions.",
    "What would {name} say about it?",
    "Write a test for the bug described.",
]
SINGLES = [
    *ASK,
    "Prove that the square root of {a} is irrational.",
    "Write a story about {name} in {place}.",
    "Explain step by step how {topic} works.",
    "Debug this code:\n{word} = [{a}, {b}\nprint({word})",
    "If {name} has {a} apples and gives {c} to {name2}, then buys {b} more, how many are left?",
    "{name} walks {a} km, then {c} km. After that the way back is twice as long. How far in all?",
    "Write a Python function that returns the {a}th prime.",
    "Who lives in {place}: {name} or {name2}? {name} does not like the sea.",
    "Plan a week in {place} for each member of my family.",
    "Tell me everything about {topic}.",
    "Every student has a {thing}. {name} is a student. Does {name} have a {thing}?",
    "Hello!",
    "Take {a}. Add {c}. Double it. Give the result of every step.",
    "For all integers n, show that n*n+n is even.",
    "Write an essay on {topic} with an introduction, three parts and an end.",
    "Each of {n} friends pays {a} dollars. What is the total?",
    "What is the difference between {topic} and {topic2}?",
    "Fix: {thing} {verb}",
    "Sort all of these numbers: {a}, {b}, {c}.",
    "Act as a guide in {place}. I will ask you questions one by one.",
    "A train leaves {place} at {n} o'clock. Then a second one follows. When do they meet?",
]
FRAME_STEPS = ("Give the final result.", "What is the last number?", "Show every step.", "Write only the last answer.")


def yes() -> Iterator[tuple[str, Callable[[random.Random], str]]]:
    """(template, maker) of prompts that fall apart."""
    for head in TASKS:
        yield head, lambda rng, head=head: framed(rng, fill(rng, head), listing(rng, items(rng, ASK)), SAY_LIST)
    for head in PER_ITEM:
        yield (
            head,
            lambda rng, head=head: framed(
                rng, fill(rng, head), listing(rng, items(rng, rng.choice([SENTENCE, NOUN, SENTENCE]))), SAY_LIST
            ),
        )
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
        yield (
            head,
            lambda rng, head=head: framed(
                rng, head, listing(rng, [fill(rng, rng.choice(STEPS)), *items(rng, FURTHER, 2, 8)]), FRAME_STEPS
            ),
        )
        yield (
            head + "*",
            lambda rng, head=head: " ".join(
                [head, fill(rng, rng.choice(STEPS)), *items(rng, FURTHER, 2, 6), rng.choice(FRAME_STEPS)]
            ),
        )
    for head in ONE_WORK:
        yield (
            head,
            lambda rng, head=head: framed(
                rng, fill(rng, head), listing(rng, items(rng, rng.choice([NOUN, SENTENCE, PARAGRAPH]), 3, 9))
            ),
        )
    for head in CHOICES:
        yield (
            head,
            lambda rng, head=head: framed(rng, fill(rng, head), listing(rng, items(rng, rng.choice([NOUN, SENTENCE]), 3, 9))),
        )
        yield head + "-", lambda rng, head=head: listing(rng, items(rng, SENTENCE, 3, 9)) + "\n\n" + fill(rng, head)
    for head in WHOLE:
        yield head, lambda rng, head=head: framed(rng, fill(rng, head), in_sections(rng))
        yield head + "/", lambda rng, head=head: framed(rng, fill(rng, head), in_files(rng, rng.choice([CODE, PARAGRAPH])))
        yield head + "|", lambda rng, head=head: "\n\n".join([*document(rng), fill(rng, head)])
        yield head + "^", lambda rng, head=head: "\n\n".join([fill(rng, head), *document(rng)])
    for head in SINGLES:
        yield head, lambda rng, head=head: fill(rng, head)
