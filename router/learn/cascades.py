"""Learns what answers tell, for `stepdown train`, and certifies their acceptance, for `stepdown calibrate --alpha`."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from classifiers import Artifact, Rule
from classifiers.choose import Floats
from classifiers.replies.posterior import Posterior, fit_posterior
from classifiers.replies.signals import Seen
from classifiers.sufficiency import folds_of
from classifiers.text.view import View
from router.cascade.next_step import plan
from router.config import NamedTarget
from router.decide import certificates as ct
from router.errors import BadInput
from router.learn import evaluation as ev
from router.learn.calibration import CONFIDENCE, QUALITY_OF, Menu, for_quality, lower_bound, top_quality
from router.learn.outcomes import Outcomes
from router.learn.simulate import PRICES, Played, Rows, States, all_tiers, cross_play, frontier_of, play
from router.learn.training import Trained

N_FOLDS = 5
FEWEST_ROWS = 50  # complete rows needed to choose a target
BEST_OF = False  # as served: the top tier's answer streams and is final, so it is not compared with earlier ones


def rows_to_learn(trained: Trained, outcomes: Outcomes, seen: Seen) -> Rows:
    """The training rows, with chances by classifiers that had not seen them."""
    _, guessed, _ = trained.model.assess(View(list(outcomes.texts)))
    costs = outcomes.costs / np.nanmean(outcomes.costs[:, -1])
    return Rows(trained.unseen, guessed, seen, outcomes.scores, costs, outcomes.shares)


def teach(
    trained: Trained, outcomes: Outcomes, seen: Seen, by_estimate: Collection[NamedTarget] = ()
) -> tuple[Posterior, dict[str, Rule]]:
    """The posterior of answers, and the rules of the targets for which judging answers is worth its cost.

    by_estimate: targets that get a rule whose estimate keeps their quality where no bound does. Rows may be too few for a bound;
    such a rule promises nothing before a certificate, made of other rows, lets it accept an answer.
    """
    rows, fold = rows_to_learn(trained, outcomes, seen), folds_of(list(outcomes.groups), N_FOLDS)
    posterior = fit_posterior(rows.prior, rows.guessed, seen, rows.scores, rows.costs, fold, outcomes.weights)
    whole = outcomes.is_complete
    if whole.sum() < FEWEST_ROWS:
        return posterior, {}
    found = menu(rows.take(whole), fold[whole], outcomes.take(whole))
    routed = {name: Rule.from_dict(rule) for name, rule in trained.manifest["rules"].items()}
    proved = cascades(found, routed)
    bold: dict[str, Rule] = {
        name: rule for name in by_estimate if name not in proved and (rule := estimated(found, QUALITY_OF[name]))
    }
    return posterior, {**proved, **bold}


def menu(rows: Rows, fold: Any, outcomes: Outcomes) -> Menu:
    """As calibration.menu, by posteriors and plans that had not seen the rows."""
    played = cross_play(rows, fold, PRICES, BEST_OF)
    shares = outcomes.shares
    weights = ev.draws(len(rows), 400, shares=shares)
    f, top = frontier_of(played, rows, weights), top_quality(outcomes, weights)
    large = np.array([np.average(p.tier == rows.prior.shape[1] - 1, weights=shares) for p in played])
    bound = lower_bound(f.quality * top[:, None], top, large < 1, CONFIDENCE, ev.effective(shares))
    return Menu(PRICES, f.cost[0], f.quality[0], bound, large, rows.prior.shape[1])


def cascades(found: Menu, routed: Mapping[str, Rule]) -> dict[str, Rule]:
    """The rule of each target that promises the same quality for less than routing alone."""
    rules = {name: for_quality(found, share) for name, share in QUALITY_OF.items()}
    return {
        name: replace(rule, kind="cascade")
        for name, rule in rules.items()
        if rule.kind == "utility" and rule.expected_cost < routed[name].expected_cost
    }


def estimated(found: Menu, share: float) -> Rule | None:
    """The cheapest rule whose estimate keeps `share` of the top tier's quality; none: only the top tier does."""
    rule = for_quality(replace(found, bound=found.quality), share)
    if rule.kind != "utility":
        return None
    bound = found.bound[int(np.argmin(np.abs(found.prices - rule.value)))]
    return replace(rule, kind="cascade", quality_bound=float(bound))


def promise(
    artefact: Artifact,
    rows: Rows,
    name: str,
    alpha: float,
    delta: float,
    fingerprints: Mapping[str, Any],
    reach: Mapping[str, float] | None = None,
    holdback: bool = False,
) -> tuple[ct.Certificate | ct.Infeasible, list[ct.Point]]:
    """The certificate of a target, made on rows that it was not trained on, and the region that it was chosen from.

    holdback: certify the target's streams, which are accepted by as many first tokens as the artefact was trained on.
    """
    played = played_by(artefact, rows, name, holdback)
    scores, loss, differs = to_certify(played, rows)
    found = ct.certify(scores, loss, alpha, delta, name + ct.HOLDBACK * holdback, differs)
    prefix = artefact.posterior.prefix if artefact.posterior and holdback else None
    score = {"score": ct.score_fingerprint(artefact.manifest, name, prefix)} | ({"prefix": prefix} if holdback else {})
    now = datetime.now(UTC).isoformat(timespec="seconds")
    if isinstance(found, ct.Certificate):
        found = replace(found, fingerprints={**fingerprints, **score}, created=now, reach=reach or {})
    else:
        found = replace(found, created=now)
    return found, ct.region(scores, loss, delta)


