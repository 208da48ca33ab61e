"""The promotion policy: named cases about the pull request, the version and the stages."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from mlp_ci.promote.case import QUARANTINE, Registered
from mlp_ci.promote.policy import decide
from mlp_ci.promote.telling import RULES
from tests.deciding import (
    D3,
    D4,
    EVIDENCE,
    HEAD,
    OLD,
    SWAPPED,
    broken,
    case,
    commit,
    entry,
    fix,
    held,
    held_rules,
    message,
    own,
    platform,
    promotion,
    pull,
    registered,
    review,
)


def test_a_second_persons_approval_of_the_head_is_enough() -> None:
    verdict = decide(case())
    assert verdict.allowed
    assert verdict.approvers == ("bob",)
    assert (verdict.entry, verdict.commit, verdict.pull, verdict.needed) == (entry(), HEAD, 7, 1)
    assert (verdict.author, verdict.kind, verdict.machine) == ("alice", "promotion", False)
    assert held_rules(verdict) == {
        "one-file", "commit-authors", "pushers", "approvals", "version", "gate", "digest", "evidence", "lineage",
        "quarantine", "stage-order",
    }  # fmt: skip


def test_every_rule_is_explained() -> None:
    for changed in (
        {},
        {"pull": pull(draft=True, base_ref="x", complete=False)},
        {"registered": registered(data=False)},
    ):
        assert {r.check for r in decide(case(**changed)).reasons} <= set(RULES)


def test_nobody_yet_says_who_could_approve() -> None:
    verdict = decide(case(reviews=()))
    assert not verdict.allowed
    assert verdict.waiting
    assert message(verdict, "approvals") == "1 of 1 approval missing: someone with write access other than alice"


def test_two_are_needed_and_one_is_there() -> None:
    verdict = decide(case(tier="critical"))
    assert verdict.waiting
    assert message(verdict, "approvals") == "1 of 2 approvals missing: someone with write access other than alice, bob"


def test_what_no_approval_can_mend_is_not_called_waiting() -> None:
    assert not decide(case(reviews=(), registered=registered(gate="fail"))).waiting


def test_tier_low_needs_nobody_and_the_machine_may_merge() -> None:
    verdict = decide(case(tier="low", reviews=()))
    assert verdict.allowed
    assert verdict.needed == 0
    assert verdict.machine


def test_the_machine_merges_nothing_but_tier_low_with_a_version() -> None:
    nobody = {"reviews": (), "stage": "staging", "before": promotion(staging=entry(3, D3)), "platform": platform()}
    assert not decide(case(**nobody, after=promotion(staging=entry()))).machine  # standard needs nobody in staging
    gone = decide(case(**nobody, tier="low", after=promotion()))
    assert gone.allowed
    assert not gone.machine
    stricter = own(approvals={"production": 1})
    assert not decide(case(tier="low", own=stricter)).machine
    assert not decide(case(tier="low", reviews=(), after=promotion(staging=entry(), production=_urgent()))).machine


def _urgent() -> object:
    return entry(emergency="customers are down")


def test_what_the_pull_request_may_not_be() -> None:
    for changes, check in [
        ({"files": ("model.yaml", "promotion.yaml")}, "one-file"),
        ({"files": ("Promotion.yaml",)}, "one-file"),
        ({"files": ()}, "one-file"),
        ({"base_ref": "release"}, "base"),
        ({"state": "closed"}, "state"),
        ({"draft": True}, "state"),
        ({"draft": True, "state": "merged"}, "state"),
        ({"complete": False}, "whole"),
        ({"head_repo": "mallory/flight-delay"}, "same-repository"),
        ({"head_repo": ""}, "same-repository"),
        ({"commits": ()}, "commit-authors"),
        ({"commits": (commit(""),)}, "commit-authors"),
        ({"commits": (commit("alice", ""),)}, "commit-authors"),
        ({"commits": (commit("web-flow"),)}, "commit-authors"),
    ]:
        assert broken(decide(case(pull=pull(**changes)))) == {check}, changes


def test_what_is_said_of_a_pull_request_that_may_not_be() -> None:
    for changes, check, said in [
        (
            {"files": ("a.py", "b.py", "c.py", "d.py", "promotion.yaml")},
            "one-file",
            "a promotion changes promotion.yaml alone; this one also changes a.py, b.py, c.py and 1 more",
        ),
        (
            {"head_repo": ""},
            "same-repository",
            "it comes from a repository that is gone, where GitHub does not record who pushed",
        ),
        ({"base_ref": "release"}, "base", "it goes to release; only main is deployed"),
        ({"commits": (commit("", sha=OLD),)}, "commit-authors", "GitHub does not know who wrote 000000000000"),
    ]:
        assert message(decide(case(pull=pull(**changes))), check) == said


def test_github_ignores_case_in_the_names_of_repositories() -> None:
    assert decide(case(pull=pull(head_repo="Acme/Flight-Delay"))).allowed


def test_a_commit_made_on_githubs_pages_is_its_authors() -> None:
    assert decide(case(pull=pull(commits=(commit("alice", "web-flow"),)))).allowed


# ---------------------------------------------------------------- the version


@pytest.mark.parametrize(
    ("changes", "checks"),
    [
        ({"gate": "fail"}, {"gate"}),
        ({"gate": ""}, {"gate"}),
        ({"evidence": ""}, {"gate", "evidence"}),
        ({"digest": D3}, {"digest"}),
        ({"digest": ""}, {"digest"}),
        ({"evidence_found": SWAPPED}, {"evidence"}),
        ({"evidence_found": ""}, {"evidence"}),
        ({"commit": ""}, {"lineage"}),
        ({"commit_known": False}, {"lineage"}),
        ({"data": False}, {"lineage"}),
    ],
)
def test_the_version_must_be_what_the_registry_has(changes: dict[str, object], checks: set[str]) -> None:
    assert broken(decide(case(registered=registered(**changes)))) == checks


def test_a_version_that_the_registry_does_not_have() -> None:
    verdict = decide(case(registered=Registered(exists=False)))
    assert broken(verdict) == {"version"}
    assert message(verdict, "version") == "version 4 is not in the registry"


def test_lineage_names_all_that_is_missing() -> None:
    verdict = decide(case(registered=registered(commit_known=False, data=False)))
    assert message(verdict, "lineage") == (
        "version 4 does not say where it comes from: its commit cccccccccccc is not in the history of the default "
        "branch, no data by digest"
    )


def bound(evidence: str) -> dict[str, object]:
    return {"after": promotion(staging=entry(), production=entry(evidence=evidence))}


def test_evidence_that_the_file_names_must_be_what_the_version_was_registered_with() -> None:
    assert decide(case(**bound(EVIDENCE))).allowed
    verdict = decide(case(**bound(SWAPPED)))
    assert broken(verdict) == {"evidence"}
    assert message(verdict, "evidence") == (
        "the file names the evidence sha256:ffffffffffff…, the registry has sha256:eeeeeeeeeeee…"
    )


def test_evidence_and_tag_swapped_together_are_seen_where_the_file_names_it() -> None:
    both = registered(evidence=SWAPPED, evidence_found=SWAPPED)
    assert broken(decide(case(**bound(EVIDENCE), registered=both))) == {"evidence"}
    verdict = decide(case(registered=both))
    assert verdict.allowed
    assert "promotion.yaml does not name it" in message(verdict, "evidence")


# ---------------------------------------------------------------- stages


def test_production_takes_only_what_staging_has() -> None:
    for staging, has in [
        ({}, "nothing"),
        ({"staging": entry(3, D3)}, "version 3"),
        ({"staging": entry(4, D3)}, "version 4 with other bytes"),
    ]:
        verdict = decide(
            case(before=promotion(**staging, production=entry(3, D3)), after=promotion(**staging, production=entry()))
        )
        assert broken(verdict) == {"stage-order"}
        assert message(verdict, "stage-order") == f"production only takes what staging has; staging has {has}"
        assert fix(verdict, "stage-order") == "mlp-ci promote staging --version 4, and merge that first"


def test_what_is_written_beside_version_and_digest_does_not_matter_for_the_order() -> None:
    staging = entry(evidence=EVIDENCE, emergency="customers are down")
    assert decide(case(before=promotion(staging=staging), after=promotion(staging=staging, production=entry()))).allowed


def test_one_pull_request_promotes_to_one_stage() -> None:
    before = promotion(staging=entry(3, D3), production=entry(3, D3))
    verdict = decide(case(before=before))
    assert broken(verdict) == {"one-entry", "stage-order"}
    assert message(verdict, "one-entry") == "it also changes staging"
    assert broken(decide(case(stage="staging", before=before))) == {"one-entry"}


def test_more_stages_than_two() -> None:
    stages = [{"name": n} for n in ("dev", "staging", "production")]
    spec = platform(stages=stages, tiers={"standard": {"approvals": {"dev": 0, "staging": 0, "production": 1}}})
    skipped = case(platform=spec, before=promotion(dev=entry()), after=promotion(dev=entry(), production=entry()))
    assert broken(decide(skipped)) == {"stage-order"}


def test_taking_a_stage_out_of_service_needs_approval_but_no_version() -> None:
    gone = promotion(staging=entry())
    assert decide(case(after=gone, registered=Registered(exists=False))).allowed
    assert broken(decide(case(after=gone, reviews=()))) == {"approvals"}


def test_unknown_tier_and_stage_and_another_model() -> None:
    assert message(decide(case(tier="gold")), "tier") == "the platform has no tier gold; it has low, standard, critical"
    assert "stage" in broken(decide(case(stage="canary")))
    assert broken(decide(case(after=promotion("other", **case().after.stages)))) == {"model"}


# ---------------------------------------------------------------- quarantine


def test_quarantined_bytes_stay_out_even_when_the_same_change_lifts_it() -> None:
    plain = case()
    verdict = decide(replace(plain, before=promotion(quarantine=(held(),), **plain.before.stages)))
    assert broken(verdict) == {"quarantine", "one-entry"}
    assert message(verdict, "quarantine") == "these bytes are quarantined since 2026-05-01: late flights"
    also = decide(replace(plain, after=promotion(quarantine=(held(),), **plain.after.stages)))
    assert broken(also) == {"quarantine"}


def test_a_new_version_number_for_quarantined_bytes_changes_nothing() -> None:
    quarantine = (held(D4),)  # under number 4
    stages = {"staging": entry(9)}
    again = case(
        before=promotion(quarantine=quarantine, **stages),
        after=promotion(quarantine=quarantine, **stages, production=entry(9)),
    )
    assert broken(decide(again)) == {"quarantine"}


def test_a_promotion_lifts_no_quarantine_of_other_bytes_beside() -> None:
    plain = case()
    verdict = decide(replace(plain, before=promotion(quarantine=(held(D3),), **plain.before.stages)))
    assert broken(verdict) == {"one-entry"}
    assert message(verdict, "one-entry") == "it also changes what is quarantined"


def test_a_rollback_by_pull_request_adds_a_quarantine() -> None:
    before = promotion(staging=entry(), production=entry(5, D3))
    after = promotion(quarantine=(held(D3),), staging=entry(), production=entry())
    assert decide(case(before=before, after=after)).allowed


def test_lifting_a_quarantine_needs_the_strictest_approval_even_in_tier_low() -> None:
    before = promotion(quarantine=(held(),), staging=entry(3, D3))
    lift = case(
        stage=QUARANTINE, before=before, after=promotion(staging=entry(3, D3)), registered=Registered(exists=False)
    )
    assert broken(decide(replace(lift, tier="low", reviews=()))) == {"approvals"}
    assert decide(replace(lift, tier="low")).allowed
    assert not decide(replace(lift, tier="low")).machine
    assert decide(replace(lift, tier="critical")).needed == 2
    assert broken(decide(replace(lift, after=promotion(staging=entry())))) == {"one-entry"}


def test_bytes_whose_lift_was_not_allowed_stay_out() -> None:
    why = "the quarantine of these bytes was lifted by 1a2b3c4d5e6f without a merged pull request"
    verdict = decide(case(lifted=why))
    assert broken(verdict) == {"quarantine-lift"}
    assert message(verdict, "quarantine-lift") == why


def test_the_same_case_gives_the_same_verdict_and_quickly() -> None:
    crowd = tuple(review(f"person-{i % 50}", "APPROVED", i) for i in range(500))
    big = case(reviews=crowd, permissions={f"person-{i}": "write" for i in range(50)})
    start = time.process_time()
    verdicts = [decide(big) for _ in range(20)]
    assert (time.process_time() - start) / 20 < 0.05
    assert all(v == verdicts[0] for v in verdicts)
