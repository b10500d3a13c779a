"""Cuts a text into its author's parts: list items, files, sections, else paragraphs.

Parts are addressed by index, because models are bad at character offsets.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["files", "sections", "numbered", "bullets", "paragraphs"]

NUMBER = re.compile(r"^\(?(?:(?:Q|Question|Task|Item|Problem|Part|Step)\s*#?)?(\d{1,3})[.):](?=\s)", re.IGNORECASE)
BULLET = re.compile(r"^[-*•‣–](?=\s)")
HEADING = re.compile(r"^(#{1,6})(?=\s+\S)")
FENCE = re.compile(r"^\s{0,3}(```+|~~~+)")
FILE = re.compile(
    r"^(?:-{3,}|={3,})\s*[^-=\s].*$|^<(?:document|doc|file|source|page|email|article|review)\b[^>]*>$"
    r"|^(?:File|Document|Doc|Source|Email|Review|Article|Chapter|Page)\s*(?:#?\d+\b|:\s*\S).*$",
    re.IGNORECASE,
)
CLOSES = re.compile(r"^</\w+>$")
VERBS = (
    "add|answer|calculate|capitali[sz]e|change|check|classify|compute|convert|correct|count|define|describe|detect|determine|"
    "draft|explain|extract|find|fix|generate|give|identify|label|list|make|name|order|paraphrase|proofread|provide|put|rate|"
    "recommend|replace|reverse|review|rewrite|round|say|score|shorten|simplify|solve|sort|spell|state|subtract|suggest|"
    "summari[sz]e|sum up|tag|take|tell|translate|turn|work out|write|evaluate|estimate|expand|multiply|divide|compare|rank|"
    "choose|pick|return|for each|for every|using|answer|reply|keep|please"
)
ASKS = re.compile(rf"^(?:please |now |can you |could you |i need you to |help me )?(?:{VERBS})\b", re.IGNORECASE)
SHORT = 60  # words; a longer paragraph is not an instruction about the others
MOST_LINES = 5000  # a text of more lines is cut into paragraphs, without a search for structure


@dataclass(frozen=True, slots=True)
class Part:
    """One part, without its label."""

    label: str  # `1.`, `-`, `## Costs`, `--- a.py`; empty for a paragraph
    text: str


@dataclass(frozen=True, slots=True)
class Cut:
    """A text in parts. `head`: the text before the first part. `tail`: text that clearly does not belong to the last part."""

    kind: Kind
    head: str
    parts: tuple[Part, ...]
    tail: str = ""


@dataclass(frozen=True, slots=True)
class Mark:
    """The first line of a part."""

    line: int
    label: str
    rest: str  # the part's text on this line


Finder = Callable[[list[str], list[bool]], list[Mark]]  # of a text's lines, and whether each is in a code fence


def asks(text: str) -> bool:
    """Whether a text is a request by itself: a question, or a sentence that begins with an instruction."""
    return text.rstrip().endswith("?") or bool(ASKS.match(text.lstrip()))


def cut(text: str, most_paragraphs: int = 8) -> Cut:
    """Cut by the structure that covers most of the text, else into at most `most_paragraphs` paragraphs."""
    lines = text.split("\n")
    if len(lines) > MOST_LINES:
        return paragraphs(text, most_paragraphs)
    code = fenced(lines)
    found = [made for kind, marks in structures(lines, code) if (made := build(kind, lines, marks, code))]
    best = max(found, key=lambda made: sum(len(p.text) for p in made.parts), default=None)
    return best or paragraphs(text, most_paragraphs)


def fenced(lines: list[str]) -> list[bool]:
    """For each line, whether it is inside a code fence, or is the fence."""
    inside, opened = [], ""
    for line in lines:
        fence = FENCE.match(line)
        inside.append(bool(opened or fence))
        if fence and not opened:
            opened = fence[1]
        elif fence and fence[1].startswith(opened):
            opened = ""
    return inside


def structures(lines: list[str], code: list[bool]) -> Iterable[tuple[Kind, list[Mark]]]:
    """Every structure with at least two parts; earlier ones win ties."""
    finders: dict[Kind, Finder] = {"files": files, "sections": sections, "numbered": numbered, "bullets": bullets}
    for kind, find in finders.items():
        marks = find(lines, code)
        if len(marks) >= 2:
            yield kind, marks


def numbered(lines: list[str], code: list[bool]) -> list[Mark]:
    """The longest run of consecutively numbered items with the same indentation."""
    best: list[Mark] = []
    run: list[Mark] = []
    last, margin = 0, ""
    for i, line in enumerate(lines):
        indent = line[: len(line) - len(line.lstrip())]
        found = None if code[i] else NUMBER.match(line.lstrip())
        if not found or (run and len(indent) > len(margin)):
            continue
        if not run or int(found[1]) != last + 1:
            run, margin = [], indent
        last = int(found[1])
        run.append(Mark(i, found[0], line.lstrip()[found.end() :]))
        best = run if len(run) >= len(best) else best
    return best


def bullets(lines: list[str], code: list[bool]) -> list[Mark]:
    """The items of the outermost bullet list."""
    marked = [i for i, line in enumerate(lines) if not code[i] and BULLET.match(line.lstrip())]
    margin = min((len(lines[i]) - len(lines[i].lstrip()) for i in marked), default=0)
    outer = [i for i in marked if len(lines[i]) - len(lines[i].lstrip()) == margin]
    return [Mark(i, lines[i][margin], lines[i][margin + 1 :]) for i in outer]


def sections(lines: list[str], code: list[bool]) -> list[Mark]:
    """The headings of the highest level that has at least two."""
    found = [(i, len(m[1])) for i, line in enumerate(lines) if not code[i] and (m := HEADING.match(line))]
    levels = [level for _, level in found]
    level = next((n for n in sorted(set(levels)) if levels.count(n) >= 2), 0)
    return [Mark(i, lines[i].strip(), "") for i, n in found if n == level]


def files(lines: list[str], code: list[bool]) -> list[Mark]:
    """Separator lines with a name; without those, fenced blocks, each with the line that names it."""
    named = [Mark(i, line.strip(), "") for i, line in enumerate(lines) if not code[i] and FILE.match(line)]
    if len(named) >= 2:
        return named
    opens = [i for i in range(len(lines)) if code[i] and (i == 0 or not code[i - 1] or ends_fence(lines, code, i - 1))]
    return [Mark(*fenced_file(lines, code, i)) for i in opens]


def ends_fence(lines: list[str], code: list[bool], i: int) -> bool:
    """Whether line i ends a fence and the next line opens another."""
    return bool(FENCE.match(lines[i]) and i + 1 < len(lines) and FENCE.match(lines[i + 1]))


def fenced_file(lines: list[str], code: list[bool], i: int) -> tuple[int, str, str]:
    """The first line of a fenced block, its label (the line right before the fence, if that is short), and the rest."""
    before = lines[i - 1].strip() if i and not code[i - 1] else ""
    return (i - 1, before, "") if 0 < len(before) <= 120 else (i, "", lines[i])


def build(kind: Kind, lines: list[str], marks: list[Mark], code: list[bool]) -> Cut | None:
    """The parts between the marks; text that clearly does not belong to the last part becomes the tail."""
    ends = [mark.line for mark in marks[1:]] + [len(lines)]
    bodies = [[mark.rest, *lines[mark.line + 1 : end]] for mark, end in zip(marks, ends, strict=True)]
    bodies = [[line for line in body if not CLOSES.match(line)] if kind == "files" else body for body in bodies]
    tail = ""
    if kind in ("numbered", "bullets"):
        bodies[-1], tail = split_last_item(bodies[:-1], bodies[-1])
    elif kind == "files":
        bodies[-1], tail = split_after_fence(bodies[-1])
    if not tail and kind in ("files", "sections"):
        bodies[-1], tail = split_last_order(bodies[-1])
    parts = [Part(mark.label, "\n".join(body).strip()) for mark, body in zip(marks, bodies, strict=True)]
    if sum(bool(part.text) for part in parts) < 2:
        return None
    return Cut(kind, "\n".join(lines[: marks[0].line]).strip(), tuple(parts), tail)


def split_last_item(others: list[list[str]], last: list[str]) -> tuple[list[str], str]:
    """Split the last item from a paragraph that follows it, unless other items have such paragraphs too."""
    at = flush_paragraph(last)
    if at is None or any(flush_paragraph(body) is not None for body in others):
        return last, ""
    return last[:at], "\n".join(last[at:]).strip()


def flush_paragraph(body: list[str]) -> int | None:
    """The line of the first paragraph that follows an empty line and is not indented."""
    pairs = zip(body, body[1:], strict=False)
    return next((i for i, (before, line) in enumerate(pairs, 1) if not before.strip() and line[:1].strip()), None)


def split_after_fence(body: list[str]) -> tuple[list[str], str]:
    """Split a fenced file from the text after its fence."""
    inside = fenced(body)
    if not any(inside) or any(line.strip() for line, code in zip(body[: inside.index(True)], inside, strict=False) if not code):
        return body, ""
    end = len(inside) - inside[::-1].index(True)
    return body[:end], "\n".join(body[end:]).strip()


def split_last_order(body: list[str]) -> tuple[list[str], str]:
    """Split off a last paragraph that is an instruction about all parts."""
    at = next((i for i in range(len(body) - 1, 0, -1) if body[i].strip() and not body[i - 1].strip()), None)
    last = "\n".join(body[at:]).strip() if at is not None else ""
    return (body[:at], last) if any(line.strip() for line in body[:at]) and is_order(last) else (body, "")


def is_order(paragraph: str) -> bool:
    """Whether a paragraph is a short instruction."""
    return 0 < len(paragraph.split()) <= SHORT and (asks(paragraph) or paragraph.rstrip().endswith(":"))


def paragraphs(text: str, most: int) -> Cut:
    """Paragraphs, joined with their neighbours into at most `most` parts of similar size.

    An instruction at the beginning or end becomes head or tail if two other paragraphs are left.
    """
    found = [p.strip("\n") for p in re.split(r"\n\s*\n", text) if p.strip()]
    head = found.pop(0).strip() if len(found) > 2 and is_order(found[0]) else ""
    tail = found.pop().strip() if len(found) > 2 and is_order(found[-1]) else ""
    return Cut("paragraphs", head, join_neighbours(found, most), tail)


def join_neighbours(found: list[str], most: int) -> tuple[Part, ...]:
    if len(found) <= most:
        return tuple(Part("", p.strip()) for p in found)
    room, groups = sum(map(len, found)) / most, [[found[0]]]
    done = len(found[0])
    for paragraph in found[1:]:
        if done >= room * len(groups):
            groups.append([])
        groups[-1].append(paragraph)
        done += len(paragraph)
    return tuple(Part("", "\n\n".join(group).strip()) for group in groups)