def reach_of(artefact: Artifact, outcomes: Outcomes) -> dict[str, float]:
    """The bounds of the requests that a certificate made on these rows covers."""
    kept = outcomes.take(outcomes.is_complete)
    return ct.reach_of(artefact.guess_honestly(list(kept.texts))[0].unfamiliar, list(kept.texts))


def played_by(artefact: Artifact, rows: Rows, name: str, holdback: bool = False) -> Played:
    """Every row played by the target's rule without a threshold; with holdback, as a stream."""
    posterior, rule = judged_by(artefact, name, holdback)
    if holdback:
        check_first_tokens(posterior, rows.seen)
    ground = all_tiers(posterior.n_tiers, BEST_OF, comparable=not holdback)
    return play(States(posterior, rows, early=holdback), plan(posterior, rule.value, ground))


def judged_by(artefact: Artifact, name: str, holdback: bool = False) -> tuple[Posterior, Rule]:
    """What judges the answers under a target, or its streams. Raises BadInput where the artefact has nothing for that."""
    posterior, rule = artefact.posterior, artefact.cascades.get(name)
    if posterior is None:
        raise BadInput("the artefact knows no answers; train it on outcomes that hold them (`stepdown label` writes them)")
    if rule is None:
        known = ", ".join(artefact.cascades) or "none"
        raise BadInput(f"target {name!r} does not look at answers, routing alone is as cheap; targets that do: {known}")
    untrained = [k for k in range(posterior.n_tiers - 1) if f"prefix:{k}" not in posterior.heads]
    if holdback and untrained:
        raise BadInput(
            f"--holdback: the artefact has no heads on first tokens for {len(untrained)} of the {posterior.n_tiers - 1} tiers "
            "below the top; train it on outcomes with log-probabilities (`stepdown label` writes them)"
        )
    return posterior, rule


def check_first_tokens(posterior: Posterior, seen: Seen) -> None:
    """Raise BadInput where the rows do not tell how streams are judged."""
    if seen.prefix is None or seen.prefix_tokens != posterior.prefix:
        raise BadInput(
            f"--holdback: the outcomes do not hold the log-probabilities of the first {posterior.prefix} tokens of every tier "
            "(`first_logprobs`); `stepdown label` writes them"
        )


def to_certify(played: Played, rows: Rows) -> tuple[Floats, Floats, Floats]:
    """scores, loss and differs for certificates.certify: (n,) each. What is compared is what an audit compares."""
    top = rows.prior.shape[1] - 1
    small = played.tier < top
    loss = small & (played.scores(rows) < rows.scores[:, top])
    agrees = rows.seen.agree[np.arange(len(rows)), played.tier, top]
    return np.where(small, played.chance, -np.inf), loss.astype(np.float64), np.where(small, 1 - agrees, np.nan)


def rows_to_judge(artefact: Artifact, outcomes: Outcomes, seen: Seen) -> tuple[Rows, int]:
    """Complete rows with chances as if unseen, and how many of them the artefact was trained on."""
    whole = outcomes.is_complete
    kept = outcomes.take(whole)
    if not len(kept):
        raise BadInput("no row has a score and a cost of every tier")
    guess, recalled = artefact.guess_honestly(list(kept.texts))
    costs = kept.costs / kept.costs[:, -1].mean()
    return Rows(guess.p, guess.cost, seen.take(whole), kept.scores, costs, kept.shares), recalled


def bind(manifest: dict[str, Any], name: str, found: ct.Certificate | ct.Infeasible) -> dict[str, Any]:
    """The manifest with the certificate in it and the threshold in the target's rule."""
    written = {**manifest, "certificates": {**manifest.get("certificates", {}), found.rule: found.to_dict()}}
    if found.rule != name:  # a certificate of streams, whose threshold stays in the certificate
        return written
    rule = ct.binding(Rule.from_dict(manifest["cascades"][name]), found)
    return {**written, "cascades": {**manifest["cascades"], name: rule.to_dict()}}


def certificate_text(found: ct.Certificate | ct.Infeasible, region: list[ct.Point], notes: Sequence[str] = ()) -> str:
    """The certificate, or why there is none, as text. notes: what else is to be said."""
    base = region[-1].risk
    lines = [
        f"returning every answer that {auto(found.rule)} would: {base:.1%} of {found.n} prompts worse than by the top tier",
        f"so at least {ct.deferral(base, found.alpha):.1%} of them must be sent up to keep {found.alpha:.1%}",
        "",
        ct.region_text(region, found.alpha),
        "",
    ]
    if isinstance(found, ct.Certificate):
        lines += [
            f"certified: answers with a chance of at least {found.threshold:.4g} are accepted, so smaller tiers answer",
            f"{found.coverage:.1%} of prompts; their answer is worse than the top tier's in at most {found.alpha:.1%} of all",
            f"prompts, with confidence {1 - found.delta:.0%}",
        ]
    else:
        lines += [f"infeasible: {found.reason}", f"under {auto(found.rule)} every request now goes to the top tier"]
    return "\n".join([*lines, *notes])


def auto(rule: str) -> str:
    """A certificate's target, as shown to people."""
    target, held, _ = rule.partition(ct.HOLDBACK)
    return f"auto:{target}" + (", streamed under holdback," if held else "")
