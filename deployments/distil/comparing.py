"""Two models of one student on the test rows of a data folder: both answer offline, then the gates look."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments.distil.answering import Answered, Report, Spec, answers
from deployments.distil.data_folder import DataFolder
from router.distil.evaluation import Judge, compare
from router.distil.gates import report as report_of
from router.distil.gates import student_gates
from router.flywheel.gates import Gate
from router.flywheel.served import Answer


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found."""

    gates: tuple[Gate, ...]
    report: Mapping[str, Any]
    """`router.distil.gates.report`"""

    @property
    def passed(self) -> bool:
        return all(gate.passed for gate in self.gates)

    @property
    def why(self) -> str:
        """One line: the gates that failed; empty: none did."""
        return "; ".join(f"{gate.name}: {gate.why}" for gate in self.gates if not gate.passed)


def evaluated(
    data: DataFolder, before: Spec, after: Spec, report: Report, work: Path | None = None, judge: Judge | None = None
) -> Verdict:
    """Ask both models for every test row, and let the gates look. Raises BadInput where a model cannot be asked.

    work: a folder where the answers are kept, so that a call that was cut short goes on. report: over both together.
    """
    test = list(data.rows("test"))
    asked = [row.as_json() for row in test]
    both = [
        answers(spec, asked, half(report, place), work / name if work else None)
        for place, (name, spec) in enumerate((("before", before), ("after", after)))
    ]
    old, new = (
        {id: as_answer(spec.tier, found) for id, found in given.items()}
        for spec, given in zip((before, after), both, strict=True)
    )
    found = compare(test, old, new, list(data.rows("dev")), judge)
    gates: Sequence[Gate] = student_gates(found)
    return Verdict(tuple(gates), report_of(found, gates))


def half(report: Report, place: int) -> Report:
    """Reports the progress of one of two halves. place: 0 or 1."""
    return lambda done, total: report(place * total + done, 2 * total)


def as_answer(tier: str, found: Answered, prices: tuple[float, float] = (0.0, 0.0)) -> Answer:
    """As the log has it. prices: USD per input and output token."""
    usd = found.input_tokens * prices[0] + found.output_tokens * prices[1]
    return Answer(tier, "fill", found.message, found.finish, found.input_tokens, found.output_tokens, usd, signals=found.signals)
